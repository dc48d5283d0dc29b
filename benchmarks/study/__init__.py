"""Studies that take hours: their raw results are kept beside them. `make study` runs them all."""

"""From a run to something a person can look at or take away: figures, exported losses."""

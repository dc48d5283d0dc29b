"""Speed, measured: each module times the product beside a named peer in the same run. `python -m benchmarks.run`."""

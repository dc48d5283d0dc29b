"""From typed words, or from what a run stored, to a checked configuration, and back to the words that repeat a run.

`compose` and `overrides` know Hydra; `stored` goes to plain data and back; `check` refuses values, `named_code` code
that nobody typed; `resume` and `repeat` go on from a run. Nothing here trains, or knows a command.
"""

"""Turns arguments, or what a run stored, into a checked configuration, and back into the arguments that repeat a run.

`compose` and `overrides` use Hydra; `stored` converts to plain data and back; `check` refuses wrong values,
`named_code` refuses code that the user has not named; `resume` and `repeat` start from a run. Nothing here trains, or
depends on a command.
"""

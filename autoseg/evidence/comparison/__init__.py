"""Losses trained under one budget with the same seeds, and what may be said of their differences.

`contenders` are the losses, `made_with` is what they were trained under, `compare` has them trained;
`matrix` is the result (`bootstrap` where it is over seeds and images), `tables` and `documents` show it.
"""

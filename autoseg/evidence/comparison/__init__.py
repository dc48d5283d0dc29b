"""Compares losses trained under one budget with the same seeds, and says how sure the differences are.

`contenders` are the losses, `made_with` records budget and versions, `compare` runs the trainings;
`matrix` is the result (`bootstrap` for intervals over seeds and images), `tables` and `documents` show it.
"""

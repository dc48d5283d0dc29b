"""Kernels in Triton's language; importing them needs triton.

`rows` has a pass over few classes, `loops` over any number, `parts` their shared functions; `score` computes the loss
from totals and `band` draws outlines of labels.
"""

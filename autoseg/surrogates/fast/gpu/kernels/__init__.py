"""Kernels in Triton's language; importing them needs triton.

`rows` has a pass over few classes, `loops` over any number, `parts` what both share; `score` goes from totals to the
loss and `band` draws outlines of labels.
"""

"""The totals of a metric's formula over hard labels, in one pass over the logits instead of an operation at a time.

A formula is traced once: which totals it asks for (`trace`), sorted by who computes them (`formula_plan`) into what one
pass does (`passes`); where a metric is one ratio of its totals (`ratios`), a kernel has the loss too. `reading` has
those of a batch computed by `cpu/` or `gpu/`. Both save little beside the logits, and compute the rest again in
backward; their gradient can be taken once (`first_order`).
"""

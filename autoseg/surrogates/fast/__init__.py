"""The totals of a metric's formula over hard labels, in one pass over the logits instead of one pass per operation.

A formula is traced once: `metrics.trace` lists the totals it needs, `formula_plan` sorts them by the code that computes
them into the work of one pass (`passes`); where a metric is one ratio of its totals (`ratios`), a kernel computes the
loss too. `reading` has `cpu/` or `gpu/` compute the totals of a batch. Both save little besides the logits, and
recompute the rest in the backward pass; their gradient cannot be differentiated again (`first_order`).
"""

"""The fast pass on a GPU, as kernels in Triton.

* `plans`: what kernels are told of a pass and of a batch; `launches` has them compute totals, the loss and gradients;
* `bands`: regions along the labels' outlines, such as BIoU's trimap;
* `checks` tries all of them on a small batch before they are used; where they fail, the reference computes;
* `kernels/` is written in Triton's language, and imported when it is launched.
"""

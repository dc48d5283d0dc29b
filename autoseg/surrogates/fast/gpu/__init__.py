"""The fast pass on a GPU, as kernels in Triton.

* `plans`: the kernels' description of a pass and of a batch; `launches` computes totals, the loss and gradients;
* `bands`: regions along the labels' outlines, such as BIoU's trimap;
* `checks` tries all of them on a small batch before they are used; if they fail, the reference is used;
* `kernels/` is written in Triton's language, and imported when it is launched.
"""

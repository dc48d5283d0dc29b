"""The fast pass on a CPU: in torch, block by block, and the same in C++.

* `fused`: pointwise totals, with curves as `pieces`; `native_pass` does it in C++ (`pointwise.cpp`);
* `by_channel`: totals that erode or dilate the prediction, with `windows`; `native_channels` in C++ (`channels.cpp`);
* `native` builds the C++ with the user's compiler; `curve.h` and `windows.h` are its `pieces` and `windows`.
"""

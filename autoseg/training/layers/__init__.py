"""Layers and blocks of networks, faster on a CPU: the same functions of the same parameters.

On a CPU, most of an iteration of a small network is spent on passes over its maps. These modules need fewer passes:

* `pointwise`, `depthwise`: 1x1 and dilated depthwise convolutions by other operations of torch;
* `normalization`: batch norm and the activation after it in one operation, in C++ (`normalization.cpp`);
* `chain`: convolution, norm, activation, convolution ... in one call of C++. A `Link` is one convolution with its norm
  and activation. `chain.cpp` goes from link to link; a convolution itself is in `pointwise.cpp`, `depthwise.cpp` or
  `dense.cpp` (3x3, by Winograd's method: `winograd.h`). `links.h` documents the interface of these three, `maps.h` is
  batch norm and maps in vectors of 8 channels, `products.h` the matrix product;
* `blocks`: the blocks of mmsegmentation that are such chains: ConvModule, inverted residual, separable convolution;
* `native`: builds the C++ with the user's compiler when it is first needed, and calls it.

`models.speed_up` inserts them: once after a network is built, it gives every layer and block that `suits` (by its kind
and settings) the class of its fast version; state dicts stay the same. At every call the fast version checks whether
its maps are `usable` (on the CPU, float32, channels-last, a compiler available, no autocast); if not, it does what
torch's layer does. So on a GPU, in half precision and without a compiler a network is torch's, without any option.

The equality of both paths is tested in `tests/unit/training`: each layer, chain and block against torch's in double
precision, value, gradients and running statistics (`test_pointwise`, `test_depthwise`, `test_normalization`,
`test_chain`), and whole networks with and without `speed_up` (`test_blocks`).
"""

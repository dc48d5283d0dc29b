"""Layers and blocks of networks, faster on a CPU: the same functions of the same parameters.

There, most of an iteration of a small network goes into passing over its maps. These modules pass over them less often:

* `pointwise`, `depthwise`: 1x1 and dilated depthwise convolutions in other operations of torch;
* `normalization`: batch norm and the activation after it in one go, in C++ (`normalization.cpp`);
* `chain`: convolution, norm, activation, convolution ... in one call of C++. A `Link` is one convolution with its norm
  and activation. `chain.cpp` goes from link to link; a convolution itself is in `pointwise.cpp`, `depthwise.cpp` or
  `dense.cpp` (3x3, by Winograd's method: `winograd.h`). `links.h` says what these three promise, `maps.h` is
  batch norm and maps in vectors of 8 channels, `products.h` the matrix product;
* `blocks`: the blocks of mmsegmentation that are such chains: ConvModule, inverted residual, separable convolution;
* `native`: builds the C++ with the user's compiler when it is first needed, and calls it.

Who decides: `models.speed_up`, once after a network is built, gives every layer and block that `suits` (by its kind and
settings) the class of its fast twin; state dicts stay as they were. At every call the twin looks whether its maps are
`usable` (on the CPU, float32, channels-last, a compiler at hand, no autocast); where they are not, it does what the
layer of torch does. So on a GPU, in half precision and without a compiler a network is torch's, without any option.

That both paths are equal is tested in `tests/unit/training`: each layer, chain and block against torch's in double
precision, value, gradients and running statistics (`test_pointwise`, `test_depthwise`, `test_normalization`,
`test_chain`), and whole networks with and without `speed_up` (`test_blocks`).
"""

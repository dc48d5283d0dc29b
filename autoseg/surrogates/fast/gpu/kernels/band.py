"""Trimaps as Triton kernels: pixels near an outline of the labels, in three launches instead of some forty operations.

Importing this needs triton. Flags are bytes, 0 or 1; an image's pixels lie row after row, without gaps.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _class_at(at, where, C: tl.constexpr):
    """Return the class of a pixel, -1 if it has none."""
    label = tl.load(at, mask=where, other=-1).to(tl.int64)
    return tl.where((label >= 0) & (label < C), label, -1)


@triton.jit
def edge_kernel(
    ids, flags, height, width, px, first, C: tl.constexpr, BORDER: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Mark pixels of a class, from `first` on, within `px` of another class or of none; grid (blocks of an image, N).

    BORDER: pixels beyond the image count as another class.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here, inside = tl.program_id(1).to(tl.int64) * height * width + i, i < height * width
    row, column = i // width, i % width
    own = _class_at(ids + here, inside, C)
    found = tl.zeros((BLOCK,), tl.int32)
    for down in range(-px, px + 1):
        for right in range(-px, px + 1):
            y, x = row + down, column + right
            near = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
            other = _class_at(ids + here + down * width + right, near, C)
            found |= (near & (other != own)).to(tl.int32)
            if BORDER:
                found |= (inside & ~near).to(tl.int32)
    tl.store(flags + here, tl.where(own >= first, found, 0).to(tl.uint8), mask=inside)


@triton.jit
def widen_kernel(flags, out, height, width, px, DOWN: tl.constexpr, BLOCK: tl.constexpr):
    """Mark pixels within `px` of a flag, along columns if DOWN, else along rows; grid (blocks of an image, N)."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here, inside = tl.program_id(1).to(tl.int64) * height * width + i, i < height * width
    place, end = i % width, width
    step = 1
    if DOWN:
        place, end = i // width, height
        step = width
    found = tl.zeros((BLOCK,), tl.uint8)
    for k in range(-px, px + 1):
        near = inside & (place + k >= 0) & (place + k < end)
        found |= tl.load(flags + here + k * step, mask=near, other=0)
    tl.store(out + here, found, mask=inside)

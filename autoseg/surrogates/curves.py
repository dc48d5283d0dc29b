"""One-dimensional curves g: [0, 1] -> [0, 1], piecewise quadratic Bezier or piecewise linear, on tensors.

Auto Seg-Loss: AND becomes g(a) g(b), OR becomes g(a) + g(b) - g(a) g(b). The truth table holds at
the corners iff g(0) = 0 and g(1) = 1; the surfaces are monotone iff g is.

A K-piece Bezier curve has points B_0 .. B_2K; piece k runs from B_2k to B_2k+2 with B_2k+1 as its control point.
A linear segment is the same piece with its control point halfway, so one evaluator serves both families.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MIN_WIDTH = 1e-6  # least width of a piece: a jump (two knots at one x) stays a function with a finite slope
MIN_OFFSET = 1e-6  # least relative distance of a control point from its piece's ends: no slope is vertical
# Largest slope at the right end. In float32 p = 1 stands for all numbers within 3e-8 of it, so that saturated pixels,
# of which a trained network has many, would all get the slope of the end itself: 1e12 made gradients 10,000 times as
# large as they are.
END_SLOPE = 1e4


def linear_knots(points: Tensor) -> Tensor:
    """Return the points of a polyline, (M+1, 2), as Bezier points (2M+1, 2): each segment with its midpoint as
    control.
    """
    out = points.new_empty(2 * len(points) - 1, 2)
    out[0::2] = points
    out[1::2] = (points[1:] + points[:-1]) / 2
    return out


def _spread(x: Tensor, pieces: int, last: float) -> Tensor:
    """Move the knots' x apart to at least `MIN_WIDTH`, within [0, 1], with the controls between their knots.

    The last piece is at least `last` wide. The control of a piece that had no width is halfway, so that a straight
    piece stays straight.
    """
    x = x.clone()
    knots = x[0::2]
    knots[0], knots[-1] = 0.0, 1.0
    narrow = knots[1:] - knots[:-1] < MIN_WIDTH
    for k in range(1, pieces):
        low, high = knots[k - 1] + MIN_WIDTH, 1.0 - max(last, MIN_WIDTH) - (pieces - 1 - k) * MIN_WIDTH
        knots[k] = knots[k].clamp(float(low), float(high))
    within = torch.minimum(torch.maximum(x[1::2], knots[:-1]), knots[1:])
    x[1::2] = torch.where(narrow, (knots[:-1] + knots[1:]) / 2, within)
    return x


def prepare(points: Tensor, max_slope: float = math.inf) -> Tensor:
    """Return the coefficients of a curve for `evaluate`.

    Args:
        points: (2K+1, 2) float64 Bezier points with their ends, x sorted.
        max_slope: bound on the slope at the left end, as `END_SLOPE` is at the right one: the first control point is
            moved away from the end to satisfy it, and the knot after it if it would be too near.

    Returns:
        (K, 6) float64: left x, right x, control's relative x, and the three ordinates of each piece.
    """
    pieces = (len(points) - 1) // 2
    x, y = points[:, 0].double().clone(), points[:, 1].double()
    x[2:-1] = torch.maximum(x[2:-1], (y[2] - y[0]) / max_slope)
    x = _spread(x, pieces, float((y[-1] - y[-3]).abs()) / END_SLOPE)
    x[1] = torch.maximum(x[1], ((y[1] - y[0]) / max_slope).clamp(max=float(x[2])))
    x[-2] = torch.minimum(x[-2], (1 - (y[-1] - y[-2]).abs() / END_SLOPE).clamp(min=float(x[-3])))
    left, control, right = x[0:-1:2], x[1::2], x[2::2]
    width = right - left
    offset = ((control - left) / width).clamp(MIN_OFFSET, 1 - MIN_OFFSET)
    return torch.stack([left, right, offset, y[0:-1:2], y[1::2], y[2::2]], dim=1)


def _pieces(x: Tensor, coefficients: Tensor) -> tuple[Tensor, ...]:
    """Return, per element of x, the six coefficients of the piece it falls on (0-d for a curve of one piece)."""
    chosen = tuple(coefficients[0])
    for row in coefficients[1:]:
        beyond = x > row[0]  # a knot belongs to the piece on its left, as in the paper's release
        chosen = tuple(torch.where(beyond, row[i], old) for i, old in enumerate(chosen))
    return chosen


def value_and_slope(x: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
    """Return g(x) and g'(x); arguments as in `evaluate`, in one dtype."""
    left, right, a, y0, y1, y2 = _pieces(x, coefficients)
    width = right - left  # in x's own precision, so that u = 1 exactly at the right knot
    u = ((x - left) / width).clamp(0, 1)
    # x(t) = u inverted as u / (a + sqrt(a² + (1 - 2a) u)): equal to the textbook root, without its cancellation
    # near a = 1/2. The radicand is written as a mean of two squares so that u = 1 gives t = 1 exactly.
    root = torch.lerp(a * a, (1 - a) * (1 - a), u).sqrt()
    t = u / (a + root)
    low, high = torch.lerp(y0, y1, t), torch.lerp(y1, y2, t)  # de Casteljau: exact ends, never outside [y0, y2]
    return torch.lerp(low, high, t), (high - low) / (width * root)


class _Curve(torch.autograd.Function):
    """g(x) with its slope computed in the forward pass, so that the backward pass is one multiplication.

    If the backward pass itself is to be differentiated, the slope is computed again, with a graph.
    """

    @staticmethod
    def forward(x: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        return value_and_slope(x, coefficients)

    @staticmethod
    def setup_context(ctx: object, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
        ctx.save_for_backward(*inputs, output[1])  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(output[1])  # type: ignore[attr-defined]
        ctx.set_materialize_grads(False)  # type: ignore[attr-defined]

    @staticmethod
    def backward(ctx: object, grad: Tensor | None, _: None) -> tuple[Tensor | None, None]:
        x, coefficients, slope = ctx.saved_tensors  # type: ignore[attr-defined]
        if torch.is_grad_enabled():
            slope = value_and_slope(x, coefficients)[1]
        return (None if grad is None else grad * slope), None


def evaluate(x: Tensor, coefficients: Tensor) -> Tensor:
    """Return g(x), elementwise; differentiable in x.

    Args:
        x: any shape, float32 or float64, values in [0, 1] (outside: the value at the end).
        coefficients: (K, 6) from `prepare`, on x's device; used in x's dtype.

    Returns:
        Same shape and dtype as x. g(0) and g(1) are the end ordinates exactly. Where the slope jumps, at a knot,
        the gradient is the left piece's.
    """
    coefficients = coefficients.to(x.dtype)
    # A function with a backward of its own cannot be written to a file, nor be mapped by torch.func.
    if torch.compiler.is_exporting() or torch._C._are_functorch_transforms_active():
        return value_and_slope(x, coefficients)[0]
    return _Curve.apply(x, coefficients)[0]

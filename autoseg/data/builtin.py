"""The built-in data: a procedural world of textured, occluding shapes, drawn from a seed.

Colour says little about the class: every object has a random colour, and the classes differ in texture
and shape, at several sizes, under uneven light and noise. Classes are as unequal as in real scenes (`seed`
below half a percent of the pixels) and `crack` is 1 to 3 pixels wide. Things that look similar but have no
class of their own (bright hairs, plain discs) keep the label of the ground they lie on.

Only +, -, *, /, square roots and comparisons are used (no sin, exp or normal variates, whose last bits depend
on the processor), so that the same seed gives the same bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from autoseg.config import DataConfig
from autoseg.data.source import IGNORE, Sample
from autoseg.errors import InputError

CLASSES = ("ground", "marble", "stripes", "checks", "ring", "crack", "seed")
GROUND, MARBLE, STRIPES, CHECKS, RING, CRACK, SEED = range(7)
PALETTE = (
    (90, 90, 90),
    (120, 160, 200),
    (230, 160, 40),
    (60, 160, 90),
    (200, 80, 160),
    (220, 40, 40),
    (250, 240, 80),
)
SIDE = 96  # pixels
VERSION = 1  # increase it when a seed would draw other images than before

Field = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class BuiltinSource:
    """A `Source` that draws its images: (96, 96), 7 classes.

    Args:
        seed: seed of the world.
        counts: images per role; image i of a role is the same whatever the counts are.
    """

    seed: int
    counts: dict[str, int]
    classes: Sequence[str] = CLASSES
    palette: Sequence[Sequence[int]] = PALETTE
    raters: int = 0

    @classmethod
    def from_config(cls, config: DataConfig) -> BuiltinSource:
        """Build the source of `data=builtin`; raise InputError for counts or a seed that are not valid."""
        if len(config.count) != 3 or min(config.count) < 0 or min(config.count[:2]) < 1:
            raise InputError("data.count", "[train, val, test] image counts, the first two at least 1", config.count)
        if config.seed < 0:
            raise InputError("data.seed", "a number from 0", config.seed)
        counts = dict(zip(("train", "val", "test"), config.count, strict=True))
        return cls(config.seed, {role: count for role, count in counts.items() if count})

    @property
    def names(self) -> dict[str, list[str]]:
        """Names of the images of each role."""
        return {role: [f"{role}_{i:05d}" for i in range(count)] for role, count in self.counts.items()}

    def identity(self) -> Any:
        """Return everything that decides the content."""
        return ["builtin", VERSION, self.seed, self.counts]

    def read(self, role: str, index: int) -> Sample:
        """Draw one image."""
        rng = np.random.default_rng([self.seed, ("train", "val", "test").index(role), index])
        scene = _Scene(rng)
        scene.draw()
        return scene.sample()


class _Scene:
    """One image that is painted, from back to front."""

    def __init__(self, rng: Generator) -> None:
        self.rng = rng
        y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float64)
        # Coordinates distorted by slow noise: every outline and grating drawn in them is irregular.
        self.x = x + 6 * (_noise(rng, 12) - 0.5)
        self.y = y + 6 * (_noise(rng, 12) - 0.5)
        self.image: Field = np.zeros((SIDE, SIDE, 3))
        self.labels: NDArray[np.uint8] = np.zeros((SIDE, SIDE), dtype=np.uint8)

    def draw(self) -> None:
        """Draw the ground, lines on it, large objects over the lines, small ones over everything."""
        rng = self.rng
        everywhere = np.ones((SIDE, SIDE), dtype=np.bool_)
        self.paint(everywhere, GROUND, 0.5 * _noise(rng, 24) + 0.3 * _noise(rng, 6) + 0.2 * _noise(rng, 2))
        if rng.random() < 0.75:
            self.paint(self.half_plane(), MARBLE, self.veins())
        for _ in range(rng.integers(1, 4)):
            self.line(crack=False)
        for _ in range(rng.integers(0, 3)):
            self.line(crack=True)
        for _ in range(rng.integers(3, 7)):
            self.body()
        for _ in range(rng.integers(2, 5)):
            self.small()
        self.void()

    def body(self) -> None:
        """Draw a large object: stripes or checks, with the same ranges of colour and period."""
        rng = self.rng
        mask = self.blob(rng.uniform(6, 20), rng.uniform(6, 15))
        period = rng.uniform(4, 8)
        first = self.wave(period)
        if rng.random() < 0.6:
            self.shaded(mask, STRIPES, first)
        else:
            self.shaded(mask, CHECKS, np.abs(first - self.wave(period)))

    def small(self) -> None:
        """Draw a ring, a disc that only looks like one, or sometimes a seed."""
        rng = self.rng
        kind = rng.random()
        cx, cy = rng.uniform(4, SIDE - 4, 2)
        distance = np.sqrt((self.x - cx) ** 2 + (self.y - cy) ** 2)
        tone = np.full((SIDE, SIDE), rng.random())
        if kind < 0.35:
            radius = rng.uniform(3.5, 7)
            self.paint((distance < radius) & (distance > 0.5 * radius), RING, tone)
        elif kind < 0.7:
            self.paint(distance < rng.uniform(2.5, 6), None, tone)
        else:
            self.paint(self.ellipse(cx, cy, rng.uniform(2.5, 4), rng.uniform(1.2, 2)), SEED, tone)

    def line(self, *, crack: bool) -> None:
        """Draw a winding line 1 to 3 pixels wide: dark ones are cracks, bright ones are hairs without a class."""
        rng = self.rng
        point, heading = rng.uniform(0, SIDE, 2), _direction(rng)
        width = rng.uniform(1.0, 2.8)
        distance = np.full((SIDE, SIDE), np.inf)
        for _ in range(rng.integers(4, 9)):
            bend = heading + 0.6 * _direction(rng)
            heading = bend / np.sqrt((bend**2).sum())
            end = point + rng.uniform(8, 16) * heading
            distance = np.minimum(distance, self.to_segment(point, end))
            point = end
        mask = distance < width / 2
        strength = rng.uniform(0.25, 0.5)
        self.image[mask] *= 1 - strength if crack else 1 + strength
        if crack:
            self.labels[mask] = CRACK

    def void(self) -> None:
        """Mark pixels as unlabelled: a strip at the lower border, or a patch anywhere."""
        rng = self.rng
        if rng.random() < 0.4:
            self.labels[SIDE - int(rng.integers(2, 6)) :] = IGNORE
        if rng.random() < 0.5:
            x0, y0 = rng.integers(0, SIDE - 12, 2)
            self.labels[y0 : y0 + int(rng.integers(4, 12)), x0 : x0 + int(rng.integers(4, 12))] = IGNORE

    def shaded(self, mask: Mask, label: int, tone: Field) -> None:
        """Paint an object with a soft shadow beside it, which darkens colours but changes no label."""
        dx, dy = self.rng.integers(-3, 4, 2)
        shadow = np.roll(mask, (int(dy), int(dx)), axis=(0, 1))
        self.image[shadow] *= 0.7
        self.paint(mask, label, tone)

    def paint(self, mask: Mask, label: int | None, tone: Field) -> None:
        """Cover a mask with a tone in [0, 1] between two random colours; `None` leaves the labels."""
        rng = self.rng
        base = rng.uniform(0.2, 0.8, 3)
        contrast = rng.uniform(0.15, 0.35) * np.where(rng.random(3) < 0.8, 1, -1)
        self.image[mask] = base + (tone[mask][:, None] - 0.5) * 2 * contrast
        if label is not None:
            self.labels[mask] = label

    def wave(self, period: float) -> Field:
        """Return a triangle wave in [0, 1] in a random direction; period in pixels."""
        u, v = _direction(self.rng)
        phase = (u * self.x + v * self.y) / period + self.rng.random()
        return np.abs(2 * (phase - np.floor(phase)) - 1)

    def veins(self) -> Field:
        """Return the tone of marble: noise folded at its middle, so that thin dark veins run through it."""
        rng = self.rng
        folded = np.abs(2 * _noise(rng, 10) - 1) + np.abs(2 * _noise(rng, 5) - 1)
        return np.minimum(1.5 * folded, 1.0)

    def half_plane(self) -> Mask:
        """Return one side of a random line through the middle part of the image."""
        u, v = _direction(self.rng)
        side = u * (self.x - SIDE / 2) + v * (self.y - SIDE / 2)
        return side > self.rng.uniform(-SIDE / 4, SIDE / 3)

    def blob(self, long: float, short: float) -> Mask:
        """Return an ellipse, or one cut by one or two straight edges."""
        rng = self.rng
        cx, cy = rng.uniform(0, SIDE, 2)
        mask = self.ellipse(cx, cy, long, short)
        for _ in range(rng.integers(0, 3)):
            u, v = _direction(rng)
            mask &= u * (self.x - cx) + v * (self.y - cy) < 0.5 * short
        return mask

    def ellipse(self, cx: float, cy: float, long: float, short: float) -> Mask:
        """Return a filled ellipse of random orientation; half axes in pixels."""
        u, v = _direction(self.rng)
        x, y = self.x - cx, self.y - cy
        return ((u * x + v * y) / long) ** 2 + ((u * y - v * x) / short) ** 2 < 1

    def to_segment(self, start: Field, end: Field) -> Field:
        """Return the distance of every pixel to a segment."""
        along = end - start
        x, y = self.x - start[0], self.y - start[1]
        share = np.clip((x * along[0] + y * along[1]) / (along**2).sum(), 0, 1)
        return np.sqrt((x - share * along[0]) ** 2 + (y - share * along[1]) ** 2)

    def sample(self) -> Sample:
        """Add light, colour cast and sensor noise, and convert to bytes."""
        rng = self.rng
        light = 0.6 + 0.8 * _noise(rng, 48)
        cast = rng.uniform(0.85, 1.15, 3)
        grain = rng.random((2, SIDE, SIDE, 3)).sum(axis=0) - 1
        image = self.image * light[:, :, None] * cast + rng.uniform(0.03, 0.09) * grain
        return Sample((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8), self.labels[None])


def _direction(rng: Generator) -> Field:
    """Return a unit vector in a uniformly random direction: a point of the unit disc, scaled."""
    while True:
        vector = rng.uniform(-1, 1, 2)
        length = float((vector**2).sum())
        if 0.01 < length <= 1:
            return vector / np.sqrt(length)


def _noise(rng: Generator, cell: int) -> Field:
    """Return smooth noise in [0, 1] with features of `cell` pixels: a random lattice, interpolated."""
    lattice = rng.random((SIDE // cell + 2, SIDE // cell + 2))
    at = np.arange(SIDE) / cell
    low = at.astype(np.int64)
    share = at - low
    share = share * share * (3 - 2 * share)
    rows = lattice[low] * (1 - share)[:, None] + lattice[low + 1] * share[:, None]
    return rows[:, low] * (1 - share) + rows[:, low + 1] * share

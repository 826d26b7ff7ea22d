"""The CT scanner: which voxels it takes, the couch, how thick its slices are, and its noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attentus.data.phantom.canvas import Canvas
from attentus.data.phantom.pose import Pose
from attentus.data.phantom.shapes import Array, turn
from attentus.data.phantom.texture import Waves
from attentus.types import Grid

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.shapes import Box
    from attentus.data.phantom.trunk import Body

AIR = -1000.0
PIXELS = 256
SLAB = 500_000
"""Voxels painted at a time: few enough to stay in the processor's cache."""


class Slab(NamedTuple):
    """Neighbouring slices, cropped to the body."""

    box: Box
    """Where they belong in the volume."""
    layers: int
    """Thin layers that make a slice: thick slices blur what they cut at a slant."""
    canvas: Canvas
    """(slices · layers, y, x)."""

    def slices(self) -> tuple[Array, NDArray[np.uint8]]:
        """Values, the mean over the layers, and labels, those of the middle layer."""
        stack = (-1, self.layers, *self.canvas.values.shape[1:])
        labels = self.canvas.labels.reshape(stack)[:, self.layers // 2]
        return self.canvas.values.reshape(stack).mean(axis=1), labels


@dataclass(frozen=True)
class Scan:
    """One examination of one patient."""

    pose: Pose
    grid: Grid
    """Field of view at the scanner's own spacing."""
    couch: tuple[float, float]
    """World height P of the couch's lowest line, and its radius of curvature, mm."""
    dose: float
    """Noise relative to an average scan."""

    @classmethod
    def draw(cls, rng: Generator, body: Body) -> Scan:
        """Another position, field of view and slice thickness."""
        pose = _lie_down(rng, body)
        step = float(rng.choice([1.5, 2.0, 2.5, 3.0, 5.0], p=[0.12, 0.3, 0.28, 0.2, 0.1]))
        top, bottom = _reach(rng, body)
        front, back = body.front_and_back
        pixel = round((body.stature * max(body.extent) + rng.uniform(15, 55)) / PIXELS, 4)
        half = pixel * (PIXELS - 1) / 2
        middle = pose.offset + body.stature * np.array([0, (front + back) / 2, bottom])
        left, back_most, low = (round(float(c), 2) for c in middle - (half, half - rng.normal(8, 6), 0))
        slices = round(body.stature * (top - bottom) / step)
        grid = Grid((slices, PIXELS, PIXELS), (step, pixel, pixel), (left, back_most, low))
        couch = (float(pose.offset[1]) + body.stature * back + 4, float(rng.uniform(380, 620)))
        return cls(pose, grid, couch, float(rng.uniform(0.75, 1.4)))

    def background(self, grid: Grid) -> Array:
        """Air and the couch, two thin curved shells around foam; (y, x) in Hounsfield units."""
        x, y, _ = _axes(grid)
        low, radius = self.couch
        below = y[:, None] - (low - (x[None, :] - self.pose.offset[0]) ** 2 / (2 * radius))
        pixel = grid.spacing[1]
        values = np.full(below.shape, AIR, np.float32)
        for depth, thick, value in ((12, 24, -930), (1.5, 3.0, 60), (26, 3.2, 120)):
            share = np.clip(0.5 + (thick / 2 - np.abs(below - depth)) / pixel, 0, min(1, thick / pixel))
            values += (share * (value - values)).astype(np.float32)
        return values

    def slabs(self, grid: Grid, body: Body) -> Iterator[Slab]:
        """The part of a grid that the body fills, some slices at a time."""
        x, y, z = _axes(grid)
        front, back = body.front_and_back
        columns = _span((x - self.pose.offset[0]) / body.stature, -body.extent[0] / 2 - 12, body.extent[0] / 2 + 12)
        rows = _span((y - self.pose.offset[1]) / body.stature, front - 14, back + 14)
        layers = _layers(grid.spacing[0])
        within = (np.arange(layers) - (layers - 1) / 2) * (grid.spacing[0] / layers)
        count = max(1, SLAB // (layers * (rows.stop - rows.start) * (columns.stop - columns.start)))
        background = self.background(grid)[rows, columns]
        for first in range(0, z.size, count):
            some = slice(first, min(first + count, z.size))
            firm, soft = self.pose.points(x[columns], y[rows], (z[some, None] + within).ravel())
            canvas = Canvas.blank(firm, soft, background, grid.spacing[1] / body.stature)
            yield Slab((some, rows, columns), layers, canvas)

    def noise(self, grid: Grid, body: Body, rng: Generator) -> Array:
        """Noise in Hounsfield units: correlated over a pixel or two, stronger in the middle of large bodies."""
        z, y, x = grid.shape
        grain = rng.standard_normal((z, y + 2, x + 2), np.float32)
        grain = grain[:, 1:-1] * 0.5 + (grain[:, :-2] + grain[:, 2:]) * 0.25
        grain = grain[:, :, 1:-1] * 0.5 + (grain[:, :, :-2] + grain[:, :, 2:]) * 0.25
        level = 11 * self.dose * (max(body.extent) * body.stature / 330) ** 1.5
        level *= (2.5 / grid.spacing[0] * 1.5 / grid.spacing[1]) ** 0.5
        u, v = (np.linspace(-1, 1, n) for n in (x, y))
        share = 0.45 + 0.65 * np.exp(-2.2 * (u[None, :] ** 2 + v[:, None] ** 2))
        grain *= (min(max(level, 6.0), 24.0) / 0.375 * share).astype(np.float32)  # 0.375: what smoothing left
        return grain


def _lie_down(rng: Generator, body: Body) -> Pose:
    """Nobody lies quite straight or in the middle."""
    matrix = turn("z", rng.normal(0, 2)) @ turn("y", rng.normal(0, 1.2)) @ turn("x", rng.normal(0, 1.2))
    offset = np.array([rng.normal(0, 6), rng.normal(-150, 8), rng.uniform(-900, 300)])
    bend, shift = Waves.draw(rng, 2.2, (240, 500)), Waves.draw(rng, 2.0, (70, 170), terms=16)
    return Pose(offset, body.stature, matrix, bend, shift)


def _reach(rng: Generator, body: Body) -> tuple[float, float]:
    """Top and bottom of the field of view in the drawing, mm; some scans cut the liver off."""
    above = rng.choice([rng.uniform(8, 34), rng.uniform(40, 66), rng.uniform(-24, -5)], p=[0.7, 0.18, 0.12])
    bottom = rng.choice([rng.uniform(-130, -85), rng.uniform(-40, -10)], p=[0.87, 0.13])
    return body.right_dome + float(above), float(bottom)


def _axes(grid: Grid) -> tuple[Array, Array, Array]:
    """World positions along x, y and z of a grid in the canonical orientation, mm."""
    x, y, z = (grid.origin[i] + grid.spacing[2 - i] * np.arange(grid.shape[2 - i]) for i in range(3))
    return x, y, z


def _layers(step: float) -> int:
    """Thin layers a slice is averaged from: odd, so that one lies in its middle."""
    return 1 if step < 2.6 else 3 if step < 8 else 5


def _span(values: Array, low: float, high: float) -> slice:
    """Indices of the values, which increase, within limits; at least one."""
    first, last = np.searchsorted(values, (low, high))
    first = min(int(first), values.size - 1)
    return slice(first, max(int(last), first + 1))

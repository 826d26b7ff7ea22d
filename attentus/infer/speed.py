"""How fast a model shall be: what may be given up for speed, and which backend serves it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, combinations, islice
from typing import TYPE_CHECKING, Literal

import numpy as np

from attentus.data.patches import window as cut
from attentus.errors import UnknownName
from attentus.infer import backends
from attentus.infer.backends import winograd
from attentus.infer.backends.int8 import sample_shape, windows_for

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from attentus.infer.backends import Runner
    from attentus.infer.backends.choice import Precision
    from attentus.infer.sliding import Maps, Run, Window
    from attentus.recipes import Recipe
    from attentus.transforms.prepare import Preparation

Speed = Literal["best", "balanced", "fast"]

LARGE = 2**19
"""Voxels of a batch of windows in 3D from which kernels are compiled before it is known whether they pay: that takes a
second of one core while a scan is read, and saves as much where they do."""
GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it modulo 1 fall evenly."""


@dataclass(frozen=True)
class Level:
    """What a level of speed allows."""

    precision: Precision
    """The roughest numbers."""
    mirror: bool
    """Whether flips that the recipe asks for are done."""
    overlap: float = 1.0
    """The largest overlap of windows."""

    def of(self, recipe: Recipe) -> Recipe:
        """A recipe that predicts at this level."""
        how = recipe.infer
        mirror, overlap = how.mirror if self.mirror else (), min(how.overlap, self.overlap)
        return recipe.model_copy(update={"infer": how.model_copy(update={"mirror": mirror, "overlap": overlap})})


LEVELS: dict[str, Level] = {
    "best": Level("fp32", mirror=True),
    "balanced": Level("bf16", mirror=False),
    "fast": Level("int8", mirror=False, overlap=0.25),
}
"""best: what the recipe says, in fp32. balanced: bf16 where the processor has it, no flips. fast: 8-bit integers
where they are faster than bf16, no flips, windows that overlap by a quarter at most."""


def level_named(speed: str) -> Level:
    """One of `LEVELS`.

    Raises:
        UnknownName: no such level.
    """
    if speed not in LEVELS:
        raise UnknownName("speed", speed, LEVELS)
    return LEVELS[speed]


@dataclass(eq=False)
class Engine:
    """A net at some level of speed; its backend is chosen at the first scan, by what the whole job is worth.

    Args:
        net: in evaluation mode.
        dims: 2 for nets that take slices.
        level: what is allowed.
        cache: folder for converted networks; None keeps none.
        scans: how many scans the job has.
    """

    net: nn.Module
    dims: int
    level: Level
    cache: Path | None = None
    scans: int = 1
    runner: Runner | None = None

    def begin(self, window: Window) -> None:
        """Begin what takes a while beside reading the scan, where windows are large enough that it most likely pays."""
        voxels, device = window.batch * math.prod(window.size), next(self.net.parameters()).device
        if self.dims == 3 and voxels >= LARGE and device.type == "cpu":
            winograd.begin(bf16=self.level.precision != "fp32" and not winograd.missing(bf16=True))

    def run(self, scan: Preparation, how: Window) -> Run:
        """The net as a function of windows (N, C, z, y, x)."""
        if self.runner is None:
            shape = (how.batch, scan.image.channels, *how.size[-self.dims :])
            precision = self.level.precision
            self.runner = backends.choose(
                self.net,
                shape,
                len(how.starts(scan.grid.shape)) * self.scans,
                precision=precision,
                cache=self.cache,
                calibration=self._samples(scan, how, shape) if precision == "int8" else (),
            )
        chosen = self.runner

        def run(windows: NDArray[np.float32]) -> Maps:
            logits = chosen(windows[:, :, 0] if self.dims == 2 else windows)
            return {"logits": logits[:, :, None] if self.dims == 2 else logits}

        return run

    def _samples(self, scan: Preparation, how: Window, shape: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
        """Windows of the scan at hand, evenly spread, that hold more than what lies outside.

        Of a small scan flipped ones follow: ranges that were measured on few windows are too narrow for other scans.
        """
        starts, depth = how.starts(scan.grid.shape), scan.grid.shape[0]
        count = windows_for(sample_shape(shape, int(getattr(self.net, "multiple", 1))))
        spread = sorted(range(len(starts)), key=lambda k: k * GOLDEN % 1)  # so are its first ones, however many

        def windows(flipped: tuple[int, ...]) -> Iterator[NDArray[np.float32]]:
            for first in range(0, len(starts), count):
                for z, y, x in sorted(starts[k] for k in spread[first : first + count]):
                    rows = scan.rows(max(z, 0), min(z + how.size[0], depth))
                    one = cut(rows, (min(z, 0), y, x), how.size, scan.outside)
                    if any(float(channel.max()) > low for channel, low in zip(one, scan.outside, strict=True)):
                        turned = np.flip(one, flipped)
                        yield turned[:, 0] if self.dims == 2 else turned

        axes = range(-self.dims, 0)
        flips = chain.from_iterable(combinations(axes, n) for n in range(self.dims + 1))
        return islice(chain.from_iterable(map(windows, flips)), count)

"""Sliding-window inference: overlapping windows, blended, accumulated in place."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch

from attentus.data.patches import window
from attentus.nets import listening
from attentus.nets.parts import resize

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from attentus.progress import Task

SIGMA = 1 / 8
"""Standard deviation of the Gaussian blending weight, as a share of the window (nnU-Net's choice)."""
FLOOR = 1e-3
"""Smallest blending weight, so that every voxel of every window counts."""


@dataclass
class Canvas:
    """Sums of weighted windows over a scan, and of the weights."""

    shape: tuple[int, int, int]
    total: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    weight: NDArray[np.float32] = field(init=False)

    def __post_init__(self) -> None:
        self.weight = np.zeros(self.shape, np.float32)

    def add(self, name: str, maps: NDArray[np.float32], start: Sequence[int], weight: NDArray[np.float32]) -> None:
        """Add one window's maps (K, *window) at a place that may reach beyond the scan."""
        total = self.total.setdefault(name, np.zeros((len(maps), *self.shape), np.float32))
        target, source = _inside(start, weight.shape, self.shape)
        total[(slice(None), *target)] += maps[(slice(None), *source)] * weight[source]

    def count(self, start: Sequence[int], weight: NDArray[np.float32]) -> None:
        """Add the weight of one window."""
        target, source = _inside(start, weight.shape, self.shape)
        self.weight[target] += weight[source]

    def finish(self) -> dict[str, NDArray[np.float32]]:
        """Weighted means (K, z, y, x) by name."""
        for total in self.total.values():
            np.divide(total, self.weight, out=total)
        return self.total


@dataclass(frozen=True)
class Window:
    """How a scan is walked over.

    Args:
        size: (z, y, x) voxels; z is 1 for 2D nets.
        overlap: share of a window that its neighbour covers, too.
        blend: "gaussian" or "constant".
        batch: windows per forward pass.
    """

    size: tuple[int, int, int]
    overlap: float = 0.5
    blend: str = "gaussian"
    batch: int = 1

    def starts(self, shape: Sequence[int]) -> list[tuple[int, int, int]]:
        """First voxels of all windows over a scan; evenly spread, at least as dense as the overlap asks."""
        axes = [_starts(full, size, self.overlap) for full, size in zip(shape, self.size, strict=True)]
        return [(z, y, x) for z, y, x in product(*axes)]

    def weight(self) -> NDArray[np.float32]:
        """Blending weight of each voxel of a window, (z, y, x), largest 1."""
        if self.blend == "constant":
            return np.ones(self.size, np.float32)
        axes = []
        for n in self.size:
            offset = (np.arange(n) - (n - 1) / 2) / max(n * SIGMA, 1e-6)
            axes.append(np.exp(-0.5 * offset**2))
        z, y, x = axes
        weight = z[:, None, None] * y[None, :, None] * x[None, None, :]
        scaled: NDArray[np.float64] = np.maximum(weight / weight.max(), FLOOR)
        return scaled.astype(np.float32)


@torch.inference_mode()
def sliding_window(
    net: nn.Module,
    array: NDArray[np.float32],
    how: Window,
    *,
    dims: int = 3,
    device: torch.device | str = "cpu",
    attention: bool = False,
    task: Task | None = None,
) -> dict[str, NDArray[np.float32]]:
    """Run a net over a scan.

    Args:
        net: takes (N, C, *spatial), returns a tuple of logits; put into evaluation mode for the while.
        array: (C, z, y, x).
        how: size of the window, overlap, blending, batch.
        dims: 2 runs slices as a batch.
        device: where the net lives.
        attention: collect attention coefficients, too.
        task: told of every window that is done.

    Returns:
        "logits" (K, z, y, x) and, if asked for, each attention module's coefficients (maps, z, y, x) by its name,
        brought to the scan's voxels and blended like the logits.
    """
    outside = array.reshape(len(array), -1).min(axis=1)
    weight = how.weight()
    canvas = Canvas(array.shape[1:])
    was_training = net.training
    net.eval()
    try:
        for starts in _chunks(how.starts(array.shape[1:]), how.batch):
            cut = np.stack([window(array, start, how.size, outside.tolist()) for start in starts])
            for name, maps in _forward(net, torch.from_numpy(cut).to(device), dims, attention=attention).items():
                for start, one in zip(starts, maps, strict=True):
                    canvas.add(name, one, start, weight)
            for start in starts:
                canvas.count(start, weight)
            if task:
                task.advance(len(starts))
    finally:
        net.train(was_training)
    return canvas.finish()


def _forward(net: nn.Module, x: Tensor, dims: int, *, attention: bool) -> dict[str, NDArray[np.float32]]:
    """One pass over windows (N, C, z, y, x); everything comes back as (N, K, z, y, x) float32 in the window's size."""
    flat = x[:, :, 0] if dims == 2 else x
    maps: dict[str, Tensor] = {}
    if attention:
        with listening(net) as heard:
            maps["logits"] = net(flat)[0]
        maps |= {name: resize(alpha.float(), flat.shape[2:]) for name, alpha in heard.items()}
    else:
        maps["logits"] = net(flat)[0]
    return {k: (v.float()[:, :, None] if dims == 2 else v.float()).cpu().numpy() for k, v in maps.items()}


def _starts(full: int, size: int, overlap: float) -> list[int]:
    """Evenly spread first voxels along one axis; a window larger than the scan is centred on it."""
    if full <= size:
        return [(full - size) // 2]
    count = int(np.ceil((full - size) / max(size * (1 - overlap), 1))) + 1
    return [round(k * (full - size) / (count - 1)) for k in range(count)]


def _inside(
    start: Sequence[int], size: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a window that lies in the scan: as slices of the scan and as slices of the window."""
    target = tuple(slice(max(s, 0), min(s + n, full)) for s, n, full in zip(start, size, shape, strict=True))
    source = tuple(slice(t.start - s, t.stop - s) for t, s in zip(target, start, strict=True))
    return target, source


def _chunks(items: list[tuple[int, int, int]], size: int) -> Iterator[list[tuple[int, int, int]]]:
    for first in range(0, len(items), size):
        yield items[first : first + size]

"""How much of a map stays when the window it comes from is mirrored."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.patches import window as cut
from attentus.infer.attention import LAYERS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from attentus.infer.attention import Capture
    from attentus.infer.sliding import Window
    from attentus.transforms.prepare import Preparation

WINDOWS = 6
"""Windows that are looked at, evenly spread over those that hold something."""
AXES = {"z": 2, "y": 3, "x": 4}


def flip_agreement(capture: Capture, scan: Preparation, how: Window) -> dict[str, dict[str, float]]:
    """Correlation of each module's map with that of the mirrored window, mirrored back.

    Args:
        capture: the net.
        scan: prepared.
        how: windows.

    Returns:
        Module to axis ("z", "y", "x"; for 2D nets without "z") to Pearson's r over the voxels, mean over a few windows;
        nan where a map is the same everywhere. Vectors of channels are left out.
    """
    windows = list(_some(scan, how))
    names = {name: place for place, (name, what) in enumerate(capture.layers) if what == "attention"}
    axes = {name: axis for name, axis in AXES.items() if how.size[axis - 2] > 1}
    found: dict[str, dict[str, list[float]]] = {name: {axis: [] for axis in axes} for name in names}
    with capture.vectors_left_alone():
        for one in windows:
            plain = capture(one)[LAYERS][0] if names else one
            for axis, number in axes.items():
                mirrored = capture(np.ascontiguousarray(np.flip(one, number)))
                for name, place in names.items():
                    back = np.flip(mirrored[LAYERS][0, place], number - 2)
                    found[name][axis].append(_correlation(plain[place], back))
    return {name: {axis: _mean(values) for axis, values in each.items()} for name, each in found.items()}


def _some(scan: Preparation, how: Window) -> Iterator[NDArray[np.float32]]:
    """Windows (1, C, z, y, x)."""
    starts = how.starts(scan.grid.shape)
    depth, found = scan.grid.shape[0], 0
    step = max(1, len(starts) // (2 * WINDOWS))
    for z, y, x in starts[step // 2 :: step]:
        rows = scan.rows(max(z, 0), min(z + how.size[0], depth))
        one = cut(rows, (min(z, 0), y, x), how.size, scan.outside)
        if any(float(channel.max()) > low for channel, low in zip(one, scan.outside, strict=True)):
            yield one[None]
            found += 1
        if found == WINDOWS:
            return


def _correlation(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    one, other = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    one, other = one - one.mean(), other - other.mean()
    size = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / size if size > 1e-9 * one.size else math.nan


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan

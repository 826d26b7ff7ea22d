"""Numbers that say where a map of attention lies: in and around a target, spread out, at one spot. NumPy only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

LEVELS = 256
"""Thresholds that are tried, evenly from the lowest to the highest value of a map."""


class Target:
    """A structure and its surroundings.

    Args:
        mask: (z, y, x), not empty.
        spacing: mm.
        near_mm: voxels within this distance of one of the mask count as near, the mask itself included.
    """

    def __init__(self, mask: NDArray[np.bool_], spacing: Sequence[float], near_mm: float) -> None:
        from scipy.ndimage import distance_transform_edt

        self.mask, self.near = mask, mask.copy()
        box = tuple(_around(mask, axis, near_mm / step) for axis, step in enumerate(spacing))
        self.near[box] = distance_transform_edt(~mask[box], sampling=spacing) <= near_mm
        self.voxels = int(mask.sum())


def score_map(attention: NDArray[Any], targets: Mapping[str, Target]) -> dict[str, Any]:
    """Numbers of one map.

    Args:
        attention: (z, y, x), not negative; nearly half precision is enough.
        targets: by name, of the same shape.

    Returns:
        "mean", "sd", "lowest", "highest" of the map; "entropy" of its mass, 1 where it is spread evenly over all voxels
        and 0 where it lies on one; and "targets", name to
        mass_inside   share of the map's mass in the target, 0..1
        mass_near     share within the distance of it
        expected      share that an even map would have inside: voxels of the target over voxels
        pointing      1 if the highest voxel lies in the target, 0 if not; of several the share of those that do
        best_dice     of the voxels above the best threshold with the target
        threshold     that threshold
    """
    total = _sum(attention)
    lowest, highest = float(attention.min()), float(attention.max())
    mean = total / attention.size
    square = sum(float(np.square(row, dtype=np.float64).sum()) for row in _rows(attention)) / attention.size
    edges = np.linspace(lowest, highest, LEVELS + 1)
    everything = _histogram(attention, None, edges)
    return {
        "mean": mean,
        "sd": math.sqrt(max(square - mean**2, 0.0)),
        "lowest": lowest,
        "highest": highest,
        "entropy": _entropy(attention, total),
        "targets": {name: _against(attention, target, total, edges, everything) for name, target in targets.items()},
    }


def _against(
    attention: NDArray[Any], target: Target, total: float, edges: NDArray[np.float64], everything: NDArray[np.int64]
) -> dict[str, float]:
    inside = _histogram(attention, target.mask, edges)
    found = np.cumsum(everything[::-1])[::-1]  # voxels at or above each lower edge
    right = np.cumsum(inside[::-1])[::-1]
    dice = 2 * right / (found + target.voxels)
    best = int(dice.argmax())
    peaks = attention == attention.max()
    return {
        "mass_inside": _sum(attention, target.mask) / total if total else math.nan,
        "mass_near": _sum(attention, target.near) / total if total else math.nan,
        "expected": target.voxels / attention.size,
        "pointing": float(target.mask[peaks].mean()),
        "best_dice": float(dice[best]),
        "threshold": float(edges[best]),
    }


def _entropy(attention: NDArray[Any], total: float) -> float:
    """Of the mass as a distribution over the voxels, over that of an even one; nan for no mass or one voxel."""
    if not total or attention.size < 2:
        return math.nan
    nats = 0.0
    for row in _rows(attention):
        share = row[row > 0].astype(np.float64) / total
        nats -= float((share * np.log(share)).sum())
    return nats / math.log(attention.size)


def _sum(attention: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> float:
    rows = _rows(attention) if mask is None else (r[m] for r, m in zip(attention, mask, strict=True))
    return sum(float(row.sum(dtype=np.float64)) for row in rows)


def _histogram(
    attention: NDArray[Any], mask: NDArray[np.bool_] | None, edges: NDArray[np.float64]
) -> NDArray[np.int64]:
    counts = np.zeros(LEVELS, np.int64)
    for place, row in enumerate(_rows(attention)):
        values = (row if mask is None else row[mask[place]]).astype(np.float64)
        counts += np.histogram(values, edges)[0] if edges[0] < edges[-1] else _first(values.size)
    return counts


def _first(count: int) -> NDArray[np.int64]:
    """All in the first bin, for a map that is the same everywhere."""
    counts = np.zeros(LEVELS, np.int64)
    counts[0] = count
    return counts


def _rows(attention: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Slice by slice: a copy of a whole map in double precision would be four times as large."""
    return iter(attention)


def _around(mask: NDArray[np.bool_], axis: int, margin: float) -> slice:
    used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    reach = math.ceil(margin) + 1
    return slice(max(int(used[0]) - reach, 0), int(used[-1]) + 1 + reach)

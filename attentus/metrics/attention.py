"""Numbers that say where a map of attention lies: in and around a target, spread out, at one spot. NumPy only."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

NEAR_MM = 5.0
"""How far from a target attention still counts as near it, unless told otherwise, mm."""
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
    levels = [_levels(row, lowest, highest) for row in _rows(attention)]
    everything = _histogram(levels)
    return {
        "mean": mean,
        "sd": math.sqrt(max(square - mean**2, 0.0)),
        "lowest": lowest,
        "highest": highest,
        "entropy": _entropy(attention, total),
        "targets": {
            name: {
                **_masses(attention, target, total),
                **_best_dice(_histogram(levels, target.mask), everything, target.voxels, edges),
            }
            for name, target in targets.items()
        },
    }


def _best_dice(
    inside: NDArray[np.int64], everything: NDArray[np.int64], voxels: int, edges: NDArray[np.float64]
) -> dict[str, float]:
    found = np.cumsum(everything[::-1])[::-1]  # voxels at or above each lower edge
    right = np.cumsum(inside[::-1])[::-1]
    dice = 2 * right / (found + voxels)
    best = int(dice.argmax())
    return {"best_dice": float(dice[best]), "threshold": float(edges[best])}


def _masses(attention: NDArray[Any], target: Target, total: float) -> dict[str, float]:
    peaks = attention == attention.max()
    return {
        "mass_inside": _sum(attention, target.mask) / total if total else math.nan,
        "mass_near": _sum(attention, target.near) / total if total else math.nan,
        "expected": target.voxels / attention.size,
        "pointing": float(target.mask[peaks].mean()),
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


def _levels(row: NDArray[Any], lowest: float, highest: float) -> NDArray[np.uint8]:
    """Which of `LEVELS` intervals from the lowest to the highest value each voxel lies in."""
    if highest <= lowest:
        return np.zeros(row.shape, np.uint8)
    scaled = (row.astype(np.float32) - np.float32(lowest)) * np.float32(LEVELS / (highest - lowest))
    levels: NDArray[np.uint8] = np.minimum(scaled, LEVELS - 1).astype(np.uint8)
    return levels


def _histogram(levels: Sequence[NDArray[np.uint8]], mask: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    counts = np.zeros(LEVELS, np.int64)
    for place, row in enumerate(levels):
        counts += np.bincount(row.ravel() if mask is None else row[mask[place]], minlength=LEVELS)
    return counts


def _rows(attention: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Slice by slice: a copy of a whole map in double precision would be four times as large."""
    return iter(attention)


def _around(mask: NDArray[np.bool_], axis: int, margin: float) -> slice:
    used = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
    reach = math.ceil(margin) + 1
    return slice(max(int(used[0]) - reach, 0), int(used[-1]) + 1 + reach)

"""From a scan to what a net sees, and back: one function each way, shared by training and inference.

Orientation is canonical already when a volume has been read; here the scan is cropped, brought to one intensity scale
and resampled. `Prepared` remembers the trail, and `restore` walks it backwards onto the scan's own grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadInput
from attentus.transforms.resample import axis_matrix, mix, resample, resample_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from attentus.recipes import Intensity, Prepare
    from attentus.types import Grid, Volume

    Thresholds = Sequence[float | None]

SLAB_VOXELS = 4_000_000
"""Voxels of the scan's grid, times classes, that `restore` handles at a time; bounds its memory."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as the net sees it, with the way back."""

    array: NDArray[np.float32]
    """(C, z, y, x), finite."""
    grid: Grid
    """Where these voxels lie."""
    scan: Grid
    """The canonical grid of the scan they came from."""
    start: tuple[int, int, int]
    """First scan voxel of the crop."""
    stop: tuple[int, int, int]
    """One past the last scan voxel of the crop."""

    @property
    def box(self) -> tuple[slice, slice, slice]:
        """The crop as slices of the scan's (z, y, x)."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    def restore_labels(
        self, logits: NDArray[np.float32], *, regions: bool = False, thresholds: Thresholds = ()
    ) -> NDArray[np.uint8]:
        """Most likely class of every voxel of the scan, see `decide`.

        Args:
            logits: (K, z, y, x) on the prepared grid; background is class 0 and fills what was cropped away.
            regions: the maps are no classes but regions, outer ones first, without background.
            thresholds: probabilities that structures need.

        Returns:
            (z, y, x) uint8 class numbers on the scan's canonical grid.
        """
        labels = np.zeros(self.scan.shape, np.uint8)
        inside = labels[self.box]
        for rows, slab in self._slabs(logits):
            inside[rows] = decide(slab, regions=regions, thresholds=thresholds)
        return labels

    def restore_probabilities(self, logits: NDArray[np.float32], *, regions: bool = False) -> NDArray[np.float16]:
        """Probabilities (K, z, y, x) float16 on the scan's canonical grid; background outside the crop.

        Softmax over classes, background first, or with `regions` a sigmoid of each map.
        """
        probabilities = np.zeros((len(logits), *self.scan.shape), np.float16)
        if not regions:
            probabilities[0] = 1
        for rows, slab in self._slabs(logits):
            probabilities[(slice(None), *self.box)][:, rows] = _sigmoid(slab) if regions else _softmax(slab)
        return probabilities

    def restore_maps(self, maps: NDArray[np.float32]) -> NDArray[np.float16]:
        """Any maps (K, z, y, x) on the prepared grid to float16 on the scan's canonical grid; 0 outside the crop."""
        restored = np.zeros((len(maps), *self.scan.shape), np.float16)
        for rows, slab in self._slabs(maps):
            restored[(slice(None), *self.box)][:, rows] = slab
        return restored

    def _slabs(self, array: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Resample (K, z, y, x) to the crop's voxels a few slices at a time: rows of the crop, (K, rows, y, x)."""
        shape = [b - a for a, b in zip(self.start, self.stop, strict=True)]
        depth, height, width = array.shape[1:]
        along_z = axis_matrix(depth, shape[0], 1, 0.0)
        step = max(1, SLAB_VOXELS // (len(array) * shape[1] * shape[2]))
        for first in range(0, shape[0], step):
            rows = slice(first, min(first + step, shape[0]))
            used = np.flatnonzero(along_z[rows].any(axis=0))
            window = slice(used[0], used[-1] + 1)
            slab = mix(array[:, window], along_z[rows, window], 0) if depth != shape[0] else array[:, rows]
            slab = mix(slab, axis_matrix(height, shape[1], 1, 0.0), 1) if height != shape[1] else slab
            yield rows, mix(slab, axis_matrix(width, shape[2], 1, 0.0), 2) if width != shape[2] else slab


def decide(logits: NDArray[np.float32], *, regions: bool = False, thresholds: Thresholds = ()) -> NDArray[np.uint8]:
    """The class of every voxel.

    Args:
        logits: (K, z, y, x); background is class 0.
        regions: the maps are no classes but regions, outer ones first, without background; a voxel belongs to the last
            whose probability (sigmoid) is above its threshold, 0.5 unless one is given.
        thresholds: for every structure, the probability (softmax) above which a voxel is its, or None. Several that
            claim a voxel: the largest multiple of its threshold wins. None claims it: the most probable of the
            classes without threshold, of which background is one. Empty: no thresholds.

    Returns:
        (z, y, x) uint8, 0 background, structures from 1.
    """
    if regions:
        return _painted(logits, thresholds or [None] * len(logits))
    claims = {k: t for k, t in enumerate(thresholds, start=1) if t is not None}
    winner = _argmax(logits, [k for k in range(len(logits)) if k not in claims])
    if claims:
        best = logits[0].copy()
        for other in logits[1:]:
            np.logaddexp(best, other, out=best)  # log p + best is the logit: a claim must be above
        for k, threshold in claims.items():
            claim = logits[k] - np.float32(math.log(threshold))
            winner[claim > best] = k
            np.maximum(best, claim, out=best)
    return winner


def prepare(image: Volume, how: Prepare) -> Prepared:
    """Crop, scale and resample a scan.

    Args:
        image: (C, z, y, x) in any orientation.
        how: the recipe's `prepare` section, with `spacing` given as numbers or "keep".

    Raises:
        BadInput: values that are not finite, or another number of channels than `how.intensity` describes.
    """
    scan = image.canonical()
    _check(scan, how)
    start, stop = _sized(*_foreground(scan.array, how.crop_above), scan.grid.shape, how.crop_size)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    cropped = scan.array[(slice(None), *box)].astype(np.float32)
    specs = how.intensity * (scan.channels if len(how.intensity) == 1 else 1)
    scaled = np.stack([scale_intensity(channel, spec) for channel, spec in zip(cropped, specs, strict=True)])
    crop_grid = scan.grid.cropped(start, stop)
    grid = crop_grid.resampled(target_spacing(how, crop_grid))
    array = resample(scaled, grid.shape, order=how.order, anti_alias=how.anti_alias)
    return Prepared(array, grid, scan.grid, start, stop)


def prepare_labels(labels: NDArray[Any], prepared: Prepared) -> NDArray[Any]:
    """Bring class numbers (z, y, x) on the scan's canonical grid to the prepared grid, by nearest voxel."""
    return resample_labels(labels[prepared.box], prepared.grid.shape)


def target_spacing(how: Prepare, grid: Grid) -> tuple[float, float, float]:
    """Spacing (z, y, x) mm to resample a grid to.

    Raises:
        BadInput: "median" has not been replaced by numbers (`Recipe.resolve` does it from a dataset).
    """
    if how.spacing == "median":
        raise BadInput("prepare.spacing is 'median', which only a dataset can turn into numbers; give (z, y, x) in mm.")
    wished: Sequence[float | None] = (None, None, None) if how.spacing == "keep" else how.spacing
    sizes = how.size or (None, None, None)
    z, y, x = (
        extent / size if size else wish or present
        for extent, size, wish, present in zip(grid.size_mm, sizes, wished, grid.spacing, strict=True)
    )
    return z, y, x


def scale_intensity(channel: NDArray[np.float32], how: Intensity) -> NDArray[np.float32]:
    """Clip and normalise the values (z, y, x) of one channel."""
    low, high = _range(channel, how)
    clipped = np.clip(channel, low, high)
    if how.normalise == "none":
        return clipped
    if how.normalise == "range":
        return (clipped - np.float32(low)) / np.float32(max(high - low, _TINY))
    inside = channel != 0 if how.normalise == "zscore-nonzero" else None
    mean, deviation = how.moments or _moments(clipped, inside)
    scaled = (clipped - np.float32(mean)) / np.float32(max(deviation, _TINY))
    return scaled if inside is None else np.where(inside, scaled, np.float32(0))


def _moments(values: NDArray[np.float32], inside: NDArray[np.bool_] | None) -> tuple[float, float]:
    """Mean and standard deviation in double precision, slice by slice, so that no second copy of a scan is made."""
    slices = [plane if inside is None else plane[inside[k]] for k, plane in enumerate(values)]
    count = sum(plane.size for plane in slices)
    if not count:
        return 0.0, 1.0
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in slices) / count
    spread = sum(float(np.square(plane.astype(np.float64) - mean).sum()) for plane in slices) / count
    return mean, spread**0.5


_TINY = 1e-8


def _range(channel: NDArray[np.float32], how: Intensity) -> tuple[float, float]:
    if how.window:
        return how.window
    values = channel
    if how.normalise == "zscore-nonzero" and (channel != 0).any():
        values = channel[channel != 0]
    if how.percentiles:
        low, high = np.percentile(values, how.percentiles)
        return float(low), float(high)
    return float(values.min()), float(values.max())


def _check(scan: Volume, how: Prepare) -> None:
    name = f"{scan.source.path}: " if scan.source and scan.source.path else ""
    if len(how.intensity) not in (1, scan.channels):
        raise BadInput(
            f"{name}the image has {scan.channels} channel(s) where the recipe expects {len(how.intensity)}."
            " Give all channels, in the order of the recipe's `channels`."
        )
    if not np.isfinite(scan.array).all():
        bad = int(scan.array.size - np.isfinite(scan.array).sum())
        raise BadInput(
            f"{name}{bad} voxels are not finite numbers (NaN or infinity).\n"
            "  Repair the image first, for example by setting them to the value of air, or leave the case out."
        )


def _foreground(array: NDArray[Any], threshold: float | None) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Corners of the box of voxels above the threshold in any channel; everything if there is none."""
    shape: Sequence[int] = array.shape[1:]
    if threshold is None:
        return (0, 0, 0), tuple(shape)  # type: ignore[return-value]
    above = np.logical_or.reduce(array > threshold)
    if not above.any():
        return (0, 0, 0), tuple(shape)  # type: ignore[return-value]
    start, stop = [], []
    for axis in range(3):
        used = np.flatnonzero(above.any(axis=tuple(other for other in range(3) if other != axis)))
        start.append(int(used[0]))
        stop.append(int(used[-1]) + 1)
    return tuple(start), tuple(stop)  # type: ignore[return-value]


Corner = tuple[int, int, int]


def _sized(
    start: Corner, stop: Corner, shape: Sequence[int], wanted: Sequence[int | None] | None
) -> tuple[Corner, Corner]:
    """A box brought to the wanted sizes about its centre and moved into the scan."""
    corners = []
    for first, last, full, size in zip(start, stop, shape, wanted or (None, None, None), strict=True):
        if size is None or size >= full:
            corners.append((first, last) if size is None else (0, full))
        else:
            low = min(max((first + last - size) // 2, 0), full - size)
            corners.append((low, low + size))
    (a, d), (b, e), (c, f) = corners
    return (a, b, c), (d, e, f)


def _softmax(slab: NDArray[np.float32]) -> NDArray[np.float32]:
    powers: NDArray[np.float32] = np.exp(slab - slab.max(0))
    shares: NDArray[np.float32] = powers / powers.sum(0)
    return shares


def _sigmoid(slab: NDArray[np.float32]) -> NDArray[np.float32]:
    powers: NDArray[np.float32] = np.exp(-np.abs(slab))  # never overflows
    return np.asarray(np.where(slab >= 0, 1, powers) / (1 + powers), np.float32)


def _painted(slab: NDArray[np.float32], thresholds: Thresholds) -> NDArray[np.uint8]:
    """Number of the last of R maps (R, z, y, x) that is above its threshold, counted from 1; 0 where none is."""
    painted = np.zeros(slab.shape[1:], np.uint8)
    for k, (logits, threshold) in enumerate(zip(slab, thresholds, strict=True), start=1):
        limit = 0.0 if threshold is None else math.log(threshold / (1 - threshold))
        painted[logits > np.float32(limit)] = k
    return painted


def _argmax(slab: NDArray[np.float32], classes: Sequence[int]) -> NDArray[np.uint8]:
    """Which of some of K maps (K, z, y, x), 0 first, is largest; a running comparison beats argmax over a far axis."""
    best, winner = slab[0].copy(), np.zeros(slab.shape[1:], np.uint8)
    for k in classes[1:]:
        better = slab[k] > best
        winner[better] = k
        np.maximum(best, slab[k], out=best)
    return winner

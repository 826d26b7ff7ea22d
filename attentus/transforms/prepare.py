"""From a scan to what a net sees, and back: one function each way, shared by training and inference.

Orientation is canonical already when a volume has been read; here the scan is cropped, brought to one intensity scale
and resampled. `Prepared` remembers the trail, and `restore` walks it backwards onto the scan's own grid.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attentus.errors import BadInput
from attentus.transforms.resample import Resampling, axis_matrix, mix, resample_labels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from attentus.recipes import Intensity, Prepare
    from attentus.types import Grid, Volume

    Thresholds = Sequence[float | None]
    Box = tuple[slice, slice, slice]

Corner = tuple[int, int, int]

SLAB_VOXELS = 2_000_000
"""Voxels of the scan's grid, times classes, that `restore` handles at a time; bounds its memory."""
BLOCK = 32
"""Prepared rows that are made at a time. Never let it depend on anything: bits do."""


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
    def box(self) -> Box:
        """The crop as slices of the scan's (z, y, x)."""
        return _box(self.start, self.stop)

    @property
    def way_back(self) -> WayBack:
        """How maps on this grid come back onto the scan."""
        return WayBack(self.grid.shape, self.scan, self.start, self.stop)

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
        for rows, slab in self._slabs(logits):
            labels[self.box][rows] = decide(slab, regions=regions, thresholds=thresholds)
        return labels

    def restore_probabilities(self, logits: NDArray[np.float32], *, regions: bool = False) -> NDArray[np.float16]:
        """Probabilities (K, z, y, x) float16 on the scan's canonical grid; background outside the crop.

        Softmax over classes, background first, or with `regions` a sigmoid of each map.
        """
        probabilities = empty_probabilities(len(logits), self.scan.shape, regions=regions)
        for rows, slab in self._slabs(logits):
            probabilities[(slice(None), *self.box)][:, rows] = activate(slab, regions=regions)
        return probabilities

    def restore_maps(self, maps: NDArray[np.float32]) -> NDArray[np.float16]:
        """Any maps (K, z, y, x) on the prepared grid to float16 on the scan's canonical grid; 0 outside the crop."""
        restored = np.zeros((len(maps), *self.scan.shape), np.float16)
        for rows, slab in self._slabs(maps):
            restored[(slice(None), *self.box)][:, rows] = slab
        return restored

    def _slabs(self, maps: NDArray[np.float32]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        way = self.way_back
        return ((step.rows, way.bring(maps[:, step.needs], step)) for step in way.plan(len(maps)))


@dataclass(frozen=True)
class WayBack:
    """From the prepared grid to the voxels of the crop, a slab of slices at a time."""

    shape: tuple[int, int, int]
    """Of the prepared grid."""
    scan: Grid
    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def box(self) -> Box:
        """The crop as slices of the scan's (z, y, x)."""
        return _box(self.start, self.stop)

    def plan(self, maps: int) -> list[Step]:
        """Slabs of about `SLAB_VOXELS` voxels times maps, from the first slice of the crop to the last."""
        depth, height, width = (b - a for a, b in zip(self.start, self.stop, strict=True))
        rows = max(1, SLAB_VOXELS // (maps * height * width))
        steps = []
        for first in range(0, depth, rows):
            wanted = slice(first, min(first + rows, depth))
            if depth == self.shape[0]:
                steps.append(Step(wanted, wanted))
            else:
                used = np.flatnonzero(self._matrix(0)[wanted].any(axis=0))
                steps.append(Step(wanted, slice(int(used[0]), int(used[-1]) + 1)))
        return steps

    def bring(self, maps: NDArray[np.float32], step: Step) -> NDArray[np.float32]:
        """Interpolate maps linearly: the prepared rows (K, rows, y, x) that a step needs to its rows of the crop."""
        for axis in (2, 1):  # z comes last: it is the cheapest, and most voxels are there only after it
            if self.stop[axis] - self.start[axis] != self.shape[axis]:
                maps = mix(maps, self._matrix(axis), axis)
        if self.stop[0] - self.start[0] != self.shape[0]:
            maps = _between(maps, self._matrix(0)[step.rows, step.needs])
        return maps

    def _matrix(self, axis: int) -> NDArray[np.float32]:
        return axis_matrix(self.shape[axis], self.stop[axis] - self.start[axis], 1, 0.0)


class Step(NamedTuple):
    """One slab on its way back."""

    rows: slice
    """Of the crop."""
    needs: slice
    """Of the prepared grid."""


def _between(maps: NDArray[np.float32], matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Linear interpolation along z, each new slice from two old ones: the same bits however a scan is cut up."""
    mixed = np.empty((len(maps), len(matrix), *maps.shape[2:]), np.float32)
    for new, shares in enumerate(matrix):
        first, *second = np.flatnonzero(shares)
        np.multiply(maps[:, first], shares[first], out=mixed[:, new])
        for other in second:
            mixed[:, new] += maps[:, other] * shares[other]
    return mixed


def _box(start: Corner, stop: Corner) -> Box:
    z, y, x = (slice(a, b) for a, b in zip(start, stop, strict=True))
    return z, y, x


def empty_probabilities(maps: int, shape: Sequence[int], *, regions: bool) -> NDArray[np.float16]:
    """Certain background everywhere: (maps, *shape) float16."""
    probabilities = np.zeros((maps, *shape), np.float16)
    if not regions:
        probabilities[0] = 1
    return probabilities


def activate(logits: NDArray[np.float32], *, regions: bool) -> NDArray[np.float32]:
    """Probabilities of maps (K, z, y, x): softmax over classes, or with `regions` a sigmoid of each."""
    return _sigmoid(logits) if regions else _softmax(logits)


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


@dataclass(frozen=True, eq=False)
class Preparation:
    """A scan on its way to what a net sees: prepared rows are made when they are asked for.

    They come in blocks of `BLOCK` rows, the last of which are remembered; so all bits are the same whether a scan is
    prepared whole, as for training, or walked through, as in inference.
    """

    image: Volume
    """In its canonical orientation, values as stored."""
    how: Prepare
    grid: Grid
    """Of the prepared voxels."""
    start: tuple[int, int, int]
    stop: tuple[int, int, int]
    scales: tuple[Scale, ...]
    """One per channel."""
    outside: tuple[float, ...]
    """What lies beyond the scan, per channel: its lowest value, prepared."""
    recent: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    slices: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    """The last of the crop that were scaled and resampled within themselves, by the first one's number: neighbouring
    blocks are mixed from the same."""

    @classmethod
    def of(cls, image: Volume, how: Prepare) -> Preparation:
        """Look a scan over: where it is cropped and how its values are scaled. See `prepare`."""
        scan = image.canonical()
        _check(scan, how)
        start, stop = _sized(*_foreground(scan, how), scan.grid.shape, how.crop_size)
        specs = how.intensity * (scan.channels if len(how.intensity) == 1 else 1)
        inside = scan.array[(slice(None), *_box(start, stop))]
        scales = tuple(Scale.of(channel, spec) for channel, spec in zip(inside, specs, strict=True))
        outside = tuple(float(scale(channel.min())) for scale, channel in zip(scales, inside, strict=True))
        crop = scan.grid.cropped(start, stop)
        return cls(scan, how, crop.resampled(target_spacing(how, crop)), start, stop, scales, outside)

    @property
    def way_back(self) -> WayBack:
        """How maps on the prepared grid come back onto the scan."""
        return WayBack(self.grid.shape, self.image.grid, self.start, self.stop)

    def rows(self, first: int, last: int) -> NDArray[np.float32]:
        """Prepared rows first..last: (C, rows, y, x)."""
        parts = []
        for number in range(first // BLOCK, (last - 1) // BLOCK + 1):
            offset = number * BLOCK
            block = self._block(number)
            parts.append(block[:, max(first - offset, 0) : last - offset])
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _block(self, number: int) -> NDArray[np.float32]:
        if number not in self.recent:
            for old in list(self.recent)[:-1]:
                del self.recent[old]
            first, last = number * BLOCK, min((number + 1) * BLOCK, self.grid.shape[0])
            old_shape = tuple(b - a for a, b in zip(self.start, self.stop, strict=True))
            resampling = Resampling(old_shape, self.grid.shape, self.how.order, self.how.anti_alias)
            low, high = resampling.needs(first, last)
            slices = self._slices(resampling, low, high)
            self.slices.clear()
            if set(resampling.by_slices) == {1, 2}:  # others are large, and quickly made
                self.slices[low] = slices
            self.recent[number] = resampling.rows_of(slices, first, last)
        return self.recent[number]

    def _slices(self, resampling: Resampling, low: int, high: int) -> NDArray[np.float32]:
        """Slices low..high of the crop (C, slices, y, x), made one by one, so that copies stay small."""
        _, y, x = _box(self.start, self.stop)
        made = np.empty((len(self.scales), high - low, *resampling.slice_shape), np.float32)
        missing = set(range(low, high))
        for before, slices in self.slices.items():
            for number in missing & set(range(before, before + slices.shape[1])):
                made[:, number - low] = slices[:, number - before]
                missing.remove(number)
        for number in sorted(missing):
            channels = self.image.array[:, self.start[0] + number, y, x]
            scaled = np.stack([scale(values) for scale, values in zip(self.scales, channels, strict=True)])
            made[:, number - low] = resampling.slices(scaled[:, None])[:, 0]
        return made


def prepare(image: Volume, how: Prepare) -> Prepared:
    """Crop, scale and resample a scan.

    Args:
        image: (C, z, y, x) in any orientation.
        how: the recipe's `prepare` section, with `spacing` given as numbers or "keep".

    Raises:
        BadInput: values that are not finite, or another number of channels than `how.intensity` describes.
    """
    scan = Preparation.of(image, how)
    array = scan.rows(0, scan.grid.shape[0])
    return Prepared(array, scan.grid, scan.image.grid, scan.start, scan.stop)


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


def scale_intensity(channel: NDArray[Any], how: Intensity) -> NDArray[np.float32]:
    """Clip and normalise the values (z, y, x) of one channel."""
    return Scale.of(channel, how)(channel)


@dataclass(frozen=True)
class Scale:
    """How the values of one channel of one scan become what a net sees."""

    how: Intensity
    low: float
    high: float
    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, channel: NDArray[Any], how: Intensity) -> Scale:
        """Measure a channel (z, y, x) as far as the recipe asks for it."""
        low, high = _range(channel, how)
        if how.normalise not in ("zscore", "zscore-nonzero"):
            return cls(how, low, high)
        return cls(how, low, high, *(how.moments or _moments(channel, low, high, how)))

    def __call__(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Scale any part of the channel."""
        clipped = np.clip(values.astype(np.float32), self.low, self.high)
        if self.how.normalise == "none":
            return clipped
        if self.how.normalise == "range":
            return (clipped - np.float32(self.low)) / np.float32(max(self.high - self.low, _TINY))
        clipped -= np.float32(self.mean)
        clipped /= np.float32(max(self.deviation, _TINY))
        return np.where(values != 0, clipped, np.float32(0)) if self.how.normalise == "zscore-nonzero" else clipped


def _moments(channel: NDArray[Any], low: float, high: float, how: Intensity) -> tuple[float, float]:
    """Mean and standard deviation of clipped values in double precision, slice by slice: no copy of a scan is made."""

    def planes() -> Iterator[NDArray[np.float32]]:
        for plane in channel:
            clipped = np.clip(plane.astype(np.float32), low, high)
            yield clipped[plane != 0] if how.normalise == "zscore-nonzero" else clipped

    counts = [plane.size for plane in planes()]
    count = sum(counts)
    if not count:
        return 0.0, 1.0
    mean = sum(float(plane.sum(dtype=np.float64)) for plane in planes()) / count
    spread = sum(float(np.square(plane.astype(np.float64) - mean).sum()) for plane in planes()) / count
    return mean, spread**0.5


_TINY = 1e-8


def _range(channel: NDArray[Any], how: Intensity) -> tuple[float, float]:
    if how.window:
        return how.window
    values = channel
    if how.normalise == "zscore-nonzero" and (channel != 0).any():
        values = channel[channel != 0]
    if how.percentiles:
        low, high = np.percentile(values.astype(np.float32, copy=False), how.percentiles)
        return float(low), float(high)
    return float(values.min()), float(values.max())


def _check(scan: Volume, how: Prepare) -> None:
    name = f"{scan.source.path}: " if scan.source and scan.source.path else ""
    if len(how.intensity) not in (1, scan.channels):
        raise BadInput(
            f"{name}the image has {scan.channels} channel(s) where the recipe expects {len(how.intensity)}."
            " Give all channels, in the order of the recipe's `channels`."
        )
    if scan.array.dtype.kind == "f" and not np.isfinite(scan.array).all():
        bad = int(scan.array.size - np.isfinite(scan.array).sum())
        raise BadInput(
            f"{name}{bad} voxels are not finite numbers (NaN or infinity).\n"
            "  Repair the image first, for example by setting them to the value of air, or leave the case out."
        )


def _foreground(scan: Volume, how: Prepare) -> tuple[Corner, Corner]:
    """Corners of the box of what lies above the threshold in any channel; everything if nothing does."""
    shape, threshold = scan.grid.shape, how.crop_above
    if threshold is None:
        return (0, 0, 0), shape
    edges = [_edges(n, mm, how.crop_block) for n, mm in zip(shape, scan.grid.spacing, strict=True)]
    if how.crop_block:
        above: Any = (_block_means(scan.array, edges) > threshold).any(axis=0)
        profiles = [above.any(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
    else:
        lines = scan.array.max(axis=3).max(axis=0)  # the highest of every line along x, (z, y)
        highest = lines.max(axis=1), lines.max(axis=0), scan.array.max(axis=(0, 1, 2))
        profiles = [profile > threshold for profile in highest]
    if not profiles[0].any():
        return (0, 0, 0), shape
    wider = 1 if how.crop_block else 0
    used = [np.flatnonzero(profile) for profile in profiles]
    z, y, x = (
        (e[max(u[0] - wider, 0)], e[min(u[-1] + 1 + wider, len(e) - 1)]) for e, u in zip(edges, used, strict=True)
    )
    return (z[0], y[0], x[0]), (z[1], y[1], x[1])


def _edges(voxels: int, spacing: float, block: float) -> list[int]:
    """First voxels of the blocks along an axis, as even as can be, and where the last one ends."""
    count = min(max(round(voxels * spacing / block), 1), voxels) if block else voxels
    return [round(k * voxels / count) for k in range(count + 1)]


def _block_means(array: NDArray[Any], edges: Sequence[Sequence[int]]) -> NDArray[np.float32]:
    """Means (C, *blocks) of an array (C, z, y, x): two products of matrices per slice, no copy of a scan is made."""
    z, y, x = (np.diff(e) for e in edges)
    down, across = (np.repeat(np.diag(1 / n), n, axis=0).astype(np.float32) for n in (y, x))
    means = np.zeros((len(array), len(z), len(y), len(x)), np.float32)
    for block, (first, count) in enumerate(zip(edges[0], z, strict=False)):
        for row in range(first, first + count):
            means[:, block] += down.T @ (array[:, row].astype(np.float32) @ across)
        means[:, block] /= count
    return means


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
    better = np.empty(best.shape, bool)
    for k in classes[1:]:
        np.greater(slab[k], best, out=better)
        np.copyto(winner, k, where=better)
        np.maximum(best, slab[k], out=best)
    return winner

"""Cleaning a finished segmentation: false islands, holes, what lies outside where it belongs. `Clean` has the rules.

Everything is done on label values, so that it works on any label file, and within the box of a structure, so that
memory follows the structure and not the scan.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from attentus.metrics.case import boxes_of
from attentus.metrics.components import label
from attentus.recipes import Clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class Nest:
    """What lies in what."""

    own: Mapping[str, int]
    """Structure to the value it is written as."""
    values: Mapping[str, tuple[int, ...]]
    """Structure to all values that count as it in a label file; more than its own with regions."""
    how: Mapping[str, Clean] = field(default_factory=dict)

    def around(self, name: str) -> set[str]:
        """All structures that one lies in, by regions and by `inside`."""
        found: set[str] = set()
        new = {name}
        while new:
            new = {outer for inner in new for outer in self._directly_around(inner)} - found
            found |= new
        return found

    def whole(self, name: str) -> list[int]:
        """Values of a structure and of everything in it."""
        parts = [self.values[other] for other in self.own if other == name or name in self.around(other)]
        return sorted({value for part in parts for value in part})

    def outwards(self) -> list[str]:
        """All structures, outer ones before those inside them, otherwise as they are listed."""
        return sorted(self.own, key=lambda name: len(self.around(name)))

    def replacement(self, name: str) -> int:
        """The value that removed voxels of a structure get."""
        how, regions = self.how.get(name, Clean()), self._regions_around(name)
        wanted = how.becomes or (regions[-1] if regions else how.inside)
        return 0 if wanted in (None, "background") else self.own[wanted]

    def _regions_around(self, name: str) -> list[str]:
        """Those that hold all its values; equal ones count if they are listed before it."""
        mine, before = set(self.values[name]), list(self.own)[: list(self.own).index(name)]
        return [other for other in before if mine <= set(self.values[other])]

    def _directly_around(self, name: str) -> list[str]:
        outer = self.how.get(name, Clean()).inside
        return [*self._regions_around(name), *([outer] if outer else [])]


@dataclass(frozen=True)
class Changes:
    """What cleaning did, millilitres by structure; zeros are left out."""

    removed_ml: Mapping[str, float]
    """Volume that a structure had and lost."""
    added_ml: Mapping[str, float]
    """Volume that it gained: holes, and what others became."""


def clean(
    labels: NDArray[np.unsignedinteger],
    spacing: Sequence[float],
    how: Mapping[str, Clean],
    names: Mapping[str, int],
    values: Mapping[str, tuple[int, ...]] | None = None,
) -> Changes:
    """Clean a label map in place.

    First components are removed, structure by structure, outer ones before those inside them: what has nothing of the
    outer structure (`inside`), what is smaller than `min_ml`, all but the largest (`largest`). Then holes are filled,
    outer ones first again. Thresholds are no matter of labels, see `transforms.prepare.decide`.

    Args:
        labels: (z, y, x), 0 background; with one slice neighbours and holes are those of the plane.
        spacing: (z, y, x), mm.
        how: structure to what is done to it.
        names: structure to its value, in the recipe's order.
        values: with regions, structure to all values that count as it (`data.resolve.values_in`); else None.

    Returns:
        The volumes that changed sides.
    """
    nest = Nest(names, values or {name: (value,) for name, value in names.items()}, how)
    job = _Job(labels, math.prod(spacing) / 1000.0, nest)
    for name in nest.outwards():
        job.remove(name)
    for name in nest.outwards():
        job.fill(name)
    return job.changes()


@dataclass
class _Job:
    """One label map while it is being cleaned."""

    labels: NDArray[np.unsignedinteger]
    voxel_ml: float
    nest: Nest
    boxes: dict[int, Box] = field(init=False)
    moved: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Voxels that went from one value to another."""

    def __post_init__(self) -> None:
        self.boxes = boxes_of(self.labels) if self.nest.how else {}

    def remove(self, name: str) -> None:
        """Take away the components that a structure should not have."""
        how = self.nest.how.get(name, Clean())
        inner = [other for other, rule in self.nest.how.items() if rule.inside == name]
        whole = self.nest.whole(name)
        box = self._box(whole)
        if box is None or not (inner or how.min_ml or how.largest):
            return
        part = self.labels[box]
        components = label(among(part, whole), how.connectivity)
        sizes = sizes_of(components)
        if len(sizes) == 1:
            return
        keep = np.ones(len(sizes), bool)
        if inner:
            strange = {value for other in inner for value in self.nest.whole(other)}
            keep[:] = False
            keep[components[among(part, [value for value in whole if value not in strange])]] = True
        if how.min_ml:
            keep &= sizes * self.voxel_ml >= how.min_ml * (1 - 1e-9)
        if how.largest:
            keep &= np.arange(len(sizes)) == np.argmax(np.where(keep[1:], sizes[1:], -1)) + 1
        keep[0] = True
        if not keep.all():
            self._paint(box, ~looked_up(keep, components), self.nest.replacement(name))
            self._shrink(box, whole)

    def fill(self, name: str) -> None:
        """Give a structure what it encloses."""
        how = self.nest.how.get(name, Clean())
        whole = self.nest.whole(name)
        box = self._box(whole)
        if box is None or not how.fill_holes:
            return
        part = self.labels[box]
        axes = [axis for axis, size in enumerate(self.labels.shape) if size > 1]
        inside = among(part, whole)
        if how.fill_holes == "slices":
            hole = np.stack([enclosed(plane[None], [a for a in axes if a])[0] for plane in inside])
        else:
            hole = enclosed(inside, axes)
        hole &= among(part, [0, *(self.nest.own[outer] for outer in self.nest.around(name))])
        self._paint(box, hole, self.nest.own[name])

    def changes(self) -> Changes:
        """What has happened so far."""
        removed: Counter[str] = Counter()
        added: Counter[str] = Counter()
        for (old, new), count in self.moved.items():
            for name, values in self.nest.values.items():
                if old in values and new not in values:
                    removed[name] += count
                if new in values and old not in values:
                    added[name] += count
        return Changes(*({name: n * self.voxel_ml for name, n in each.items()} for each in (removed, added)))

    def _box(self, values: Iterable[int]) -> Box | None:
        """The smallest box that holds some values."""
        boxes = [self.boxes[value] for value in values if value in self.boxes]
        if not boxes:
            return None
        z, y, x = (slice(min(s.start for s in along), max(s.stop for s in along)) for along in zip(*boxes, strict=True))
        return z, y, x

    def _shrink(self, box: Box, values: Iterable[int]) -> None:
        """Look again where some values are, all of which lie in a box."""
        found = boxes_of(self.labels[box])
        for value in values:
            self.boxes.pop(value, None)
            if value in found:
                z, y, x = (slice(a.start + b.start, a.start + b.stop) for a, b in zip(box, found[value], strict=True))
                self.boxes[value] = (z, y, x)

    def _paint(self, box: Box, where: NDArray[np.bool_], value: int) -> None:
        """Give voxels of a box a value, and remember what they were."""
        part = self.labels[box]
        was, counts = np.unique(part[where], return_counts=True)
        self.moved.update({(int(old), value): int(n) for old, n in zip(was, counts, strict=True)})
        part[where] = value
        if value and was.size:
            known = self.boxes.setdefault(value, box)
            z, y, x = (slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(known, box, strict=True))
            self.boxes[value] = (z, y, x)


def among(labels: NDArray[np.unsignedinteger], values: Iterable[int]) -> NDArray[np.bool_]:
    """Where a label map has one of a few values; unlike `np.isin`, without a copy eight times as large."""
    mask = np.zeros(labels.shape, bool)
    for value in values:
        mask |= labels == value
    return mask


def sizes_of(components: NDArray[np.unsignedinteger]) -> NDArray[np.int64]:
    """Voxels of every component; first of what lies outside all of them."""
    count = int(components.max(initial=0)) + 1
    sizes = np.zeros(count, np.int64)
    for plane in components:  # plane by plane, because each number is widened to eight bytes
        sizes += np.bincount(plane.ravel(), minlength=count)
    return sizes


def looked_up(table: NDArray[np.bool_], numbers: NDArray[np.unsignedinteger]) -> NDArray[np.bool_]:
    """What a table says of numbers (z, y, x); plane by plane for the same reason."""
    found = np.empty(numbers.shape, bool)
    for k, plane in enumerate(numbers):
        found[k] = table[plane]
    return found


def enclosed(mask: NDArray[np.bool_], axes: Sequence[int]) -> NDArray[np.bool_]:
    """Voxels outside a mask (z, y, x) from which no way over faces leads to the array's edge along one of some axes."""
    if not axes:
        return np.zeros(mask.shape, bool)
    outside = label(~mask, "faces")
    closed = np.ones(int(outside.max()) + 1, bool)
    closed[0] = False
    for axis in axes:
        closed[np.take(outside, (0, -1), axis)] = False
    return looked_up(closed, outside)

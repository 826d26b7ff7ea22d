"""Patches for training. Every batch is a function of the seed and its number, so a run can stop and go on anywhere."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from attentus.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from attentus.data.cache import CachedCase
    from attentus.recipes import Sampling

T = TypeVar("T", bound=np.generic)

AHEAD = 2
"""Batches cut in advance per thread."""


class Batch(NamedTuple):
    """What one training step sees."""

    images: NDArray[np.float32]
    """(N, C, *source)."""
    labels: NDArray[np.uint8]
    """(N, *source) class numbers."""
    origin: list[tuple[str, tuple[int, ...]]]
    """Case and first voxel of each patch."""


class Place(NamedTuple):
    """Where a patch lies."""

    case: int
    """Index of the case."""
    start: tuple[int, int, int]
    """First voxel; may be negative."""


@dataclass(frozen=True, eq=False)
class PatchSampler:
    """Cuts random patches out of prepared cases.

    Args:
        cases: where to cut.
        size: (z, y, x) voxels of what is cut; z is 1 for 2D nets, whose patches lose that axis.
        dims: 2 or 3.
        batch: patches per batch.
        seed: decides all of it.
        how: the recipe's `sampling` section.
        members: structure to the class numbers that form it; see `resolve.members`.
        patch: (z, y, x) voxels in the middle of what is cut that the net gets to see, where augmentation needs more;
            None takes `size`. The patch stays inside the scan, what is cut around it need not, so that augmentation
            keeps no border from being seen.
        context: numbers of labels that are no structures but in which patches may be centred; see `resolve.context`.
    """

    cases: Sequence[CachedCase]
    size: tuple[int, int, int]
    dims: int
    batch: int
    seed: int
    how: Sampling
    members: Mapping[str, tuple[int, ...]]
    patch: tuple[int, int, int] | None = None
    context: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self._pool:
            wanted = f" with {' or '.join(self.how.only_with)} (sampling.only_with)" if self.how.only_with else ""
            raise BadInput(f"There is no case{wanted} to train on.")

    def __len__(self) -> int:
        """Number of cases that take part."""
        return len(self._pool)

    def cut(self, number: int, rank: int = 0, ranks: int = 1) -> Batch:
        """Batch `number`, whatever was asked for before.

        The first patches of a batch are foreground patches, as many as the share says; a fraction is drawn.

        Args:
            number: of the batch.
            rank: which share of the batch to cut, where several processes divide it.
            ranks: how many processes there are.
        """
        places = self.places(number)
        share = places[rank * self.batch // ranks : (rank + 1) * self.batch // ranks]
        images, labels, origin = zip(*(self._cut(place) for place in share), strict=True)
        return Batch(np.stack(images), np.stack(labels), list(origin))

    def places(self, number: int) -> list[Place]:
        """Where the patches of a batch lie."""
        rng = np.random.default_rng([self.seed, number])
        wanted = self.how.foreground * self.batch
        certain = int(wanted) + (rng.random() < wanted - int(wanted))
        return [self._place(rng, on_structure=k < certain) for k in range(self.batch)]

    def _place(self, rng: np.random.Generator, *, on_structure: bool) -> Place:
        chosen: tuple[int, ...] | None = None
        if self.how.cases == "balanced" and self._holders:
            chosen = list(self._holders)[int(rng.integers(len(self._holders)))]
            index = int(rng.choice(self._holders[chosen]))
        else:
            index = self._pool[int(rng.integers(len(self._pool)))]
        centre, jitter = self._centre(rng, index, chosen, on_structure=on_structure)
        ranges = zip(centre, self.cases[index].grid.shape, self.patch or self.size, self.size, strict=True)
        z, y, x = (_start(c, full, own, jitter, rng) + (own - size) // 2 for c, full, own, size in ranges)
        return Place(index, (z, y, x))

    def _centre(
        self, rng: np.random.Generator, index: int, chosen: tuple[int, ...] | None, *, on_structure: bool
    ) -> tuple[list[int | None], float]:
        """A voxel of a case, None for anywhere along an axis, and how far from it the patch's middle may lie."""
        points = self.cases[index].points
        if on_structure:
            groups = [chosen] if chosen else [self.members[name] for name in self.how.structures or self.members]
            present = [found for group in groups if len(found := _of(points, group))]
            if present:
                found = present[int(rng.integers(len(present)))]
                return found[int(rng.integers(len(found))), 1:].tolist(), self.how.jitter
        elif self.how.within:
            numbers = {n for name in self.how.within for n in {**self.members, **self.context}[name]}
            numbers -= {n for name in self.how.structures for n in self.members[name]}
            found = _of(points, tuple(numbers))
            if len(found):
                return found[int(rng.integers(len(found))), 1:].tolist(), 0.0
        slices = self._slices(index)
        z = None if slices is None else int(slices[int(rng.integers(len(slices)))])
        return [z, None, None], 0.0

    def _cut(self, place: Place) -> tuple[NDArray[np.float32], NDArray[np.uint8], tuple[str, tuple[int, ...]]]:
        case = self.cases[place.case]
        image = window(case.image, place.start, self.size, case.outside)
        labels = window(case.labels[None], place.start, self.size, (0,))[0]
        if self.dims == 2:
            image, labels = image[:, 0], labels[0]
        return image, labels, (case.id, place.start)

    @cached_property
    def _pool(self) -> list[int]:
        """Cases that take part."""
        wanted = {number for name in self.how.only_with for number in self.members[name]}
        return [k for k in range(len(self.cases)) if not wanted or wanted & self._present[k]]

    @cached_property
    def _holders(self) -> dict[tuple[int, ...], list[int]]:
        """For each structure some case has, those that have it."""
        groups = [self.members[name] for name in self.how.structures or self.members]
        found = {group: [k for k in self._pool if self._present[k] & set(group)] for group in groups}
        return {group: cases for group, cases in found.items() if cases}

    @cached_property
    def _present(self) -> list[set[int]]:
        """Class numbers in each case."""
        return [set(np.unique(case.points[:, 0]).tolist()) for case in self.cases]

    def _slices(self, index: int) -> NDArray[np.intp] | None:
        """Slices of a case that 2D nets may look at; None means all."""
        if self.dims == 3 or not (self.how.only_with or self.how.empty_slices < 1):
            return None
        if index not in self._allowed:
            self._allowed[index] = self._choose_slices(index)
        return self._allowed[index]

    @cached_property
    def _allowed(self) -> dict[int, NDArray[np.intp]]:
        return {}

    def _choose_slices(self, index: int) -> NDArray[np.intp]:
        labels = self.cases[index].labels
        numbers = [n for name in self.how.only_with or self.members for n in self.members[name]]
        holds = np.array([bool(np.isin(plane, numbers).any()) for plane in labels])
        full, empty = np.flatnonzero(holds), np.flatnonzero(~holds)
        if self.how.only_with:
            return full
        rng = np.random.default_rng([self.seed, 2**32 - 1, index])
        some = rng.choice(empty, round(len(empty) * self.how.empty_slices), replace=False)
        chosen = np.sort(np.concatenate([full, some]))
        return chosen if len(chosen) else np.arange(len(labels))


def _of(points: NDArray[np.int32], numbers: tuple[int, ...]) -> NDArray[np.int32]:
    """Those (n, 4) points that belong to classes of these numbers."""
    found: NDArray[np.int32] = points[np.isin(points[:, 0], numbers)]
    return found


def window(array: NDArray[T], start: Sequence[int], size: Sequence[int], outside: Sequence[float]) -> NDArray[T]:
    """A region of (C, z, y, x) that may reach beyond the array.

    Args:
        array: channels first.
        start: first voxel, may be negative.
        size: voxels.
        outside: value per channel beyond the array.
    """
    inside = [slice(max(s, 0), min(s + n, full)) for s, n, full in zip(start, size, array.shape[1:], strict=True)]
    part = array[(slice(None), *inside)]
    if part.shape[1:] == tuple(size):
        return np.array(part)
    whole = np.empty((len(array), *size), array.dtype)
    whole[:] = np.reshape(outside, (-1, 1, 1, 1))
    places = [slice(i.start - s, i.stop - s) for i, s in zip(inside, start, strict=True)]
    whole[(slice(None), *places)] = part
    return whole


def ahead(
    sampler: PatchSampler, numbers: Sequence[int], threads: int, rank: int = 0, ranks: int = 1
) -> Iterator[Batch]:
    """Batches in order, cut by threads while earlier ones are used; a failing thread raises here with its cause."""
    with ThreadPoolExecutor(threads, thread_name_prefix="patches") as pool:
        waiting: list[Future[Batch]] = []
        upcoming = iter(numbers)
        try:
            for number in upcoming:
                waiting.append(pool.submit(sampler.cut, number, rank, ranks))
                if len(waiting) > AHEAD * threads:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def _start(centre: int | None, full: int, size: int, jitter: float, rng: np.random.Generator) -> int:
    """First voxel of a stretch around a centre, moved inside the scan where it fits; centred when it does not.

    Without a centre all places are alike. (Centres anywhere would, moved inside, pile up at the borders of the scan.)
    """
    if full <= size:
        return (full - size) // 2
    if centre is None:
        return int(rng.integers(full - size + 1))
    reach = int(jitter * size / 2)
    moved = int(rng.integers(-reach, reach + 1)) if reach else 0
    return int(np.clip(centre - size // 2 + moved, 0, full - size))

"""Patches for training. Every batch is a function of the seed and its number, so a run can stop and go on anywhere."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from attentus.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from attentus.data.cache import CachedCase

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


@dataclass(frozen=True, eq=False)
class PatchSampler:
    """Cuts random patches out of prepared cases.

    Args:
        cases: where to cut.
        size: (z, y, x) voxels of what is cut; z is 1 for 2D nets, whose patches lose that axis.
        dims: 2 or 3.
        batch: patches per batch.
        foreground: share of patches centred on a voxel of a structure; the structures a case has take turns by lot.
        seed: decides all of it.
    """

    cases: Sequence[CachedCase]
    size: tuple[int, int, int]
    dims: int
    batch: int
    foreground: float
    seed: int

    def __post_init__(self) -> None:
        if not self.cases:
            raise BadInput("There is no case to train on.")

    def cut(self, number: int) -> Batch:
        """Batch `number`, whatever was asked for before.

        The first patches of a batch are foreground patches, as many as the share says; a fraction is drawn.
        """
        rng = np.random.default_rng([self.seed, number])
        wanted = self.foreground * self.batch
        certain = int(wanted) + (rng.random() < wanted - int(wanted))
        patches = [self._patch(rng, on_structure=k < certain) for k in range(self.batch)]
        images, labels, origin = zip(*patches, strict=True)
        return Batch(np.stack(images), np.stack(labels), list(origin))

    def _patch(
        self, rng: np.random.Generator, *, on_structure: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], tuple[str, tuple[int, ...]]]:
        case = self.cases[int(rng.integers(len(self.cases)))]
        points = case.points
        if on_structure and len(points):
            number = rng.choice(np.unique(points[:, 0]))
            centre = rng.choice(points[points[:, 0] == number])[1:]
        else:
            centre = [int(rng.integers(n)) for n in case.grid.shape]
        start = tuple(
            _start(int(c), n, size, rng) for c, n, size in zip(centre, case.grid.shape, self.size, strict=True)
        )
        image = window(case.image, start, self.size, case.outside)
        labels = window(case.labels[None], start, self.size, (0,))[0]
        if self.dims == 2:
            image, labels = image[:, 0], labels[0]
        return image, labels, (case.id, start)


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


def ahead(sampler: PatchSampler, numbers: Sequence[int], threads: int) -> Iterator[Batch]:
    """Batches in order, cut by threads while earlier ones are used; a failing thread raises here with its cause."""
    with ThreadPoolExecutor(threads, thread_name_prefix="patches") as pool:
        waiting: list[Future[Batch]] = []
        upcoming = iter(numbers)
        try:
            for number in upcoming:
                waiting.append(pool.submit(sampler.cut, number))
                if len(waiting) > AHEAD * threads:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            for future in waiting:
                future.cancel()


def _start(centre: int, full: int, size: int, rng: np.random.Generator) -> int:
    """First voxel of a stretch around a centre, moved inside the scan where it fits; centred when it does not."""
    if full <= size:
        return (full - size) // 2
    jitter = int(rng.integers(-(size // 4), size // 4 + 1))  # structures appear off the middle, too
    return int(np.clip(centre - size // 2 + jitter, 0, full - size))

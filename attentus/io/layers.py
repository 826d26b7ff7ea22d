"""Masks that may overlap, held as one integer per voxel."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from numpy.typing import NDArray


class Layers:
    """Masks of one shape in one label array: voxels of one mask hold its number, those of several a number above all.

    So nothing is lost where masks overlap, and a hundred masks need no more memory than one label map.

    Args:
        shape: (z, y, x).
        numbers: of the masks, above 0.
    """

    def __init__(self, shape: Sequence[int], numbers: Collection[int]) -> None:
        self.array: NDArray[Any] = np.zeros(tuple(shape), np.uint8 if max(numbers, default=0) < 256 else np.uint16)
        self._next = 1 + max(numbers, default=0)
        self._number: dict[frozenset[int], int] = {frozenset({n}): n for n in numbers}
        self._members = {0: frozenset[int](), **{n: frozenset({n}) for n in numbers}}

    def add(self, number: int, mask: NDArray[np.bool_]) -> None:
        """Add a mask.

        Args:
            number: its own.
            mask: (z, y, x).

        Raises:
            BadInput: more than 65535 combinations of masks.
        """
        below = self.array[mask]
        table = np.zeros(1 + int(below.max(initial=0)), np.uint16)
        for value in np.unique(below).tolist():
            table[value] = self._join(value, number)
        if table.max(initial=0) > np.iinfo(self.array.dtype).max:
            self.array = self.array.astype(np.uint16)
        self.array[mask] = table[below]

    def values(self, number: int) -> tuple[int, ...]:
        """The integers that voxels of a mask hold."""
        return tuple(value for value, members in self._members.items() if number in members)

    @property
    def overlaps(self) -> list[tuple[int, int]]:
        """Pairs of masks that share voxels."""
        pairs = {pair for members in self._members.values() for pair in combinations(sorted(members), 2)}
        return sorted(pairs)

    def _join(self, value: int, number: int) -> int:
        members = self._members[value] | {number}
        if members not in self._number:
            if self._next > np.iinfo(np.uint16).max:
                raise BadInput("The masks overlap in more than 65535 combinations; read fewer of them at once.")
            self._number[members] = self._next
            self._members[self._next] = members
            self._next += 1
        return self._number[members]

"""Memory for features: used again when nobody reads what it held, instead of fetched anew for every layer."""

from __future__ import annotations

import math
import weakref
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor

LINE = 16
"""Floats in a line of the cache."""
SPARE = 1.25
"""How much larger than needed a piece may be."""


class Features:
    """Pieces of memory that come back by themselves when the last tensor on them goes.

    The system zeroes every page that it hands out, and a C library that keeps pages instead leaves holes between
    tensors of different sizes: this is as fast as the one and as small as the other.
    """

    def __init__(self) -> None:
        self.free: list[NDArray[np.float32]] = []
        self.size: tuple[int, ...] = ()

    def serve(self, size: Sequence[int]) -> None:
        """Tell the sides of the windows that come next: pieces for others are of no use any more."""
        if tuple(size) != self.size:
            self.size = tuple(size)
            self.free.clear()

    def empty(self, shape: Sequence[int], *, half: bool = False) -> Tensor:
        """A tensor of fp32, or of bf16, with anything in it."""
        numbers = math.prod(shape)
        count = -(-numbers // 2) if half else numbers
        fitting = [i for i, piece in enumerate(self.free) if count <= piece.size <= SPARE * count]
        best = min(fitting, key=lambda i: self.free[i].size, default=None)
        piece = aligned(count) if best is None else self.free.pop(best)
        lent = piece[:count]  # torch holds this view as long as any tensor lies on it
        weakref.finalize(lent, self.free.append, piece).atexit = False
        made = torch.from_numpy(lent)
        return made.view(torch.bfloat16)[:numbers].view(*shape) if half else made.view(*shape)


def aligned(count: int) -> NDArray[np.float32]:
    """Memory for that many floats, anything in it, from a line of the cache on: no register reaches into two lines."""
    piece = np.empty(count + LINE, np.float32)
    first = -piece.ctypes.data % (4 * LINE) // 4
    return piece[first : first + count]

"""Features that a convolution reads in parts, and layers whose turn comes later: what there is at once stays small."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Sequence


class Later:
    """What a layer would make of something, not yet made."""

    def __init__(self, layer: nn.Module, x: Tensor) -> None:
        self.layer = layer
        self.x = x

    def now(self) -> Tensor:
        """Make it."""
        made: Tensor = self.layer(self.x)
        return made


class Parts:
    """Features that a convolution reads as they are, or one after the other if one is yet to be made.

    Args:
        parts: by their channels' order; one at most is yet to be made.
    """

    def __init__(self, parts: Sequence[Tensor | Later]) -> None:
        self.parts: list[tuple[int, Tensor | Later]] = []
        made = sum(part.shape[1] for part in parts if isinstance(part, Tensor))
        at = 0
        for part in parts:
            self.parts.append((at, part))
            at = at + part.shape[1] if isinstance(part, Tensor) else at - made
        self.parts.sort(key=lambda entry: isinstance(entry[1], Later))

    @property
    def half(self) -> bool:
        """Whether those that are made are bf16."""
        return all(part.dtype == torch.bfloat16 for _, part in self.parts if isinstance(part, Tensor))

    @property
    def made(self) -> bool:
        """Whether all are."""
        return all(isinstance(part, Tensor) for _, part in self.parts)

    def together(self, channels: int) -> list[Tensor]:
        """All of them by the order of their `channels`, made, of one type; nothing here holds them afterwards."""
        made, half = {}, self.half
        while self.parts:
            first, part = self.take(channels)
            made[first] = part.bfloat16() if half else part.float()
        return [made[first] for first in sorted(made)]

    def take(self, channels: int) -> tuple[int, Tensor]:
        """The next part and its first channel of `channels`; nothing here holds it afterwards."""
        at, part = self.parts.pop(0)
        return at % channels, part.now() if isinstance(part, Later) else part


class OneByOne(nn.Module):
    """Stands for `nets.parts.Concatenate` before a convolution that reads parts."""

    def forward(self, *parts: Tensor | Later) -> Parts:
        """(N, C_i, *spatial) of the same size."""
        return Parts(parts)


class MadeLater(nn.Module):
    """A layer that is passed when its result is needed.

    Args:
        layer: any.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Later:
        """What it will see."""
        return Later(self.layer, x)

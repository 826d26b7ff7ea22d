"""What is known of a network besides its layers: where it comes from, what it was published with, what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn


@dataclass(frozen=True)
class Preset:
    """A named set of options.

    Args:
        options: plain values.
        net: name of another net that is built instead, where two papers call different nets by one name.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    net: str | None = None


@dataclass(frozen=True)
class Card:
    """One network of the catalogue.

    Args:
        build: called with (dims, in_channels, out_channels, **options).
        paper: who published it.
        size: input of the paper, (z, y, x) or (y, x).
        channels: channels of that input.
        classes: outputs of that network.
        dims: the numbers of spatial axes it works with.
        presets: named sets of options; every net has "tiny", small enough for tests and for a first try on a laptop.
    """

    build: Callable[..., nn.Module]
    paper: str
    size: tuple[int, ...]
    channels: int = 1
    classes: int = 1
    dims: tuple[int, ...] = (2, 3)
    presets: Mapping[str, Preset] = field(default_factory=dict)

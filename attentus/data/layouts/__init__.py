"""How folders of cases are arranged. Each layout is one module that fulfils `Layout`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attentus.data.layouts import msd, pairs
from attentus.errors import BadFile

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.layouts.found import Found


class Layout(Protocol):
    """What a module of this folder offers."""

    LOOKS_LIKE: str
    """How such a dataset looks, for messages."""

    def matches(self, path: Path) -> bool:
        """Whether a folder or manifest is arranged this way."""

    def find(self, path: Path) -> Found:
        """Its contents."""


LAYOUTS: tuple[Layout, ...] = (msd, pairs)
"""Tried in this order, the most specific first."""


def recognise(path: Path) -> Found:
    """Read the manifest of a folder in whichever layout fits.

    Raises:
        BadFile: none fits.
    """
    for layout in LAYOUTS:
        if layout.matches(path):
            return layout.find(path)
    raise BadFile(
        path,
        "is no dataset Attentus recognises",
        "It looks for: "
        + "; ".join(layout.LOOKS_LIKE for layout in LAYOUTS)
        + ". Arrange the files in one of these ways, or describe them in a manifest (docs/how-to/data.md).",
    )

"""Whether there is room on the disk, asked before it is needed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from attentus.errors import BadFile

if TYPE_CHECKING:
    from pathlib import Path

RESERVE = 100 * 10**6
"""Bytes that shall stay free."""


def require_space(place: Path, needed: int) -> None:
    """Raise BadFile unless so many bytes fit onto the disk of a file or folder that need not be there yet."""
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if free < needed + RESERVE:
        raise BadFile(
            place,
            f"needs {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on this disk",
            "Free some space, or choose a folder on another disk (-o).",
        )

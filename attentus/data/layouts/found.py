"""What a layout finds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

from attentus.errors import BadFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from attentus.types import Case

LISTED = 5
"""What is missing is named up to so many times."""


class Sides(TypedDict, total=False):
    """Case ids on the sides of a split, as the data say."""

    train: list[str]
    val: list[str]
    test: list[str]


@dataclass(frozen=True)
class Found:
    """The contents of a folder, as far as names tell."""

    name: str
    root: Path
    layout: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...] | None
    """Channel names in file order; None when nobody says."""
    labels: Mapping[str, int] | None
    """Label name to integer without background; None when nobody says."""
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names that stand for several labels, or for one that others call so."""
    ignore: tuple[str, ...] = ()
    """Labels of voxels that nobody annotated."""
    splits: tuple[Sides, ...] = ()
    """Splits that come with the data, one per fold."""


def require_all(root: Path, missing: Sequence[str], fix: str) -> None:
    """Raise BadFile if something is missing, and say what."""
    if missing:
        more = f" and {len(missing) - LISTED} more" if len(missing) > LISTED else ""
        raise BadFile(root, f"is incomplete: {'; '.join(missing[:LISTED])}{more}", fix)


def packed(folder: Path, names: Sequence[str], wanted: str) -> str:
    """What to say of something missing from a folder: that its archive is still packed, or that it is not there.

    Args:
        folder: where it should be.
        names: files of the folder.
        wanted: the missing folder or file, without an ending.
    """
    archive = next((n for n in names if n.lower().startswith(f"{wanted.lower()}.") and n.endswith(ARCHIVES)), None)
    return f"{folder.name}/{archive} is not unpacked" if archive else f"{folder.name} has no {wanted}"


ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".7z", ".rar")

"""The folders under a dataset, walked once for all layouts that want to know whether it is theirs."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import re
    from collections.abc import Iterator
    from pathlib import Path

DEPTH = 7
"""How many folders deep is looked; the longest known way is that of a DICOM archive."""


class Listing(NamedTuple):
    """What lies in a folder, hidden entries left out, sorted."""

    folders: tuple[str, ...]
    files: tuple[str, ...]


class Tree:
    """A path, and what lies under it; nothing is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: set[tuple[int, int]] = set()

    @cached_property
    def listings(self) -> dict[Path, Listing]:
        """Every folder, parents before children; each real folder once, however it is linked. Empty for a file."""
        return dict(self._walk(self.path, DEPTH)) if self.path.is_dir() else {}

    def folders(self, *names: str) -> list[Path]:
        """Folders of one of these names, upper and lower case alike."""
        wanted = {name.lower() for name in names}
        return [folder for folder in self.listings if folder.name.lower() in wanted]

    def files(self, pattern: re.Pattern[str], depth: int = DEPTH) -> Iterator[tuple[Path, re.Match[str]]]:
        """Files whose whole name fits a pattern, at most so many folders deep, and how it fits."""
        for folder, listing in self.listings.items():
            if len(folder.parts) - len(self.path.parts) <= depth:
                for name in listing.files:
                    if found := pattern.fullmatch(name):
                        yield folder / name, found

    def _walk(self, folder: Path, depth: int) -> Iterator[tuple[Path, Listing]]:
        about = folder.stat()
        if (about.st_dev, about.st_ino) in self._seen:
            return
        self._seen.add((about.st_dev, about.st_ino))
        with os.scandir(folder) as entries:
            visible = sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))
        listing = Listing(tuple(n for n, is_dir in visible if is_dir), tuple(n for n, is_dir in visible if not is_dir))
        yield folder, listing
        for name in listing.folders if depth else ():
            yield from self._walk(folder / name, depth - 1)

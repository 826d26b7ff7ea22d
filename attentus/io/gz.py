"""Gzipped files through ISA-L (package isal), which unpacks two to three times as fast as zlib and packs four to ten.

Where there is no wheel of it (Windows on ARM) Python's own gzip does the same, slower.
"""

from __future__ import annotations

import gzip
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

try:
    from isal import igzip
    from isal.igzip_lib import IsalError
except ImportError:
    igzip, IsalError = None, zlib.error

LEVEL = 2 if igzip else 1
"""Of ISA-L: smaller label files than zlib's fastest level makes, in a tenth of its time."""
DAMAGE: tuple[type[Exception], ...] = (EOFError, zlib.error, IsalError, gzip.BadGzipFile)
"""What a file that ends early, or whose content does not fit its checksum, raises while it is read."""


def unpacking(path: Path) -> IO[bytes]:
    """Open a gzipped file for reading; at its end the checksum is compared.

    Raises:
        DAMAGE, OSError: here or while it is read.
    """
    opened: IO[bytes] = (igzip or gzip).open(path, "rb")
    return opened


@contextmanager
def packing(path: Path) -> Iterator[IO[bytes]]:
    """Open a gzipped file for writing; equal content gives equal files, as neither name nor time is stored."""
    with path.open("wb") as file, (igzip or gzip).GzipFile("", "wb", LEVEL, file, mtime=0) as packed:
        yield packed

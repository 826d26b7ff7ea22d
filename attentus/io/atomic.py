"""Write to a temporary name in the same folder, then move: a reader never meets half a file, a crash loses nothing."""

from __future__ import annotations

import errno
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from attentus.errors import BadFile

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary path with the same ending; on success it becomes `path`, on failure it disappears.

    Args:
        path: where the file shall be; missing folders are made.
        overwrite: whether an existing file may be replaced.

    Raises:
        BadFile: the file exists and may not be replaced, the disk is full, or the place cannot be written to.
    """
    target = Path(path)
    require_free(target, overwrite=overwrite)
    temporary = target.with_name(f".{uuid4().hex[:8]}.part.{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        usual = temporary.stat().st_mode  # some writers make private files; results are as open as the user's others
        yield temporary
        temporary.chmod(usual)
        temporary.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def require_free(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Raise BadFile if something is there that may not be replaced; ask before long work, not after it."""
    if not overwrite and Path(path).exists():
        raise BadFile(path, "exists already", "Choose another name, or allow overwriting (--overwrite).")


def write_text(path: str | os.PathLike[str], text: str, *, overwrite: bool = True) -> None:
    """Write a UTF-8 text file as `replacing` does."""
    with replacing(path, overwrite=overwrite) as temporary:
        temporary.write_text(text, encoding="utf-8")


def unwritable(path: str | os.PathLike[str], error: OSError) -> BadFile:
    """The error that explains why a place cannot be written to."""
    if error.errno == errno.ENOSPC:
        return BadFile(path, "the disk is full; nothing was written", "Free some space or choose another disk.")
    if isinstance(error, PermissionError):
        return BadFile(path, "no permission to write here", "Choose a folder you own.")
    return BadFile(path, f"cannot be written ({error.strerror or error})", "Choose another place.")

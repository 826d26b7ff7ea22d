"""Write to a temporary name in the same folder, then move: a reader never meets half a file, a crash loses nothing."""

from __future__ import annotations

import errno
import shutil
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from attentus.errors import BadFile
from attentus.io.sniff import stem

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator


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


def check_replaceable(folder: Path, *, holds: str, overwrite: bool) -> None:
    """Refuse a place where `replacing_folder` would not put a folder.

    Raises:
        BadFile: see there.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / holds).is_file():
        raise BadFile(folder, f"exists and is no folder with a {holds}", "Choose an empty or a new folder.")
    if not overwrite:
        raise BadFile(folder, "exists already", "Choose another folder, or allow overwriting (--overwrite).")


@contextmanager
def replacing_folder(path: str | os.PathLike[str], *, holds: str, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; on success it becomes `path`, on failure it disappears.

    Args:
        path: where the folder shall be; an empty one may be there.
        holds: a file that shows a folder to be of the kind that may be replaced, e.g. "recipe.yaml" of a model.
        overwrite: whether such a folder may be replaced, with all it holds.

    Raises:
        BadFile: the folder holds something and may not be replaced, or the place cannot be written to.
    """
    target = Path(path)
    check_replaceable(target, holds=holds, overwrite=overwrite)
    temporary = target.with_name(f".{uuid4().hex[:8]}.part.{target.name}")
    before = temporary.with_suffix(".before")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if target.exists():
            target.replace(before)
        temporary.replace(target)
    except OSError as error:
        raise unwritable(target, error) from error
    finally:
        if before.exists() and not target.exists():
            before.replace(target)
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def sweep(targets: Iterable[Path], idle: float = 0.0) -> None:
    """Remove temporary files that were to become these, or files called NAME_*, when their process was killed.

    Args:
        targets: where the files should have been.
        idle: spare what was written to within so many seconds.
    """
    wanted = list(targets)
    whole, starts = {path.name for path in wanted}, tuple(f"{stem(path)}_" for path in wanted)
    for folder in {path.parent for path in wanted}:
        for file in folder.glob(".*.part.*"):
            name = file.name.split(".part.", 1)[1]
            with suppress(OSError):
                if (name in whole or name.startswith(starts)) and time.time() - file.stat().st_mtime >= idle:
                    file.unlink()


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

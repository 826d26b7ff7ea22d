"""Unpack an archive into a folder, and nothing outside of it: only plain files and folders, only below the folder."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, NamedTuple

from attentus.data.fetch.space import require_space
from attentus.errors import BadFile
from attentus.progress import Progress, Silent, track

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, progress: Progress | None = None) -> None:
    """Unpack a .tar (compressed or not) or .zip.

    Args:
        archive: the file.
        folder: where its contents go.
        progress: shows the files.

    Raises:
        BadFile: damaged, of another kind, with entries that point elsewhere or are links, or larger than the disk.
    """
    with _members(archive) as members:
        require_space(folder, sum(member.size for member in members))
        for member in track(progress or Silent(), f"unpacking {archive.name}", members):
            target = _target(archive, folder, member.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream, 1 << 20)


def _target(archive: Path, folder: Path, name: str) -> Path:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
        raise BadFile(
            archive, f"holds '{name}', which points outside of its folder", "Do not use it; tell who published it."
        )
    return folder.joinpath(*parts)


@contextmanager
def _members(archive: Path) -> Iterator[list[Member]]:
    """The plain files of an archive. Notes of macOS (._NAME) are left out: they look like images and are none."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                yield [
                    Member(i.filename, i.file_size, _in_zip(opened, i))
                    for i in opened.infolist()
                    if _wanted(i.filename)
                ]
        else:
            with tarfile.open(archive) as tar:
                yield [
                    Member(i.name, i.size, _in_tar(archive, tar, i)) for i in tar if not i.isdir() and _wanted(i.name)
                ]
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise BadFile(archive, f"is a damaged archive ({error})", "Remove it and download it again.") from error


def _wanted(name: str) -> bool:
    return not (name.endswith("/") or "__MACOSX" in name or PurePosixPath(name).name.startswith("._"))


def _in_zip(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
    return lambda: opened.open(info)


def _in_tar(archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
    def opened() -> IO[bytes]:
        stream = tar.extractfile(info) if info.isfile() else None
        if stream is None:
            raise BadFile(archive, f"holds '{info.name}', a link or device", "Do not use it; tell who published it.")
        return stream

    return opened

"""From a name in the catalogue to a dataset on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attentus.data.dataset import Dataset
from attentus.data.fetch.download import PAUSES, download
from attentus.data.fetch.space import require_space
from attentus.data.fetch.unpack import unpack
from attentus.errors import BadInput
from attentus.io.atomic import replacing_folder

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.data.fetch.known import Entry
    from attentus.progress import Progress


def here(wanted: Entry, out: Path) -> bool:
    """Whether a dataset was unpacked in a folder before."""
    return all((out / wanted.name / folder).is_dir() for folder in wanted.opens)


def get(
    wanted: Entry,
    out: Path,
    *,
    keep: bool = False,
    progress: Progress | None = None,
    pauses: tuple[float, ...] = PAUSES,
) -> tuple[Dataset, ...]:
    """Download, check, unpack and open a dataset; what is there already is only opened.

    Args:
        wanted: what.
        out: folder of datasets; this one goes to OUT/NAME.
        keep: whether the archive stays once it is unpacked.
        progress: shows how far it is.
        pauses: see `download`.

    Returns:
        The datasets it holds: usually one; CHAOS has CT and MR.

    Raises:
        BadInput: nothing can be downloaded, a person has to.
        BadFile: the download or the archive fails; the folder is then as it was, but for what has come so far.
    """
    if not wanted.download:
        raise BadInput(f"{wanted.name} cannot be downloaded without a person: see its steps, {wanted.home}.")
    target = out / wanted.name
    if not here(wanted, out):
        needed = int(wanted.size_gb * 1e9)
        require_space(
            out, needed - sum(file.stat().st_size for file in out.glob(f"{wanted.name}.downloads/*")) + needed
        )
        place = out / f"{wanted.name}.downloads"
        archives = [
            download(archive.url, place / archive.file, md5=archive.md5, progress=progress, pauses=pauses)
            for archive in wanted.download
        ]
        with replacing_folder(target, holds=wanted.opens[0]) as temporary:
            for archive in archives:
                unpack(archive, temporary, progress)
        if not keep:
            for archive in archives:
                archive.unlink()
            place.rmdir()
    return tuple(Dataset.open(target / folder) for folder in wanted.opens)

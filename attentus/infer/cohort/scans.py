"""Which scans there are, and where their results go."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from attentus.errors import BadFile
from attentus.io.dicom import find_series, holds_dicom, is_dicom
from attentus.io.picture import slice_files
from attentus.io.sniff import PICTURE_ENDINGS, READABLE_ENDINGS, ending, stem

if TYPE_CHECKING:
    from pathlib import Path

WRITABLE = ("nii.gz", "nii", "nrrd", "mha", "png", "dcm")


@dataclass(frozen=True)
class Scan:
    """Something to predict and where its labels go."""

    name: str
    path: Path
    result: Path
    series: str | None = None
    """Of a DICOM folder that holds several series: the UID of this one."""

    @property
    def is_dicom(self) -> bool:
        """Whether its result is a DICOM segmentation."""
        return self.result.suffix.lower() == ".dcm"


def find_scans(path: Path, out: Path, wanted: str | None = None) -> list[Scan]:
    """Find the scans behind a path and name their results.

    Args:
        path: one file, one DICOM series, or a folder of files, DICOM series or both.
        out: a file name with a known ending for a single scan, otherwise a folder.
        wanted: ending of the results, such as "nrrd"; None takes nii.gz, and png for pictures.

    Raises:
        BadFile: nothing there, an ending that cannot be written, several scans for one result file, or DICOM results
            of scans that are no DICOM.
    """
    if wanted is not None and wanted.lstrip(".") not in WRITABLE:
        raise BadFile(out, f"'{wanted}' is no format that can be written", f"Use one of {', '.join(WRITABLE)}.")
    if not path.exists():
        raise BadFile(path, "does not exist", "Check the path and its spelling.")
    sources = [(stem(path), path, None)] if path.is_file() else _in_folder(path)
    if not sources:
        raise BadFile(path, "holds no scan", "Name a folder with NIfTI, NRRD, MHA, DICOM or picture files.")
    if ending(out).lstrip(".") in WRITABLE:
        if len(sources) > 1:
            raise BadFile(out, f"is one file, but {path} holds {len(sources)} scans", "Name a folder for the results.")
        name, source, series = sources[0]
        return _checked([Scan(name, source, out, series)])
    return _checked(
        [
            Scan(name, source, out / f"{name}.{(wanted or _usual(source)).lstrip('.')}", series)
            for name, source, series in sources
        ]
    )


def _checked(scans: list[Scan]) -> list[Scan]:
    """The scans, if those that shall become DICOM are DICOM."""
    paths = [scan.path for scan in scans if scan.is_dicom]
    strange = [path for path in paths if not (holds_dicom(path) if path.is_dir() else is_dicom(path))]
    if strange:
        of_all = f"is one of {len(strange)} scans that are" if len(strange) > 1 else "is"
        raise BadFile(
            strange[0],
            f"{of_all} no DICOM, and a DICOM segmentation has to refer to DICOM images",
            f"Name the DICOM folder itself, or choose another format ({', '.join(WRITABLE[:-1])}).",
        )
    return scans


def _in_folder(folder: Path) -> list[tuple[str, Path, str | None]]:
    """Name, path and series of every scan in a folder: image files, then DICOM series, each by its folder."""
    files = [p for p in sorted(folder.iterdir()) if ending(p) in READABLE_ENDINGS and not p.name.startswith(".")]
    if files:
        stems = Counter(stem(p) for p in files)
        return [(stem(p) if stems[stem(p)] == 1 else p.name, p, None) for p in files]
    if not holds_dicom(folder):
        return [(p.name, p, None) for p in sorted(folder.iterdir()) if p.is_dir() and slice_files(p)]
    places: dict[str, list[tuple[Path, str, str]]] = {}
    for series in find_series(folder):
        home = series.files[0].parent
        places.setdefault(home.name, []).append((home, series.uid, series.description))
    return [
        (name if len(group) == 1 else f"{name}_{number}", home, uid)
        for name, group in sorted(places.items())
        for number, (home, uid, _) in enumerate(group, start=1)
    ]


def _usual(source: Path) -> str:
    return "png" if ending(source) in PICTURE_ENDINGS else "nii.gz"

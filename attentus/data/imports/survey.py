"""What a DICOM tree holds: image series, and the contours and segmentations that refer to them. Headers only.

Folders mean nothing: files belong together by their SeriesInstanceUID, patients by PatientID. The same image twice
(equal SOPInstanceUID) counts once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from attentus.errors import BadFile
from attentus.io.dicom import grid_of, header_of, joined, series_in, shows_scan
from attentus.io.dicom_seg import segment_names
from attentus.io.rtstruct import RTSTRUCT, structure_names
from attentus.progress import Progress, Silent, track

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset as Header

    from attentus.io.dicom import Series
    from attentus.types import Grid


@dataclass(frozen=True)
class Owner:
    """Whom a DICOM object belongs to. For choosing and counting; nothing of it is written."""

    patient: str
    """PatientID; the study where it is empty."""
    study: str
    series: str
    frame: str
    """FrameOfReferenceUID: objects that share it share their coordinates."""

    @classmethod
    def of(cls, header: Header) -> Owner:
        """From a data set."""
        study = _text(header, "StudyInstanceUID")
        frame = _text(header, "FrameOfReferenceUID") or _text(_first(header, "ReferencedFrameOfReferenceSequence"))
        return cls(_text(header, "PatientID") or study, study, _text(header, "SeriesInstanceUID"), frame)


@dataclass(frozen=True, eq=False)
class ImageSeries:
    """An image series of the tree."""

    owner: Owner
    modality: str
    description: str
    number: str
    """SeriesNumber."""
    folder: Path
    """Of its first file."""
    series: Series | None
    """None where no file can be placed in the patient."""
    damage: str = ""
    """Why files of it cannot be read."""

    @cached_property
    def geometry(self) -> Grid | str:
        """Its grid, or why it makes up no volume."""
        if self.damage or self.series is None:
            return self.damage
        try:
            return grid_of(self.series)
        except BadFile as error:
            return str(error)

    @property
    def slices(self) -> int:
        """How many there are."""
        return len(self.series.frames) if self.series else 0


@dataclass(frozen=True)
class LabelObject:
    """An RTSTRUCT or a DICOM SEG."""

    owner: Owner
    kind: str
    """"RTSTRUCT" or "SEG"."""
    file: Path
    refers_to: tuple[str, ...]
    """UIDs of the image series it was drawn on."""
    structures: tuple[str, ...]
    stamp: str
    """When it was made, for comparing; empty if nobody says."""


@dataclass(frozen=True)
class Survey:
    """All of a tree."""

    root: Path
    images: tuple[ImageSeries, ...]
    """By patient, study, series number."""
    labels: tuple[LabelObject, ...]
    damaged: dict[Path, str] = field(default_factory=dict)
    """Files that should be DICOM and cannot be read."""
    copies: int = 0
    """Images that are there more than once."""
    others: Counter[str] = field(default_factory=Counter)
    """Modality and count of DICOM objects that are neither; "no DICOM" for other files."""


def survey(root: Path, progress: Progress | None = None) -> Survey:
    """Look through a folder and its subfolders.

    Args:
        root: of the tree.
        progress: shows the files.

    Raises:
        BadFile: the folder is missing or holds no DICOM.
    """
    if not root.is_dir():
        raise BadFile(root, "is no folder", "Name the folder that holds the DICOM files, at any depth.")
    found = _Found()
    files = sorted(p for p in root.rglob("*") if p.is_file() and not p.name.startswith(".") and p.name != "DICOMDIR")
    for file in track(progress or Silent(), "reading headers", files):
        found.add(file)
    if not found.parts and not found.labels and not found.damaged:
        raise BadFile(root, "holds no DICOM images", "Name the folder that holds the DICOM files, at any depth.")
    images = sorted(found.series(), key=_order)
    return Survey(root, tuple(images), tuple(found.labels), found.damaged, found.copies, found.others)


class _Found:
    """What was met so far. Headers are not kept: those of a large tree would not fit into memory."""

    def __init__(self) -> None:
        self.parts: dict[tuple[str, str], list[Series]] = {}
        self.facts: dict[tuple[str, str], tuple[Owner, str, str, str, Path]] = {}
        self.damage: dict[tuple[str, str], str] = {}
        self.labels: list[LabelObject] = []
        self.damaged: dict[Path, str] = {}
        self.others: Counter[str] = Counter()
        self.copies = 0
        self._seen: set[str] = set()

    def add(self, file: Path) -> None:
        try:
            header = header_of(file)
            if header is None:
                self.others["no DICOM"] += 1
                return
            uid = _text(header, "SOPInstanceUID")
            if uid and uid in self._seen:
                self.copies += 1
                return
            self._seen.add(uid)
            self._add(file, header)
        except BadFile as error:
            self.damaged[file] = str(error)

    def _add(self, file: Path, header: Header) -> None:
        owner = Owner.of(header)
        if _text(header, "SOPClassUID") == RTSTRUCT:
            self.labels.append(_contours(file, header, owner))
        elif _text(header, "Modality") == "SEG":
            self.labels.append(_segments(file, header, owner))
        elif shows_scan(header):
            key = (owner.patient, owner.series)
            texts = (_text(header, name) for name in ("Modality", "SeriesDescription", "SeriesNumber"))
            self.facts.setdefault(key, (owner, *texts, file.parent))  # type: ignore[arg-type]
            try:
                self.parts.setdefault(key, []).append(series_in(file, header))
            except BadFile as error:
                self.damage.setdefault(key, str(error))
        else:
            self.others[_text(header, "Modality") or "other"] += 1

    def series(self) -> list[ImageSeries]:
        return [
            ImageSeries(*facts, joined(self.parts[key]) if self.parts.get(key) else None, self.damage.get(key, ""))
            for key, facts in self.facts.items()
        ]


def _contours(file: Path, header: Header, owner: Owner) -> LabelObject:
    series = [
        _text(series, "SeriesInstanceUID")
        for frame in header.get("ReferencedFrameOfReferenceSequence") or ()
        for study in frame.get("RTReferencedStudySequence") or ()
        for series in study.get("RTReferencedSeriesSequence") or ()
    ]
    names = structure_names(header).values()
    stamp = _text(header, "StructureSetDate") + _text(header, "StructureSetTime")
    return LabelObject(owner, "RTSTRUCT", file, tuple(dict.fromkeys(series)), tuple(dict.fromkeys(names)), stamp)


def _segments(file: Path, header: Header, owner: Owner) -> LabelObject:
    series = [_text(reference, "SeriesInstanceUID") for reference in header.get("ReferencedSeriesSequence") or ()]
    stamp = _text(header, "ContentDate") + _text(header, "ContentTime")
    return LabelObject(owner, "SEG", file, tuple(dict.fromkeys(series)), tuple(segment_names(file)), stamp)


def _text(header: Any, name: str = "FrameOfReferenceUID") -> str:
    return str(header.get(name) or "").strip() if header is not None else ""


def _first(header: Header, name: str) -> Any:
    return next(iter(header.get(name) or ()), None)


def _order(image: ImageSeries) -> tuple[str, str, int, str]:
    number = int(image.number) if image.number.lstrip("-").isdigit() else 0
    return image.owner.patient, image.owner.study, number, image.owner.series

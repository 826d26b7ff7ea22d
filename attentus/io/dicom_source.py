"""What a DICOM object takes over from the images it was made from: whose they are, which they are, where they lie.

Only what the standard demands is taken: of patient and study the attributes it requires, and that the images were
de-identified. Everything else that may say who somebody is stays behind. Values that break the standard, as a sex of
"unknown" or a study's number of twenty characters, are left empty, because a copy of them would be refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadFile, BadInput
from attentus.io.dicom import Frame, frames_of, quietly

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset as Header

    from attentus.types import Grid, Volume

_WHO = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
"""What the standard demands of every object, be it empty."""
_IF_THERE = ("PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence")
_SHORT, _LONG = re.compile(r"[^\\]{0,16}"), re.compile(r"[^\\]{0,64}")
_VALID = {
    "PatientID": _LONG,
    "StudyID": _SHORT,
    "AccessionNumber": _SHORT,
    "PatientSex": re.compile(r"[MFO]"),
    "PatientBirthDate": re.compile(r"\d{8}"),
    "StudyDate": re.compile(r"\d{8}"),
    "StudyTime": re.compile(r"\d{2}(\d{2}(\d{2}(\.\d{1,6})?)?)?"),
}
UNICODE = "ISO_IR 192"


def source_headers(volume: Volume) -> tuple[list[Header], NDArray[np.intp]]:
    """Headers of the images of a volume, with what objects made from them need, and nothing else.

    Args:
        volume: as stored, on the grid of the series that it came from.

    Returns:
        One header for each slice of a series of single frames, or one in all of a multi-frame object; and for each of
        their frames, the slice of the volume that it is.

    Raises:
        BadFile: the images are gone, lack their identifiers, or lie in several multi-frame files.
        BadInput: the volume is not on the grid of a DICOM series.
    """
    source = volume.source
    if source is None or source.format != "dicom" or source.grid != volume.grid or "frames" not in source.header:
        raise BadInput(
            "DICOM results refer to the DICOM images they were made from, but this scan is no DICOM series"
            f"{f' ({source.path})' if source and source.path else ''}.\n"
            "  Predict the DICOM folder itself, or write NIfTI, NRRD or MHA."
        )
    files: dict[Path, list[int]] = {}
    for k, (file, _) in enumerate(source.header["frames"]):
        files.setdefault(file, []).append(k)
    read = {file: frames_of(file) for file in files}
    parted = [file for file, (_, frames) in read.items() if len(frames) > 1 or _is_enhanced(read[file][0])]
    if not parted:
        pairs = [(read[file][0], read[file][1][0]) for file in files]
        return [_single(h, f, volume.grid, next(iter(files))) for h, f in pairs], np.arange(len(files))
    if len(files) > 1:
        raise BadFile(
            parted[0].parent,
            f"holds a series of {len(files)} multi-frame files, to which no single segmentation can refer",
            "Write NIfTI, NRRD or MHA, or export the series as single frames.",
        )
    header, frames = read[parted[0]]
    slices = {index: k for k, (_, index) in enumerate(source.header["frames"])}
    order = np.array([slices[frame.index] for frame in frames])
    return [_multi(header, frames, volume.grid, parted[0])], order


def _is_enhanced(header: Header) -> bool:
    return "PerFrameFunctionalGroupsSequence" in header


def _single(header: Header, frame: Frame, grid: Grid, file: Path) -> Header:
    made = _common(header, file)
    made.ImagePositionPatient = decimals(frame.position)
    made.ImageOrientationPatient = _orientation(grid)
    _measure(made, grid)
    return made


def _multi(header: Header, frames: list[Frame], grid: Grid, file: Path) -> Header:
    from pydicom import Dataset

    made = _common(header, file)
    made.NumberOfFrames = len(frames)
    orientation, measures, shared = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = _orientation(grid)
    _measure(measures, grid)
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    made.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in frames:
        place, group = Dataset(), Dataset()
        place.ImagePositionPatient = decimals(frame.position)
        group.PlanePositionSequence = [place]
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = groups
    return made


def _common(header: Header, file: Path) -> Header:
    """Identity of the image, its patient and its study."""
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    made = Dataset()
    for name in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        if not header.get(name):
            raise BadFile(file, f"has no {name}, so nothing can refer to it", "Export the series again.")
        setattr(made, name, str(header[name].value))
    # Images without a frame of reference share none with any other series, but their slices share one.
    made.FrameOfReferenceUID = header.get("FrameOfReferenceUID") or generate_uid(
        entropy_srcs=[made.SeriesInstanceUID, "frame of reference"]
    )
    made.SpecificCharacterSet = UNICODE
    for name in _WHO:
        quietly(setattr, made, name, _text(header, name))
    for name in _IF_THERE:
        if name in header:
            setattr(made, name, header[name].value)
    if made.get("PatientIdentityRemoved") == "YES" and not {*_IF_THERE[1:]} & {*made.dir()}:
        made.DeidentificationMethod = "Not said by the images"
    made.Modality, made.SeriesNumber = str(header.get("Modality") or "OT"), int(header.get("SeriesNumber") or 0)
    made.Rows, made.Columns = int(header.Rows), int(header.Columns)
    return made


def _text(header: Header, name: str) -> str:
    """A value as text in Unicode; empty where it is missing, or is nothing that the standard allows there."""
    text = str(quietly(header.get, name) or "").strip()
    return text if name not in _VALID or _VALID[name].fullmatch(text) else ""


def _measure(made: Header, grid: Grid) -> None:
    """Every voxel is as thick as its slice is far from the next, whatever thickness the scanner names."""
    made.PixelSpacing = decimals(grid.spacing[1:])
    made.SliceThickness, made.SpacingBetweenSlices = decimals([grid.spacing[0]] * 2)


def _orientation(grid: Grid) -> list[Any]:
    return decimals([*grid.direction[2], *grid.direction[1]])


def decimals(values: Any) -> list[Any]:
    """Numbers as decimal strings of at most 16 characters, which is all the standard has room for."""
    from pydicom.valuerep import DSfloat

    return [DSfloat(float(value), auto_format=True) for value in values]

"""DICOM series with pydicom: slices in the order of their place in the patient, values in the unit they stand for.

Slices are sorted along the normal of the image plane, never by name or instance number; the step between them comes
from their positions, never from SliceThickness; the rescale of each slice is applied. What cannot be a regular volume
(gaps, duplicates, mixed sizes or orientations, a tilted gantry) is refused with the slice named, because a resampled
guess would move anatomy. Single-frame series and enhanced multi-frame objects are read alike.
"""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from attentus.errors import BadFile, MissingExtra
from attentus.types import Grid, Source, Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset as Header

T = TypeVar("T")

STEP_TOLERANCE = 0.02
"""Share of the slice step by which single steps may differ before a series counts as irregular."""
PLANE_TOLERANCE = 1e-4
"""Largest difference between direction cosines of slices that count as parallel."""
SAME_PLACE_MM = 1e-3
"""Slices closer than this are copies, echoes or time points of one another."""

_NOT_IMAGES = {
    "1.2.840.10008.5.1.4.1.1.66.4": "a DICOM segmentation (SEG)",
    "1.2.840.10008.5.1.4.1.1.66.7": "a DICOM segmentation (SEG)",
    "1.2.840.10008.5.1.4.1.1.481.3": "a set of DICOM contours (RTSTRUCT)",
    "1.2.840.10008.5.1.4.1.1.481.2": "a radiation dose (RTDOSE)",
    "1.2.840.10008.5.1.4.1.1.88.11": "a DICOM structured report",
    "1.2.840.10008.1.3.10": "a DICOMDIR index",
}

for _library in ("pydicom", "highdicom.base"):
    logging.getLogger(_library).setLevel(logging.ERROR)  # their warnings quote values, such as a patient's name

_MACROS = (
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
)
_EXPORT_AGAIN = "Export the series from the archive again, or leave it out."


@dataclass(frozen=True)
class Frame:
    """One slice: where its pixels are and where they lie in the patient."""

    file: Path
    index: int
    """Frame number in a multi-frame file, 0 otherwise."""
    size: tuple[int, int]
    """Rows, columns."""
    position: NDArray[np.float64]
    """(L, P, S) of the first pixel's centre, mm."""
    rows: NDArray[np.float64]
    """Unit vector along which the row index grows."""
    columns: NDArray[np.float64]
    """Unit vector along which the column index grows."""
    spacing: tuple[float, float]
    """Between rows and between columns, mm."""
    slope: float
    intercept: float
    number: int | None = None
    """InstanceNumber of the file; None if it has none."""

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector out of the image plane."""
        return np.cross(self.columns, self.rows)


@dataclass(frozen=True)
class Series:
    """The image files of one DICOM series, headers read, pixels not."""

    uid: str
    description: str
    modality: str
    files: tuple[Path, ...]
    frames: tuple[Frame, ...]
    thickness: float
    """SpacingBetweenSlices or SliceThickness; used for a single slice only, mm."""


def find_series(folder: Path) -> list[Series]:
    """All image series in a folder and its subfolders; files that are not DICOM images are passed over.

    Copies of a series in two folders are two series.

    Raises:
        BadFile: a file called .dcm is damaged, or an image lacks what places it in the patient.
    """
    headers: dict[tuple[Path, str], list[tuple[Path, Header]]] = {}
    for file, header in _images(folder):
        uid = str(header.get("SeriesInstanceUID", ""))
        headers.setdefault((file.parent, uid), []).append((file, header))
    return [_series(uid, members) for (_, uid), members in headers.items()]


def read_series(path: Path, series: str | None = None) -> Volume:
    """Read one series as a volume.

    Args:
        path: a folder (searched with its subfolders) or one DICOM file.
        series: SeriesInstanceUID, or a part of the series description, when the folder holds several.

    Returns:
        Volume (1, z, y, x) float32 on the grid as acquired, not yet canonical: z along the plane's normal. Its source
        names the file and frame of each slice, by which what is made from it refers to it.

    Raises:
        BadFile: no series, several series and none chosen, or one that is no regular volume; the message names
            the slice.
    """
    return load_series(_choose(path, [_single(path)] if path.is_file() else find_series(path), series), path)


def load_series(series: Series, path: Path | None = None) -> Volume:
    """Read the voxels of a series that was found.

    Args:
        series: from `find_series` or `joined`.
        path: what to name in messages; the folder of its first file by default.

    Returns:
        As `read_series`.

    Raises:
        BadFile: no regular volume, or pixels that cannot be read.
    """
    path = path or series.files[0].parent
    frames = _sorted(path, series)
    grid = _grid(path, series, frames)
    array = np.empty((1, *grid.shape), np.float32)
    for k, frame, pixels in _pixels(frames):
        array[0, k] = pixels * np.float32(frame.slope) + np.float32(frame.intercept)
    places = tuple((frame.file.absolute(), frame.index) for frame in frames)
    header = {"series_uid": series.uid, "modality": series.modality, "frames": places}
    return Volume(array, grid, Source(grid, path, "dicom", header=header))


def slices_of(path: Path) -> tuple[Grid, list[Frame]]:
    """The grid of a series, as `read_series` gives it, and its slices along z; pixels are not read.

    Raises:
        BadFile: as `read_series`.
    """
    _, frames, grid = _stack(path, None)
    return grid, frames


def series_in(file: Path, header: Header) -> Series:
    """What one file adds to its series.

    Args:
        file: an image.
        header: see `header_of`.

    Raises:
        BadFile: it lacks what places it in the patient.
    """
    return _series(str(header.get("SeriesInstanceUID", "")), [(file, header)])


def joined(parts: Sequence[Series]) -> Series:
    """One series from what its files add to it, wherever they lie."""
    files = tuple(file for part in parts for file in part.files)
    return replace(parts[0], files=files, frames=tuple(frame for part in parts for frame in part.frames))


def grid_of(series: Series) -> Grid:
    """The grid of a series, as `load_series` gives it; no pixels are read.

    Raises:
        BadFile: no regular volume.
    """
    folder = series.files[0].parent
    return _grid(folder, series, _sorted(folder, series))


def series_grid(folder: Path, uid: str) -> Grid | None:
    """The grid of the series of that UID in a folder and its subfolders; None when it is not there.

    Raises:
        BadFile: the series is no regular volume.
    """
    members = [(file, header) for file, header in _images(folder) if header.get("SeriesInstanceUID") == uid]
    if not members:
        return None
    return grid_of(_series(uid, members))


def holds_dicom(folder: Path) -> bool:
    """Whether a folder or one of its subfolders holds a DICOM file; stops at the first."""
    return any(is_dicom(p) for p in folder.rglob("*") if p.is_file() and not p.name.startswith("."))


def is_dicom(file: Path) -> bool:
    """Whether a file is DICOM by its preamble, or at least by its name."""
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM" or file.suffix.lower() == ".dcm"


def is_image(file: Path) -> bool:
    """Whether a DICOM file holds pixels of a scan, rather than a segmentation, contours or a report.

    Raises:
        BadFile: damaged.
    """
    header = header_of(file)
    return header is not None and shows_scan(header)


def _images(folder: Path) -> Iterable[tuple[Path, Header]]:
    """The files of a folder and its subfolders that hold DICOM images, with their headers."""
    for file in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        header = header_of(file)
        if header is not None and shows_scan(header):
            yield file, header


def shows_scan(header: Header) -> bool:
    """Whether a data set has pixels of a scan, rather than a segmentation, contours or a report."""
    return str(header.get("SOPClassUID", "")) not in _NOT_IMAGES and "Rows" in header


def frames_of(file: Path) -> tuple[Header, list[Frame]]:
    """The header of an image and the place of each of its frames.

    Raises:
        BadFile: damaged, gone, or without what places it in the patient.
    """
    header = header_of(file) if file.is_file() else None
    if header is None:
        raise BadFile(file, "is no longer the DICOM image that it was", "Put the series back and predict again.")
    return header, list(_frames(file, header))


def header_of(file: Path) -> Header | None:
    """The data set without pixels; None for a file that is no DICOM.

    Raises:
        BadFile: damaged, or called .dcm and no DICOM.
    """
    import pydicom

    try:
        return quietly(pydicom.dcmread, file, stop_before_pixels=True)
    except pydicom.errors.InvalidDicomError:
        if file.suffix.lower() != ".dcm":
            return None
        forced = quietly(pydicom.dcmread, file, stop_before_pixels=True, force=True)  # without the 128-byte preamble
        if "SOPClassUID" in forced:
            return forced
        raise BadFile(file, "is called .dcm but holds no DICOM data", "Copy it again or remove it.") from None
    except (EOFError, OSError, ValueError) as error:
        raise BadFile(file, f"is damaged DICOM ({error})", "Copy it from the archive again.") from error


def quietly(function: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call without the library's warnings about values that stray from the standard; what matters is checked here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


def _stack(path: Path, series: str | None) -> tuple[Series, list[Frame], Grid]:
    chosen = _choose(path, [_single(path)] if path.is_file() else find_series(path), series)
    frames = _sorted(path, chosen)
    return chosen, frames, _grid(path, chosen, frames)


def _single(file: Path) -> Series:
    header = header_of(file)
    what = _NOT_IMAGES.get(str(header.get("SOPClassUID", ""))) if header is not None else "no DICOM"
    if header is None or what or "Rows" not in header:
        raise BadFile(
            file,
            f"is {what or 'a DICOM object without an image'}, not an image series",
            "Name the folder of the image series; segmentations are read with read_labels, contours need converting.",
        )
    return _series(str(header.get("SeriesInstanceUID", "")), [(file, header)])


def _series(uid: str, members: list[tuple[Path, Header]]) -> Series:
    first = members[0][1]
    frames = tuple(frame for file, header in members for frame in _frames(file, header))
    between = first.get("SpacingBetweenSlices") or first.get("SliceThickness") or 1.0
    return Series(
        uid,
        str(first.get("SeriesDescription", "")),
        str(first.get("Modality", "")),
        tuple(file for file, _ in members),
        frames,
        float(between),
    )


def _frames(file: Path, header: Header) -> Iterable[Frame]:
    if int(header.get("SamplesPerPixel", 1)) != 1:
        raise BadFile(file, "is a colour picture, not a scan", "Leave secondary captures and photographs out.")
    if "PerFrameFunctionalGroupsSequence" not in header:
        yield _frame(file, 0, header, [header])
        return
    shared = list(header.get("SharedFunctionalGroupsSequence", []))[:1]
    for index, group in enumerate(header.PerFrameFunctionalGroupsSequence):
        yield _frame(file, index, header, _macros([group, *shared]))


def _macros(groups: Iterable[Header]) -> list[Header]:
    """The items that hold the placement and rescale of a frame, per-frame before shared."""
    return [group[name].value[0] for group in groups for name in _MACROS if name in group and group[name].value]


def _frame(file: Path, index: int, header: Header, places: list[Header]) -> Frame:
    def value(name: str, default: Any = None) -> Any:
        found = next(
            (place[name].value for place in places if name in place and place[name].value is not None), default
        )
        if found is None:
            raise BadFile(
                file,
                f"has no {name}, so its place in the patient is unknown",
                "Export the original axial images again; screenshots and reformats without a position cannot be used.",
            )
        return found

    cosines = np.array([float(v) for v in value("ImageOrientationPatient")]).reshape(2, 3)
    lengths = np.linalg.norm(cosines, axis=1)
    if (np.abs(lengths - 1) > 0.01).any() or abs(cosines[0] @ cosines[1]) > 0.01:
        raise BadFile(file, "has row and column directions that are not unit vectors at right angles", _EXPORT_AGAIN)
    spacing = [float(v) for v in value("PixelSpacing")]
    return Frame(
        file,
        index,
        (int(header.Rows), int(header.Columns)),
        np.array([float(v) for v in value("ImagePositionPatient")]),
        rows=cosines[1] / lengths[1],
        columns=cosines[0] / lengths[0],
        spacing=(spacing[0], spacing[1]),
        slope=float(value("RescaleSlope", 1.0)),
        intercept=float(value("RescaleIntercept", 0.0)),
        number=None if header.get("InstanceNumber") is None else int(header.InstanceNumber),
    )


def _choose(path: Path, found: list[Series], wanted: str | None) -> Series:
    if not found:
        raise BadFile(path, "holds no DICOM images", "Name the folder that holds the slices of one series.")
    chosen = [s for s in found if wanted is None or wanted == s.uid or wanted.lower() in s.description.lower()]
    if len(chosen) == 1:
        return chosen[0]
    listing = "\n".join(
        f"    {s.modality:<4} {len(s.frames):>4} slices  {s.description or '-':<28}  {s.uid}  {s.files[0].parent.name}/"
        for s in (chosen or found)
    )
    problem = f"holds {len(found)} series" if wanted is None else f"has {len(chosen)} series that match '{wanted}'"
    raise BadFile(
        path, f"{problem}:\n{listing}", "Name the folder of one series, or choose by UID or description (series=...)."
    )


def _sorted(path: Path, series: Series) -> list[Frame]:
    """Frames along the normal of the plane, after checking that they are parallel and of one size."""
    first = _usual(series.frames)
    for frame in series.frames:
        if frame.size != first.size or not np.allclose(frame.spacing, first.spacing, rtol=1e-3):
            raise BadFile(
                frame.file,
                f"has {_size(frame)} where {first.file.name} of the same series has {_size(first)}",
                "Separate the slices of different sizes into folders of their own.",
            )
        apart = max(np.abs(frame.rows - first.rows).max(), np.abs(frame.columns - first.columns).max())
        if apart > PLANE_TOLERANCE:
            raise BadFile(
                frame.file,
                f"lies in another plane than {first.file.name} of the same series (a scout or a second stack)",
                "Separate the slices of different orientation into folders of their own.",
            )
    frames = sorted(series.frames, key=lambda frame: float(frame.position @ first.normal))
    places = np.array([frame.position @ first.normal for frame in frames])
    for a, b, step in zip(frames, frames[1:], np.diff(places), strict=False):
        if step < SAME_PLACE_MM:
            raise BadFile(
                path,
                f"slices {_name(a)} and {_name(b)} lie at the same place",
                "Remove the copy; if the series holds several time points or echoes, give each a folder of its own.",
            )
    return frames


def _usual(frames: tuple[Frame, ...]) -> Frame:
    """A frame of the size and plane that most share, so that the odd one out is the one that is named."""

    def look(frame: Frame) -> tuple[Any, ...]:
        return (*frame.size, *np.round([*frame.columns, *frame.rows], 2).tolist())

    (common, _), *_ = Counter(map(look, frames)).most_common(1)
    return next(frame for frame in frames if look(frame) == common)


def _grid(path: Path, series: Series, frames: list[Frame]) -> Grid:
    """The regular grid the sorted frames lie on."""
    first, last = frames[0], frames[-1]
    step = _step(path, frames) if len(frames) > 1 else series.thickness
    drift = (last.position - first.position) - ((last.position - first.position) @ first.normal) * first.normal
    if np.linalg.norm(drift) > 0.5 * min(first.spacing):
        angle = np.degrees(np.arctan2(np.linalg.norm(drift), (last.position - first.position) @ first.normal))
        raise BadFile(
            path,
            f"the stack is sheared by {angle:.1f} degrees between {_name(first)} and {_name(last)} (tilted gantry)",
            "Resample it onto a grid with right angles first, for example with dcm2niix, which corrects the tilt.",
        )
    return Grid(
        (len(frames), *first.size),
        (float(step), *first.spacing),
        tuple(float(v) for v in first.position),  # type: ignore[arg-type]
        tuple(tuple(float(v) for v in axis) for axis in (first.normal, first.rows, first.columns)),  # type: ignore[arg-type]
    )


def _step(path: Path, frames: list[Frame]) -> float:
    """Distance between neighbouring slices, after checking that it is the same all the way."""
    places = np.array([frame.position @ frames[0].normal for frame in frames])
    steps = np.diff(places)
    usual = float(np.median(steps))
    worst = int(np.argmax(np.abs(steps - usual)))
    if abs(steps[worst] - usual) <= max(STEP_TOLERANCE * usual, 0.01):
        return float((places[-1] - places[0]) / len(steps))
    missing = round(steps[worst] / usual) - 1
    gap = f": {missing} slice{'s' * (missing > 1)} missing" if missing > 0 else ""
    raise BadFile(
        path,
        f"{steps[worst]:.3f} mm lie between {_name(frames[worst])} and {_name(frames[worst + 1])}"
        f" where the usual step is {usual:.3f} mm{gap}",
        "Export the complete series again; a volume needs evenly spaced slices.",
    )


def _pixels(frames: list[Frame]) -> Iterable[tuple[int, Frame, NDArray[Any]]]:
    """Slice number, frame and stored pixel values (rows, columns); each file is opened once."""
    by_file: dict[Path, list[int]] = {}
    for k, frame in enumerate(frames):
        by_file.setdefault(frame.file, []).append(k)
    for file, numbers in by_file.items():
        array = _stored(file)
        for k in numbers:
            yield k, frames[k], (array[frames[k].index] if array.ndim == 3 else array).astype(np.float32)


def _stored(file: Path) -> NDArray[Any]:
    import pydicom

    try:
        header = quietly(pydicom.dcmread, file, force=True)
        pixels: NDArray[Any] = quietly(getattr, header, "pixel_array")
    except RuntimeError as error:
        if "missing dependencies" in str(error) or "plugin" in str(error):
            raise MissingExtra("python-gdcm", "dicom", f"Reading {file} (compressed pixels)") from None
        raise BadFile(file, f"has pixels that cannot be decoded ({error})", _EXPORT_AGAIN) from None
    except (EOFError, OSError, ValueError, AttributeError) as error:
        reason = str(error).split(". ")[0]
        raise BadFile(file, f"has incomplete or damaged pixels ({reason})", "Copy it from the archive again.") from None
    return pixels


def _name(frame: Frame) -> str:
    return f"{frame.file.name}[{frame.index}]" if frame.index else frame.file.name


def _size(frame: Frame) -> str:
    return f"{frame.size[0]} × {frame.size[1]} pixels of {frame.spacing[0]:.4g} × {frame.spacing[1]:.4g} mm"

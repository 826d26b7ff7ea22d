"""Files to Volumes and back. What a file is, is told by its content; what it becomes, by the name it is given."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadFile, BadInput
from attentus.io.annotation import compose
from attentus.io.atomic import replacing
from attentus.io.dicom import holds_dicom, read_series, slices_of
from attentus.io.dicom_seg import find_segmentations, is_segmentation, read_segment_labels
from attentus.io.itk import read_itk, write_itk
from attentus.io.nifti import nifti_bytes, nifti_grid, read_nifti, write_nifti
from attentus.io.picture import read_picture, read_stack, slice_files, write_png
from attentus.io.sniff import ending, sniff
from attentus.types import Annotation

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from numpy.typing import NDArray

    from attentus.types import Case, Grid, Volume

LABEL_TOLERANCE = 1e-3
"""How far a stored label may be from a whole number; scale factors in headers turn 1 into 0.99999997."""

PICTURES = ("png", "jpeg", "tiff", "bmp", "pictures")
"""Formats without geometry: neither millimetres nor left and right are known."""

_WRITERS = {".nii": write_nifti, ".nii.gz": write_nifti, ".nrrd": write_itk, ".mha": write_itk, ".png": write_png}


def read(path: str | PathLike[str], *, series: str | None = None, as_stored: bool = False) -> Volume:
    """Read an image: NIfTI, NRRD, MHA, GIPL, a DICOM series (folder or file), a picture or a folder of pictures.

    Args:
        path: file or folder.
        series: for a folder with several DICOM series, the UID or a part of the description of the wanted one.
        as_stored: keep the file's type of numbers, as a large CT in 16-bit integers takes half the memory.

    Returns:
        Volume of float32 (see `as_stored`), (C, z, y, x) in the canonical orientation. CT from DICOM is in HU.
        `Volume.as_stored()`, and `write`, give the voxels back on the file's own grid.

    Raises:
        BadFile: missing, empty, damaged, of no known kind, or no regular volume; the message says what to do.
    """
    kind = None if as_stored else np.float32
    volume = _read_stored(Path(path), series, kind).canonical()
    return volume.like(np.ascontiguousarray(volume.array, dtype=kind))


def read_labels(
    path: str | PathLike[str] | Annotation, *, segments: Sequence[int | str] | None = None, on: Grid | None = None
) -> Volume:
    """Read a label map, one integer per voxel; a DICOM segmentation (SEG) and an `Annotation` become one, too.

    Args:
        path: file or folder, or the annotation of a case. Of a folder that holds a SEG and the images it was drawn on,
            the SEG is read, on their grid; a SEG alone reaches from the first slice it stores to the last.
        segments: of a SEG, the numbers or labels of the wanted segments; None reads all.
        on: the grid of the scan that they belong to (`Volume.grid`). Labels of a part of it, as a SEG that leaves out
            slices without anything, are laid on all of it.

    Returns:
        Volume of uint8 (uint16 if a label exceeds 255), (1, z, y, x) in the canonical orientation. Values of a SEG are
        its segment numbers; `source.header["names"]` has their labels.

    Raises:
        BadFile: as `read`; also several channels, segments that overlap, or values that are no labels (fractions,
            negative, too large), as interpolation and lossy pictures leave them.
        BadInput: `segments` of something else, or segments that are not there.
        GridMismatch: the labels are not part of the grid they shall be on.
        MissingExtra: a SEG, and highdicom is not installed.
    """
    if on is not None:
        volume = read_labels(path, segments=segments)
        laid = volume.laid_on(on)
        if laid is not None:
            return laid
        on.require_match(volume.grid, str(path), "scan", "labels")
    if isinstance(path, Annotation):
        volume = compose(path, _read_stored)
        return volume.like(whole_numbers(volume.array, path.path))
    path = Path(path)
    if holds_segmentation(path):
        volume = read_segment_labels(path, segments).canonical()
        return volume.like(np.ascontiguousarray(volume.array))
    if segments is not None:
        raise BadInput(f"{path} is no DICOM segmentation; only these have segments to choose from.")
    volume = _read_stored(path).canonical()
    if volume.source is not None and volume.source.format == "jpeg":
        raise BadFile(path, "is a JPEG, which smears labels at every edge", "Export the labels again as PNG or NIfTI.")
    if volume.channels != 1:
        raise BadFile(
            path,
            f"has {volume.channels} channels where labels have one",
            "Give labels as one integer per voxel; overlapping structures need one file each.",
        )
    return volume.like(whole_numbers(volume.array, path))


def holds_segmentation(path: Path) -> bool:
    """Whether a path is a DICOM segmentation (SEG), or a folder with one."""
    if path.is_dir():
        return holds_dicom(path) and bool(find_segmentations(path))
    return sniff(path)[0] == "dicom" and is_segmentation(path)


def whole_numbers(array: NDArray[Any], what: str | PathLike[str] = "the array") -> NDArray[Any]:
    """Label values in the smallest type that holds them; not copied where they are in it, contiguous, already.

    Args:
        array: (..., z, y, x) of any number type.
        what: file or other name, for messages.

    Returns:
        uint8, or uint16 if a value exceeds 255; contiguous.

    Raises:
        BadFile: fractions, values below 0 or above 65535, or that are not finite.
    """
    array = array.view(np.uint8) if array.dtype == bool else array
    low, high = (float(v) for v in (array.min(), array.max()))
    if not (np.isfinite(low) and np.isfinite(high)):
        raise BadFile(what, "has labels that are not finite numbers", "Write the labels again as integers.")
    if round(low) < 0 or round(high) > np.iinfo(np.uint16).max:
        if _off(array).any():
            raise _fractions(what, array)
        raise BadFile(
            what,
            f"is no label map: its values run from {low:.6g} to {high:.6g}",
            "Labels are whole numbers from 0 to 65535; check whether image and labels are exchanged.",
        )
    smallest = np.uint8 if round(high) <= np.iinfo(np.uint8).max else np.uint16
    if array.dtype.kind != "f":
        return np.ascontiguousarray(array, dtype=smallest)
    labels = np.empty(array.shape, smallest)
    for index in np.ndindex(array.shape[:-2]):  # slice by slice: floats of a whole scan are not copied
        if _off(array[index]).any():
            raise _fractions(what, array)
        labels[index] = np.rint(array[index])
    return labels


def read_grid(path: str | PathLike[str]) -> Grid:
    """The canonical grid of an image, for NIfTI and DICOM from headers alone.

    Raises:
        BadFile: as `read`.
    """
    path = Path(path)
    if path.is_file():
        kind, compressed = sniff(path)
        if kind == "nifti":
            return nifti_grid(path, compressed=compressed).canonical()[1]
    elif holds_dicom(path):
        return slices_of(path)[0].canonical()[1]
    return read(path).grid


def has_geometry(path: str | PathLike[str]) -> bool:
    """Whether an image, a file or a folder, knows millimetres and orientation; pictures such as PNG do not.

    Raises:
        BadFile: missing, empty or of no known kind.
    """
    path = Path(path)
    return holds_dicom(path) if path.is_dir() else sniff(path)[0] not in PICTURES


def bytes_of(path: str | PathLike[str]) -> int:
    """Bytes that an image's voxels take in memory as stored: for NIfTI from the header, otherwise the files' size.

    Raises:
        BadFile: missing, empty, of no known kind, or NIfTI with a damaged header.
    """
    path = Path(path)
    if path.is_dir():
        return sum(file.stat().st_size for file in path.iterdir() if file.is_file())
    kind, compressed = sniff(path)
    return nifti_bytes(path, compressed=compressed) if kind == "nifti" else path.stat().st_size


def read_case(case: Case, *, as_stored: bool = False) -> Volume:
    """All channels of a case as one volume, in the order of `Case.images`; `as_stored` as in `read`.

    Raises:
        BadFile: as `read`; also a case without an image.
        GridMismatch: channels in separate files lie on different grids.
    """
    if not case.images:
        raise BadFile(
            str(case.label or case.id), f"case {case.id} has labels but no image", "Add the image or remove it."
        )
    volumes = [read(path, as_stored=as_stored) for path in case.images]
    for path, volume in zip(case.images[1:], volumes[1:], strict=True):
        volumes[0].grid.require_match(volume.grid, case.id, case.images[0].name, path.name)
    arrays = [volume.array for volume in volumes]
    return volumes[0].like(arrays[0] if len(arrays) == 1 else np.concatenate(arrays))


def write(volume: Volume, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write a volume on the grid of the file it came from (`Volume.as_stored`).

    Args:
        volume: image or labels.
        path: ends in .nii, .nii.gz, .nrrd, .mha or, for a single slice, .png. Missing folders are made.
        overwrite: whether an existing file may be replaced.

    Raises:
        BadFile: unknown ending, existing file, a place that cannot be written to.
    """
    writer = _WRITERS.get(ending(path))
    if Path(path).suffix.lower() == ".dcm":
        raise BadFile(
            path,
            "would be a DICOM segmentation, which has to name its structures",
            "Write a prediction with attentus.write_dicom(prediction, path), or this volume as NIfTI.",
        )
    if writer is None:
        raise BadFile(path, "has no ending that can be written", f"Use one of {', '.join(_WRITERS)}.")
    with replacing(path, overwrite=overwrite) as temporary:
        writer(volume.as_stored(), temporary)


def _read_stored(path: Path, series: str | None = None, dtype: type[np.float32] | None = None) -> Volume:
    """The volume as the file stores it: own orientation; own number type, or already the one it shall have."""
    volume = _read_folder(path, series) if path.is_dir() else _read_file(path, series, dtype)
    if volume.source is None or volume.source.dtype:
        return volume
    return replace(volume, source=replace(volume.source, dtype=str(volume.array.dtype)))


def _read_file(path: Path, series: str | None, dtype: type[np.float32] | None) -> Volume:
    kind, compressed = sniff(path)
    if kind == "nifti":
        return read_nifti(path, compressed=compressed, dtype=dtype)
    if kind == "dicom":
        return read_series(path, series)
    if kind in ("nrrd", "mha", "gipl"):
        return read_itk(path, kind)
    return read_picture(path, kind)


def _read_folder(path: Path, series: str | None) -> Volume:
    if holds_dicom(path):
        return read_series(path, series)
    if slice_files(path):
        return read_stack(path)
    raise BadFile(
        path,
        "is a folder without DICOM files or picture slices",
        "Name one image file in it; a folder of several scans is opened with attentus.Dataset.open.",
    )


def _off(array: NDArray[Any]) -> NDArray[np.bool_]:
    """Where values are no whole numbers."""
    off: NDArray[np.bool_] = np.abs(array - np.rint(array)) > LABEL_TOLERANCE
    return off


def _fractions(what: str | PathLike[str], array: NDArray[Any]) -> BadFile:
    off = _off(array)
    return BadFile(
        what,
        f"is no label map: {off.sum()} voxels hold fractions such as {float(array[off][0]):.4g}",
        "Labels were interpolated, or this is an image in the place of labels; resample labels with"
        " nearest neighbour, or exchange the files.",
    )

"""NRRD, MetaImage (.mha) and GIPL through SimpleITK, whose world frame (LPS, mm) is ours."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadFile, BadInput
from attentus.types import Grid, Source, Volume

if TYPE_CHECKING:
    from pathlib import Path

_IO = {"nrrd": "NrrdImageIO", "mha": "MetaImageIO", "gipl": "GiplImageIO"}


def read_itk(path: Path, kind: str) -> Volume:
    """Read a file as stored.

    Args:
        path: the file.
        kind: "nrrd", "mha" or "gipl", as `sniff` found.

    Returns:
        Volume with the file's own number type, (C, z, y, x), on the file's own grid, not yet canonical.

    Raises:
        BadFile: damaged, truncated, with complex numbers, or with an unusable geometry.
    """
    import SimpleITK as sitk

    try:
        image = sitk.ReadImage(str(path), imageIO=_IO[kind])
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: ")
        raise BadFile(path, f"is damaged {kind.upper()} ({reason})", "Copy or convert the file again.") from None
    array = sitk.GetArrayFromImage(image)
    if array.dtype.kind not in "iuf":
        raise BadFile(path, f"holds numbers of type {array.dtype}", "Save it as integers or floating point.")
    components = image.GetNumberOfComponentsPerPixel()
    array = np.moveaxis(array, -1, 0) if components > 1 else array[None]
    try:
        array, grid = _placed(array, image)
    except BadInput as error:
        raise BadFile(path, str(error), "Resample it onto a grid with right angles.") from None
    return Volume(array, grid, Source(grid, path, kind))


def itk_names(path: Path, kind: str) -> dict[str, tuple[int, ...]]:
    """Label name to value from the header of a segmentation that 3D Slicer wrote (.seg.nrrd)."""
    import SimpleITK as sitk

    reader = sitk.ImageFileReader()
    reader.SetImageIO(_IO[kind])
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return {}  # reading the voxels says what is wrong
    fields = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys()}
    names: dict[str, tuple[int, ...]] = {}
    for key in sorted(fields):
        value = fields.get(f"{key.removesuffix('_Name')}_LabelValue", "")
        if key.startswith("Segment") and key.endswith("_Name") and value.strip().isdigit():
            names[fields[key]] = (*names.get(fields[key], ()), int(value))
    return names


def write_itk(volume: Volume, path: Path) -> None:
    """Write .nrrd or .mha, compressed, on the volume's own grid; several channels become vector components."""
    import SimpleITK as sitk

    several = volume.channels > 1
    array = np.moveaxis(volume.array, 0, -1) if several else volume.array[0]
    image = sitk.GetImageFromArray(np.ascontiguousarray(array), isVector=several)
    image.SetSpacing(volume.grid.spacing[::-1])
    image.SetOrigin(volume.grid.origin)
    image.SetDirection(np.array(volume.grid.direction)[::-1].T.ravel().tolist())
    try:
        sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:
        raise OSError(errno.EIO, str(error).strip().splitlines()[-1]) from None


def _placed(array: Any, image: Any) -> tuple[Any, Grid]:
    """Array (C, z, y, x) and grid of an image with two, three or (channels on the last axis) four axes."""
    dims = image.GetDimension()
    spacing, origin = list(image.GetSpacing()), list(image.GetOrigin())
    direction = np.array(image.GetDirection()).reshape(dims, dims)
    if dims == 2:
        array, spacing, origin = array[:, None], [*spacing, 1.0], [*origin, 0.0]
        direction = np.block([[direction, np.zeros((2, 1))], [np.zeros((1, 2)), np.ones((1, 1))]])
    elif dims == 4 and len(array) == 1:
        array, spacing, origin, direction = array[0], spacing[:3], origin[:3], direction[:3, :3]
    elif dims != 3:
        raise BadInput(f"has {dims} axes and {len(array)} components")
    affine = np.eye(4)
    affine[:3, :3] = (direction * spacing)[:, ::-1]
    affine[:3, 3] = origin
    Grid.from_affine(array.shape[1:], affine)  # refuses what no grid can say; the exact numbers are kept below
    axes = tuple(tuple(float(v) for v in column) for column in direction.T[::-1])
    return array, Grid(tuple(array.shape[1:]), tuple(spacing[::-1]), tuple(origin), axes)  # type: ignore[arg-type]

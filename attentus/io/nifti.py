"""NIfTI-1 and NIfTI-2, read and written with nibabel; geometry survives a round trip bit for bit."""

from __future__ import annotations

import re
from contextlib import contextmanager
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.aside import Aside
from attentus.errors import AttentusError, BadFile, BadInput
from attentus.io.gz import DAMAGE, packing, unpacking
from attentus.io.sniff import broken_gzip, ending
from attentus.types import Grid, Source, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_TO_MM = {"meter": 1000.0, "micron": 0.001}
_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_XYZ_TO_ZYX = np.eye(4)[[2, 1, 0, 3]]

_LABEL_ENTRY = re.compile(r'<Label\s[^>]*?Key="(\d+)"[^>]*>\s*(?:<!\[CDATA\[)?([^<\]]+)')
"""An entry of the label table, XML that is read as text so that a file from elsewhere cannot make a parser do more."""

_GEOMETRY_FIELDS = (
    *("pixdim", "qform_code", "sform_code", "xyzt_units"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)
SLAB_BYTES = 1 << 20
"""Voxels are read about this many bytes at a time."""
DENSEST = 1032
"""No gzipped file unpacks to more than this many times its length."""


def read_nifti(path: Path, *, compressed: bool, dtype: type[np.float32] | None = None) -> Volume:
    """Read a file; channels may lie on the 4th or 5th axis, as RGB, or be absent.

    Voxels go slab by slab to where they belong, so that the file's content is never in memory twice.

    Args:
        path: the file.
        compressed: whether it is gzipped.
        dtype: number type of the voxels; None keeps the file's own, and takes float32 where scale factors apply.

    Returns:
        Volume (C, z, y, x) on the file's own grid, not yet canonical; in memory as the canonical orientation lies.

    Raises:
        BadFile: truncated, of an unusable number type or shape, or with an unusable geometry.
    """
    with _opened(path, compressed) as image:
        kind, shape = _number_type(path, image), _shape(path, image)
        if np.prod(shape, dtype=float) > path.stat().st_size * (DENSEST if compressed else 1):
            raise OSError("it is too short for the size that its header says")
        grid = _grid(path, shape[:0:-1], image)
        axes, turned = grid.canonical()
        array = axes.inverse.apply(np.empty((shape[0], *turned.shape), dtype or kind))
        _fill(array, image.dataobj)
        header = {name: np.array(image.header[name]) for name in _GEOMETRY_FIELDS}
        return Volume(array, grid, Source(grid, path, "nifti", str(kind), header))


def nifti_bytes(path: Path, *, compressed: bool) -> int:
    """What the voxels take in memory as `read_nifti` gives them, from the header alone."""
    with _opened(path, compressed) as image:
        return int(np.prod(_shape(path, image), dtype=np.int64)) * _number_type(path, image).itemsize


def nifti_grid(path: Path, *, compressed: bool) -> Grid:
    """The grid as stored, from the header alone."""
    with _opened(path, compressed) as image:
        return _grid(path, _shape(path, image)[:0:-1], image)


def nifti_names(path: Path, *, compressed: bool) -> dict[str, tuple[int, ...]]:
    """Label name to value from the table that Connectome Workbench and TotalSegmentator put behind the header."""
    names: dict[str, tuple[int, ...]] = {}
    with _opened(path, compressed) as image:
        for extension in image.header.extensions:
            content = extension.get_content()
            text = content.decode("utf-8", "replace") if isinstance(content, bytes) else str(content)
            for value, name in _LABEL_ENTRY.findall(text):
                names[name.strip()] = (*names.get(name.strip(), ()), int(value))
    return names


@contextmanager
def _opened(path: Path, compressed: bool) -> Iterator[Any]:  # noqa: FBT001
    """The image with its header read and its voxels not yet; what goes wrong inside names the file."""
    import nibabel as nib
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    try:
        with unpacking(path) if compressed else path.open("rb") as file:
            # From the open file, not by name: the name may promise a compression that is not there.
            head = file.read(348)
            file.seek(0)
            second = 540 in (int.from_bytes(head[:4], "little"), int.from_bytes(head[:4], "big"))
            if (head[4:6] if second else head[344:346]) != b"n+":
                raise BadFile(
                    path,
                    "is the header of a two-file NIfTI or an Analyze image",
                    "Convert the pair to one .nii.gz file.",
                )
            image = (nib.Nifti2Image if second else nib.Nifti1Image).from_stream(file)
            yield image
    except AttentusError:
        raise
    except DAMAGE:
        raise broken_gzip(path) from None
    except (OSError, ValueError, HeaderDataError, ImageFileError, WrapStructError) as error:
        raise BadFile(path, f"is damaged NIfTI ({error})", "Copy or convert the file again.") from error


def write_nifti(volume: Volume, path: Path) -> None:
    """Write a volume on its own grid; qform and sform as the source file had them when it was NIfTI too."""
    import nibabel as nib

    array = volume.array.transpose(3, 2, 1, 0)
    array = array[..., 0] if array.shape[-1] == 1 else array
    affine = _RAS_TO_LPS @ volume.grid.affine @ _XYZ_TO_ZYX
    image = nib.Nifti1Image(array, affine, dtype=array.dtype)
    image.set_qform(affine, 1)
    image.set_sform(affine, 1)
    image.header.set_xyzt_units("mm")
    if volume.source and volume.source.format == "nifti" and volume.source.grid == volume.grid:
        _repeat_geometry(image.header, volume.source.header)
    with packing(path) if ending(path) == ".nii.gz" else path.open("wb") as file:
        image.to_stream(file)


def _grid(path: Path, shape: Sequence[int], image: Any) -> Grid:
    affine = _RAS_TO_LPS @ image.affine @ _XYZ_TO_ZYX
    affine[:3] *= _TO_MM.get(image.header.get_xyzt_units()[0], 1.0)
    try:
        return Grid.from_affine(shape[::-1], affine)
    except BadInput as error:
        raise BadFile(path, str(error), "Write the file again with a valid qform or sform.") from None


def _number_type(path: Path, image: Any) -> np.dtype[Any]:
    """What voxels are read as: the file's own numbers, or what scale factors make of them."""
    stored = image.dataobj.dtype
    kind = stored[0] if stored.names else stored
    if kind.kind not in "iufb":
        raise BadFile(path, f"holds numbers of type {kind}", "Save it as integers or floating point.")
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1, 0)
    return np.dtype(np.float32) if scaled and kind.kind != "f" else kind.newbyteorder("=")


def _shape(path: Path, image: Any) -> tuple[int, int, int, int]:
    """(C, z, y, x) of whatever the file holds: 2D to 5D, RGB(A) records, trailing axes of length 1."""
    shape = image.shape
    if len(shape) < 2 or min(shape) < 1:
        raise BadFile(path, f"has shape {shape}", "An image has at least two axes, with something on each.")
    x, y, z = (*shape, 1)[:3]
    rest = [n for n in (*shape[3:], len(image.dataobj.dtype.names or " ")) if n > 1]
    if len(rest) > 1:
        raise BadFile(
            path,
            f"has shape {shape}: more than one axis beside x, y, z",
            "Save one file per time point, with channels on the fourth axis.",
        )
    return (rest or [1])[0], z, y, x


def _fill(array: NDArray[Any], stored: Any) -> None:
    """Put the voxels of an open file, nibabel's `dataobj`, into an array (C, z, y, x) of any layout.

    Raises:
        DAMAGE, OSError: the file ends early, or a checksum does not fit.
    """
    file, scaled = stored.file_like, (stored.slope, stored.inter) != (1, 0)
    channels, depth, height, width = array.shape
    rows = max(1, SLAB_BYTES // (height * width * stored.dtype.itemsize))
    buffers = cycle(np.empty((2, min(rows, depth), height, width), stored.dtype))
    file.seek(stored.offset)

    def put(slab: NDArray[Any], place: NDArray[Any], channel: int) -> None:
        if stored.dtype.names:
            for field, name in zip(place, stored.dtype.names, strict=True):
                field[...] = slab[name]
        else:
            place[channel] = slab * np.float64(stored.slope) + stored.inter if scaled else slab

    with Aside(1) as aside:  # while one buffer is put where it belongs, the other is read
        for channel in range(1 if stored.dtype.names else channels):
            for first in range(0, depth, rows):
                slab = next(buffers)[: depth - first]
                if file.readinto(slab.reshape(-1).view(np.uint8)) != slab.nbytes:
                    raise OSError("it holds fewer voxels than its header says")
                aside.do(put, slab, array[:, first : first + rows], channel)
    file.read(1)  # at the end, and only there, the checksum of a gzipped file is compared


def _repeat_geometry(header: Any, fields: Any) -> None:
    for name, value in fields.items():
        if name == "pixdim":
            header[name][:4] = value[:4]
        else:
            header[name] = value

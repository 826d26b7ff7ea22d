"""NIfTI-1 and NIfTI-2, read and written with nibabel; geometry survives a round trip bit for bit."""

from __future__ import annotations

import gzip
import re
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import AttentusError, BadFile, BadInput
from attentus.io.sniff import broken_gzip
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


def read_nifti(path: Path, *, compressed: bool) -> Volume:
    """Read a file as stored; channels may lie on the 4th or 5th axis, as RGB, or be absent.

    Returns:
        Volume with the file's own number type, (C, z, y, x), on the file's own grid, not yet canonical.

    Raises:
        BadFile: truncated, of an unusable number type or shape, or with an unusable geometry.
    """
    with _opened(path, compressed) as image:
        return _volume(path, np.asanyarray(image.dataobj), image)


def nifti_grid(path: Path, *, compressed: bool) -> Grid:
    """The grid as stored, from the header alone."""
    with _opened(path, compressed) as image:
        return _grid(path, (*image.shape, 1, 1)[:3], image)


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
        with gzip.open(path, "rb") if compressed else path.open("rb") as file:
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
    except (EOFError, zlib.error, gzip.BadGzipFile):
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
    nib.save(image, path)


def _volume(path: Path, array: NDArray[Any], image: Any) -> Volume:
    channels_last = _channels_last(path, array)
    grid = _grid(path, channels_last.shape[:3], image)
    header = {name: np.array(image.header[name]) for name in _GEOMETRY_FIELDS}
    return Volume(channels_last.transpose(3, 2, 1, 0), grid, Source(grid, path, "nifti", header=header))


def _grid(path: Path, shape: Sequence[int], image: Any) -> Grid:
    affine = _RAS_TO_LPS @ image.affine @ _XYZ_TO_ZYX
    affine[:3] *= _TO_MM.get(image.header.get_xyzt_units()[0], 1.0)
    try:
        return Grid.from_affine(shape[::-1], affine)
    except BadInput as error:
        raise BadFile(path, str(error), "Write the file again with a valid qform or sform.") from None


def _channels_last(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    """(x, y, z, C) from whatever the file holds: 2D to 5D, RGB(A) records, trailing axes of length 1."""
    if array.dtype.names:
        array = np.stack([array[name] for name in array.dtype.names], axis=-1)
    if array.dtype.kind not in "iufb":
        raise BadFile(path, f"holds numbers of type {array.dtype}", "Save it as integers or floating point.")
    if array.ndim < 2:
        raise BadFile(path, f"has {array.ndim} axis", "An image has at least two.")
    spatial = (*array.shape[:3], 1)[:3] if array.ndim == 2 else array.shape[:3]
    rest = [n for n in array.shape[3:] if n > 1]
    if len(rest) > 1:
        raise BadFile(
            path,
            f"has shape {array.shape}: more than one axis beside x, y, z",
            "Save one file per time point, with channels on the fourth axis.",
        )
    return array.reshape(*spatial, *(rest or [1]))


def _repeat_geometry(header: Any, fields: Any) -> None:
    for name, value in fields.items():
        if name == "pixdim":
            header[name][:4] = value[:4]
        else:
            header[name] = value

"""PNG, JPEG, TIFF and BMP: single slices, and folders of numbered slices that make up a volume.

Pictures carry no geometry. They are taken as axial slices seen the radiological way (rows from anterior to posterior,
columns from the patient's right to the left), 1 mm apart in every direction, until somebody says better.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadFile
from attentus.io.sniff import PICTURE_ENDINGS, ending
from attentus.types import Grid, Source, Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def read_picture(path: Path, kind: str) -> Volume:
    """One picture as a volume of one slice, (C, 1, y, x); grey has one channel, colour three.

    The pages of a TIFF are the slices of a volume.

    Raises:
        BadFile: the picture is damaged, or has pages of different sizes.
    """
    pages = _pages(path)
    if any(page.shape != pages[0].shape for page in pages):
        raise BadFile(path, "has pages of different sizes", "Slices of one volume have one size: save one file each.")
    array = np.stack(pages, axis=1)
    grid = Grid(tuple(array.shape[1:]), (1.0, 1.0, 1.0))
    return Volume(array, grid, Source(grid, path, kind))


def read_stack(folder: Path) -> Volume:
    """A folder of pictures of one size as one volume, slices in the order of the numbers in their names.

    Raises:
        BadFile: no pictures there, or pictures of different sizes.
    """
    files = slice_files(folder)
    if not files:
        raise BadFile(folder, "holds no pictures", "Name a folder with .png, .jpg, .tif or .bmp slices.")
    pages = [(file, page) for file in files for page in _pages(file)]
    first = pages[0][1].shape
    for file, page in pages:
        if page.shape != first:
            raise BadFile(
                file,
                f"has shape {page.shape} (channels, y, x) where {files[0].name} has {first}",
                "Slices of one volume have one size: move pictures of other volumes elsewhere.",
            )
    array = np.stack([page for _, page in pages], axis=1)
    grid = Grid(tuple(array.shape[1:]), (1.0, 1.0, 1.0))
    return Volume(array, grid, Source(grid, folder, "pictures"))


def write_png(volume: Volume, path: Path) -> None:
    """Write a single slice with one channel of whole numbers (0..65535) as PNG.

    Raises:
        BadFile: more than one slice or channel, or numbers that PNG cannot hold.
    """
    from PIL import Image

    array = volume.array
    if array.shape[0] != 1 or array.shape[1] != 1 or array.dtype not in (np.uint8, np.uint16):
        raise BadFile(
            path,
            f"PNG holds one slice of uint8 or uint16, not {array.shape} (C, z, y, x) of {array.dtype}",
            "Write volumes and images as .nii.gz, .nrrd or .mha.",
        )
    Image.fromarray(np.ascontiguousarray(array[0, 0])).save(path, format="PNG")


def slice_files(folder: Path) -> list[Path]:
    """The pictures in a folder, ordered by the numbers in their names (slice 2 before slice 10)."""
    files = [p for p in folder.iterdir() if ending(p) in PICTURE_ENDINGS and not p.name.startswith(".")]
    return sorted(files, key=by_number)


def by_number(path: Path) -> list[int | str]:
    """Key to sort file names as a person does: slice 2 before slice 10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _pages(path: Path) -> list[NDArray[Any]]:
    """Of each page of a TIFF, or of the one picture any other file holds: (C, y, x) in the file's own number type.

    Palettes give their index, 1-bit pictures 0 and 1, RGB without colour one channel; transparency is dropped.
    """
    from PIL import Image, ImageSequence, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            pages = [
                np.asarray(page) for page in (ImageSequence.Iterator(image) if image.format == "TIFF" else [image])
            ]
    except (OSError, UnidentifiedImageError, ValueError, SyntaxError) as error:
        raise BadFile(path, f"is a damaged picture ({error})", "Copy or export the picture again.") from None
    return [_channels(page) for page in pages]


def _channels(array: NDArray[Any]) -> NDArray[Any]:
    array = array.astype(np.uint8) if array.dtype == bool else array
    if array.ndim == 2:
        return array[None]
    colours = np.moveaxis(array, -1, 0)[:3]
    return colours[:1] if (colours == colours[:1]).all() else colours  # grey saved as RGB is grey

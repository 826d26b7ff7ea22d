"""One label map from an `Annotation`: masks painted over each other, grey codes, slices laid on those of a series."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadFile
from attentus.io.dicom import slices_of
from attentus.io.picture import by_number
from attentus.types import Source, Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from attentus.types import Annotation, Part


def compose(annotation: Annotation, read: Callable[[Path], Volume]) -> Volume:
    """Paint the parts of an annotation one over another.

    Args:
        annotation: which files, and what their values become.
        read: reads a file or folder as stored.

    Returns:
        Volume (1, z, y, x), canonical; uint16, or the number type of the file where values stay as they are.

    Raises:
        BadFile: as `read`; also several channels, or not one slice for each of the series drawn on.
        GridMismatch: parts lie on different grids.
    """
    place = _Slices(annotation) if annotation.drawn_on else None
    painted: Volume | None = None
    for part in annotation.parts:
        stored = read(part.path)
        if stored.channels != 1:
            raise BadFile(
                part.path, f"has {stored.channels} channels where labels have one", "Save it in grey, one file each."
            )
        volume = (place.lay(stored, part.path) if place else stored).canonical()
        if painted is None:
            painted = volume.like(_translated(volume.array, part))
            continue
        painted.grid.require_match(volume.grid, str(annotation), annotation.parts[0].path.name, part.path.name)
        array = _translated(volume.array, part)
        painted = painted.like(np.where(array > 0, array, painted.array))
    if painted is None:
        raise BadFile(annotation.path, "holds no labels", "Check that it was unpacked completely.")
    kind = painted.source.dtype if painted.source and len(annotation.parts) == 1 else ""
    source = Source(painted.source.grid if painted.source else painted.grid, annotation.path, "annotation", kind)
    return Volume(painted.array, painted.grid, source)


def _translated(array: NDArray[Any], part: Part) -> NDArray[Any]:
    """Stored values to labels."""
    if not part.values:
        return array
    labels = np.zeros(array.shape, np.uint16)
    for low, high, label in part.values:
        labels[(array >= low) & (array <= high)] = label
    return labels


class _Slices:
    """The slices of a DICOM series, on which others are laid in the order in which somebody numbered them."""

    def __init__(self, annotation: Annotation) -> None:
        self._series = Path(annotation.drawn_on or "")
        self.grid, frames = slices_of(self._series)
        numbers = [frame.number for frame in frames]
        if annotation.order == "name":
            keys: list[Any] = [by_number(frame.file) for frame in frames]
        elif None in numbers or len(set(numbers)) < len(numbers):
            raise BadFile(
                self._series,
                "has slices without an InstanceNumber of their own, so its labels cannot be laid on it",
                "Export the series again with its numbers.",
            )
        else:
            keys = numbers
        self._order = sorted(range(len(frames)), key=keys.__getitem__)
        """Index along z of the first slice, of the second, and so on."""

    def lay(self, stored: Volume, path: Path) -> Volume:
        """The voxels on the series' grid; NIfTI whose header puts it there already, as after a conversion, stays.

        Raises:
            BadFile: other numbers of slices, rows or columns.
        """
        source = stored.source or Source(stored.grid)
        if source.format == "nifti" and stored.grid.canonical()[1].matches(self.grid.canonical()[1]):
            return stored
        if stored.grid.shape != self.grid.shape:
            mine, theirs = (" × ".join(map(str, g.shape)) for g in (stored.grid, self.grid))
            raise BadFile(
                path,
                f"has {mine} voxels (slices × rows × columns) where its image {self._series.name} has {theirs}",
                "One of them is incomplete: unpack or download both again.",
            )
        array = np.empty_like(stored.array)
        array[:, self._order] = stored.array
        return Volume(array, self.grid, Source(self.grid, path, "annotation", source.dtype))

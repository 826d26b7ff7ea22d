"""DICOM segmentations (SEG) with highdicom: segments become label values, frames their slices, gaps background.

Most SEGs store only frames that hold something, so that their grid runs from the first to the last of them;
`Volume.laid_on` puts it on the grid of the scan it belongs to. (Ours keep the scan's first and last slice.) Binary,
fractional and label map objects are read. Segments may overlap, which one integer per voxel cannot say as such; see
`Layers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadFile, BadInput, MissingExtra, did_you_mean
from attentus.io.dicom import STEP_TOLERANCE, quietly, series_grid
from attentus.io.layers import Layers
from attentus.types import Grid, Source, Volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

THRESHOLD = 0.5
"""Fractional segments hold where they exceed this; segments whose fractions add up to 1 then never overlap."""

_SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")  # Segmentation, Label Map


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The segments of a SEG object."""

    volume: Volume
    """(1, z, y, x) as stored, not yet canonical; segment numbers, and numbers above them where segments overlap."""
    names: dict[str, tuple[int, ...]]
    """Segment label to the values its voxels hold; segments of the same label are one structure."""
    numbers: dict[int, tuple[int, ...]]
    """Segment number to the values its voxels hold."""
    overlaps: list[str]
    """Pairs of segments that share voxels."""


def is_segmentation(file: Path) -> bool:
    """Whether a file is a DICOM segmentation; its name does not matter."""
    header = _header(file, "SOPClassUID", "Modality")
    return str(header.get("SOPClassUID", "")) in _SEGMENTATIONS or header.get("Modality") == "SEG"


def find_segmentations(folder: Path) -> list[Path]:
    """The DICOM segmentations in a folder and its subfolders."""
    files = (p for p in sorted(folder.rglob("*")) if p.is_file() and not p.name.startswith("."))
    return [file for file in files if is_segmentation(file)]


def segment_names(file: Path) -> dict[str, tuple[int, ...]]:
    """Segment label to its numbers, from the header alone.

    Raises:
        BadFile: damaged.
    """
    names: dict[str, tuple[int, ...]] = {}
    for number, name in _segments(_header(file, "SegmentSequence")).items():
        names[name] = (*names.get(name, ()), number)
    return names


def read_segmentation(path: Path, segments: Sequence[int | str] | None = None) -> Segmentation:
    """Read the segments of a SEG object.

    Args:
        path: the file, or a folder that holds it and the images it was drawn on; the result then lies on their grid.
        segments: numbers or labels of the wanted segments; None reads all.

    Raises:
        BadFile: damaged, frames that make up no regular volume, or a folder with several.
        BadInput: no such segment.
        MissingExtra: highdicom is not installed.
    """
    file = _only(path) if path.is_dir() else path
    seg = _opened(file)
    wanted = _chosen(file, _segments(seg), segments)
    try:
        layers, affine = _layers(seg, wanted)
        grid = Grid.from_affine(layers.array.shape, affine)
    except (ValueError, RuntimeError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise BadFile(
            file, f"holds segments that make up no volume ({error})", "Export the segmentation again."
        ) from error
    values = {number: layers.values(number) for number in wanted}
    names: dict[str, tuple[int, ...]] = {}
    for number, name in wanted.items():
        names[name] = tuple(dict.fromkeys((*names.get(name, ()), *values[number])))
    source = Source(grid, file, "dicom-seg", str(layers.array.dtype), {"names": names})
    volume = Volume(layers.array[None], grid, source)
    volume = _on_its_images(path, seg, volume) if path.is_dir() else volume
    overlaps = [f"{a} ({wanted[a]}) with {b} ({wanted[b]})" for a, b in layers.overlaps]
    return Segmentation(volume, names, values, overlaps)


def read_segment_labels(path: Path, segments: Sequence[int | str] | None = None) -> Volume:
    """The segments as one label map, as stored.

    Raises:
        BadFile: as `read_segmentation`; also segments that overlap.
    """
    found = read_segmentation(path, segments)
    if found.overlaps:
        raise BadFile(
            path,
            f"has segments that overlap, which one label per voxel cannot hold: {'; '.join(found.overlaps)}",
            "Choose segments that do not: read_labels(..., segments=[...]) with numbers or labels. Scoring needs no"
            " choice.",
        )
    return found.volume


def _only(folder: Path) -> Path:
    files = find_segmentations(folder)
    if len(files) != 1:
        names = ", ".join(file.name for file in files)
        raise BadFile(folder, f"holds {len(files)} DICOM segmentations: {names}", "Name one of the files.")
    return files[0]


def _header(file: Path, *tags: str) -> Any:
    import pydicom

    try:
        return quietly(pydicom.dcmread, file, specific_tags=list(tags), stop_before_pixels=True, force=True)
    except (EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise BadFile(file, f"is damaged DICOM ({error})", "Copy it from the archive again.") from error


def _segments(header: Any) -> dict[int, str]:
    """Segment number to label; segment 0 of a label map is its background."""
    found = {int(s.SegmentNumber): str(s.get("SegmentLabel", "")) for s in header.get("SegmentSequence") or ()}
    return {number: name or f"segment {number}" for number, name in found.items() if number}


def _opened(file: Path) -> Any:
    try:
        from highdicom.seg import segread
    except ImportError:
        raise MissingExtra("highdicom", "dicom", f"Reading {file} (a DICOM segmentation)") from None
    try:
        return quietly(segread, file)
    except (EOFError, OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadFile(file, f"is a damaged or incomplete DICOM segmentation ({error})", "Export it again.") from error


def _chosen(file: Path, known: dict[int, str], segments: Sequence[int | str] | None) -> dict[int, str]:
    for wanted in segments or ():
        if wanted not in known and wanted not in known.values():
            listed = [f"{number} {name}" for number, name in known.items()]
            raise BadInput(f"{file} has no segment '{wanted}'.{did_you_mean(str(wanted), listed)}")
    return {n: name for n, name in known.items() if segments is None or n in segments or name in segments}


def _layers(seg: Any, wanted: dict[int, str]) -> tuple[Layers, NDArray[np.float64]]:
    """The segments, and the matrix from (z, y, x, 1) to (L, P, S, 1)."""
    if seg.segmentation_type.value == "LABELMAP":
        found = quietly(seg.get_volume, combine_segments=True, rtol=STEP_TOLERANCE)
        layers = Layers(found.array.shape, wanted)
        layers.array = np.where(np.isin(found.array, list(wanted)), found.array, 0).astype(layers.array.dtype)
        return layers, found.affine
    found = quietly(seg.get_volume_geometry, rtol=STEP_TOLERANCE)
    if found is None:
        raise ValueError("its frames are not parallel, evenly spaced slices of a patient")
    layers = Layers(found.spatial_shape, wanted)
    for number in wanted:  # one at a time, so that memory does not grow with the segments
        volume = quietly(seg.get_volume, segment_numbers=[number], rtol=STEP_TOLERANCE)
        layers.add(number, volume.array[..., 0] > THRESHOLD)
    return layers, found.affine


def _on_its_images(folder: Path, seg: Any, volume: Volume) -> Volume:
    """On the grid of the images the segments were drawn on, when these lie beside them."""
    for reference in seg.get("ReferencedSeriesSequence") or ():
        grid = series_grid(folder, str(reference.get("SeriesInstanceUID", "")))
        moved = volume.canonical().laid_on(grid.canonical()[1]) if grid else None
        if moved is not None:
            return moved
    return volume

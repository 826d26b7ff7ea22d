"""Contours of a DICOM RTSTRUCT, and the masks they enclose.

A voxel belongs to a structure when its centre lies inside an odd number of the closed contours of its plane: a hole is
a contour within another one, or a keyhole, an outline that is led inwards and back along the same line. Planes need not
be those of the image: a slice takes the contours of the nearest plane within half the distance at which planes follow
each other, so that structures outlined on every second slice, or on another series, are as thick as they were drawn.
A larger gap between planes stays a gap.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import BadFile
from attentus.io.dicom import quietly

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from attentus.types import Grid

RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
SAME_PLANE_MM = 0.1
"""Contours closer than this lie in one plane."""
MOST_SKIPPED = 3
"""Planes further apart than so many slices are separate pieces, not an outline with slices left out."""
TILT = 0.5
"""A contour that leaves its slice by more than this part of the slice step is not parallel to the slices."""

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")


@dataclass(frozen=True, eq=False)
class Structure:
    """One region of interest."""

    number: int
    name: str
    contours: tuple[NDArray[np.float64], ...]
    """Closed outlines, each (points, 3) in (L, P, S) mm; copies left out."""
    ignored: tuple[str, ...]
    """What else the structure has: points, open lines, copies, outlines of fewer than three points."""


def structure_names(header: Any) -> dict[int, str]:
    """Number to name of the structures that an RTSTRUCT lists.

    Args:
        header: the data set.
    """
    listed = header.get("StructureSetROISequence") or ()
    return {int(roi.ROINumber): str(roi.get("ROIName") or f"ROI {roi.ROINumber}").strip() for roi in listed}


def read_structures(file: Path, names: Sequence[str] | None = None) -> list[Structure]:
    """Read the structures of an RTSTRUCT.

    Args:
        file: the RTSTRUCT.
        names: those that are wanted; None reads all.

    Raises:
        BadFile: damaged, no RTSTRUCT, or with coordinates that are no numbers.
    """
    import pydicom

    try:
        header = quietly(pydicom.dcmread, file, force=True)
        if str(header.get("SOPClassUID", "")) != RTSTRUCT:
            raise BadFile(file, "is no RTSTRUCT", "Name the file with the contours.")
        known = structure_names(header)
        drawn: dict[int, list[Any]] = {number: [] for number in known}
        for roi in header.get("ROIContourSequence") or ():
            drawn.setdefault(int(roi.ReferencedROINumber), []).extend(roi.get("ContourSequence") or ())
        return [_structure(n, name, drawn[n]) for n, name in known.items() if names is None or name in names]
    except (EOFError, OSError, ValueError, AttributeError, TypeError) as error:
        if isinstance(error, BadFile):
            raise
        raise BadFile(file, f"is a damaged RTSTRUCT ({error})", "Export the contours again.") from error


def rasterise(structure: Structure, grid: Grid) -> NDArray[np.bool_]:
    """The mask that the contours of a structure enclose.

    Args:
        structure: what was drawn.
        grid: of the image, with z along the normal of the slices, as a DICOM series is stored.

    Returns:
        (z, y, x); all False where no contour comes near a slice.

    Raises:
        ValueError: a contour is not parallel to the slices of the grid.
    """
    mask = np.zeros(grid.shape, bool)
    planes = _planes(structure, grid)
    if not planes:
        return mask
    heights = np.array([height for height, _ in planes])
    reach = _thickness(heights) / 2
    for k in range(grid.shape[0]):
        off = k - heights
        near = np.where((off >= -reach - 1e-3) & (off < reach - 1e-3), np.abs(off), np.inf)
        if np.isfinite(near.min()):
            mask[k] = enclosed(planes[int(near.argmin())][1], grid.shape[1:])
    return mask


def enclosed(contours: Sequence[NDArray[np.float64]], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Pixels whose centres lie inside an odd number of polygons; each centre on an edge two share is in one of them.

    Row by row the places are noted where an edge crosses it, and counted from the left. Libraries that test every
    pixel against every corner need minutes for a body outline, and leave it open what happens on the edge.

    Args:
        contours: corners of each polygon, (n, 2) in (y, x), in pixels; the last is joined to the first.
        shape: (y, x).
    """
    height, width = shape
    crossings = np.zeros((height, width + 1), np.int32)
    for corners in contours:
        y, x = corners.T
        next_y, next_x = np.roll(corners, -1, axis=0).T
        first = np.clip(np.ceil(np.minimum(y, next_y)), 0, height).astype(int)
        last = np.clip(np.ceil(np.maximum(y, next_y)), 0, height).astype(int)  # half open: a corner counts once
        rows = last - first
        edge = np.repeat(np.arange(len(y)), rows)
        row = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows) + first[edge]
        share = (row - y[edge]) / (next_y[edge] - y[edge])
        column = np.ceil(x[edge] + share * (next_x[edge] - x[edge]))
        np.add.at(crossings, (row, np.clip(column, 0, width).astype(int)), 1)
    inside: NDArray[np.bool_] = np.cumsum(crossings[:, :width], axis=1) % 2 == 1
    return inside


def _structure(number: int, name: str, items: Sequence[Any]) -> Structure:
    contours: dict[bytes, NDArray[np.float64]] = {}
    ignored: Counter[str] = Counter()
    for item in items:
        kind = str(item.get("ContourGeometricType", ""))
        points = _points(item)
        key = np.round(points, 3).tobytes()
        if kind not in _CLOSED:
            ignored[kind.lower().replace("_", " ") or "contour of no kind"] += 1
        elif len(points) < 3:
            ignored["outline of fewer than 3 points"] += 1
        elif key in contours:  # twice the same would cancel out
            ignored["copy of an outline"] += 1
        else:
            contours[key] = points
    return Structure(number, name, tuple(contours.values()), tuple(f"{n} × {what}" for what, n in ignored.items()))


def _points(item: Any) -> NDArray[np.float64]:
    """Coordinates (n, 3), straight from the bytes where pydicom has not looked at them: half a million is common."""
    raw = item.get_item("ContourData")
    value = getattr(raw, "value", None)
    numbers = value.split(b"\\") if isinstance(value, bytes) else list(value or ())
    points = np.array([float(number) for number in numbers if number not in (b"", b" ")])
    if points.size % 3 or not np.isfinite(points).all():
        raise ValueError(f"a contour with {points.size} coordinates, which are not three for each point")
    return points.reshape(-1, 3)


def _planes(structure: Structure, grid: Grid) -> list[tuple[float, list[NDArray[np.float64]]]]:
    """Height in slices and outlines (y, x) of every plane, from the first slice on."""
    placed = []
    for contour in structure.contours:
        corners = np.round(grid.index(contour), 6)  # so that what lies on a voxel's centre does so exactly
        if np.ptp(corners[:, 0]) > TILT:
            raise ValueError("its contours are not parallel to the slices of the image")
        placed.append((float(np.median(corners[:, 0])), corners[:, 1:]))
    planes: list[tuple[float, list[NDArray[np.float64]]]] = []
    for height, corners in sorted(placed, key=lambda one: one[0]):
        if planes and (height - planes[-1][0]) * grid.spacing[0] < SAME_PLANE_MM:
            planes[-1][1].append(corners)
        else:
            planes.append((height, [corners]))
    return planes


def _thickness(heights: NDArray[np.float64]) -> float:
    """What a plane stands for, in slices: the usual distance of planes, but a slice at least."""
    steps = np.diff(heights)
    usual = float(np.median(steps)) if len(steps) > 1 else 1.0
    return max(usual, 1.0) if usual <= MOST_SKIPPED else 1.0

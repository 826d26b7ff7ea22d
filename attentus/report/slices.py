"""Slices of volumes the way a radiologist looks at them: planes, orientation letters, grey levels. NumPy only.

Volumes are canonical (z to the head, y to the back, x to the left), so an axial slice shows the patient's right on the
left and the front at the top; coronal and sagittal slices are turned head up, sagittal ones face left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attentus.io import PICTURES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from attentus.types import Grid, Volume

SOFT_TISSUE = (-160.0, 240.0)
"""Display range of CT, HU."""
AIR = -200.0
"""Values below this are taken for HU; MRI, PET and pictures have none."""
PERCENTILES = (1.0, 99.5)
"""Display range of everything whose values have no unit, percentiles of the scan."""
OBLIQUE = 0.34
"""An axis that leans by more than 20 degrees (sine) gets a second orientation letter."""


class Plane(NamedTuple):
    """A way to cut: the axis it stands on and the axes that become rows and columns, all in (z, y, x)."""

    name: str
    normal: int
    rows: int
    columns: int
    upward: bool
    """Whether rows are drawn from the last to the first, so that the head is up."""


AXIAL = Plane("axial", 0, 1, 2, upward=False)
CORONAL = Plane("coronal", 1, 0, 2, upward=True)
SAGITTAL = Plane("sagittal", 2, 0, 1, upward=True)


class Letters(NamedTuple):
    """Where the four borders of a picture lie in the patient, e.g. R L A P."""

    left: str
    right: str
    top: str
    bottom: str


class Range(NamedTuple):
    """Values shown as black and white, and how they were chosen."""

    low: float
    high: float
    words: str


def planes_of(shape: Sequence[int]) -> list[Plane]:
    """The planes worth showing: those with more than one voxel along both sides; axial if there is none."""
    wide = [plane for plane in (AXIAL, CORONAL, SAGITTAL) if min(shape[plane.rows], shape[plane.columns]) > 1]
    return wide or [AXIAL]


def cut(array: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
    """Slice number `index` of an array (z, y, x) as a picture (rows, columns), the first row at the top; a view."""
    picture: NDArray[Any] = np.moveaxis(array, plane.normal, 0)[index]
    return picture[::-1] if plane.upward else picture


def letters(grid: Grid, plane: Plane) -> Letters:
    """Orientation letters of a plane's borders; two letters where the scan lies oblique."""
    right, down = np.array(grid.direction[plane.columns]), np.array(grid.direction[plane.rows])
    down = -down if plane.upward else down
    return Letters(_pointing(-right), _pointing(right), _pointing(-down), _pointing(down))


def has_geometry(volume: Volume) -> bool:
    """Whether millimetres and orientation letters mean anything."""
    return volume.source is None or volume.source.format not in PICTURES


def fullest(labels: NDArray[np.integer], values: Iterable[int]) -> tuple[int, int, int]:
    """For each axis (z, y, x) the slice in which the structures are largest, each counting the same.

    Shares, not voxels, are added up: beside a liver, a tumour would count nothing. The middle where all is empty.
    """
    from scipy.ndimage import find_objects

    shares = [np.zeros(n) for n in labels.shape]
    boxes = dict(enumerate(find_objects(labels), start=1))
    for value, box in ((value, boxes.get(value)) for value in values):
        if box is None:
            continue
        mask = labels[box] == value
        for axis in range(3):
            areas = mask.sum(axis=tuple(other for other in range(3) if other != axis))
            shares[axis][box[axis]] += areas / areas.max()
    z, y, x = (int(share.argmax()) if share.any() else len(share) // 2 for share in shares)
    return z, y, x


def display_range(values: NDArray[Any], window: tuple[float, float] | None = None) -> Range:
    """Black and white for one channel of a scan: soft tissue where values look like HU, robust percentiles elsewhere.

    A recipe's own window is taken instead, if there is one. A background that fills much of the scan with the lowest
    value does not count (skull-stripped MRI).
    """
    if window is not None:
        return Range(*window, f"the recipe's window, {window[0]:.4g} to {window[1]:.4g}".replace("-", "−"))
    thinned = values[tuple(slice(None, None, max(1, n // 128)) for n in values.shape)]
    known = thinned[np.isfinite(thinned)]
    if not known.size:
        return Range(0.0, 1.0, "no finite value")
    if known.min() < AIR:
        low, high = SOFT_TISSUE
        return Range(low, high, f"window {low:.0f} to {high:.0f} HU".replace("-", "−"))
    inside = known[known > known.min()]
    low, high = (float(v) for v in np.percentile(inside if inside.size else known, PERCENTILES))
    if high <= low:
        low, high = float(known.min()), float(known.max())
    words = f"{low:.4g} to {high:.4g}, percentiles {PERCENTILES[0]:g} to {PERCENTILES[1]:g}".replace("-", "−")
    return Range(low, max(high, low + 1e-6), words)


def grey(picture: NDArray[Any], shown: Range) -> NDArray[np.uint8]:
    """Values to 0..255; not-a-number is black."""
    scaled = (np.asarray(picture, np.float64) - shown.low) / (shown.high - shown.low)
    return (np.nan_to_num(scaled, nan=0.0).clip(0, 1) * 255).round().astype(np.uint8)


def region(mask: NDArray[np.bool_], spacing: Sequence[float], margin: float, least: float) -> tuple[slice, ...]:
    """The part of a scan worth showing: the box of a mask with a margin, nothing cut off that fits.

    Args:
        mask: (z, y, x); all of the scan is shown where it is empty.
        spacing: mm.
        margin: around the box, mm.
        least: size of the part along every axis, mm, as far as the scan reaches.
    """
    parts = []
    for axis, (size, step) in enumerate(zip(mask.shape, spacing, strict=True)):
        found = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        first, last = (int(found[0]), int(found[-1]) + 1) if found.size else (0, size)
        around = max(margin / step, (least / step - (last - first)) / 2, 0)
        parts.append(slice(max(int(first - around), 0), min(int(np.ceil(last + around)), size)))
    return tuple(parts)


def _pointing(vector: NDArray[np.float64]) -> str:
    """Letters of the directions (L, P, S) a vector points to, the strongest first, at most two."""
    strongest = np.argsort(-np.abs(vector), kind="stable")[:2]
    chosen = [k for rank, k in enumerate(strongest) if rank == 0 or abs(vector[k]) > OBLIQUE]
    return "".join("LPS"[k] if vector[k] > 0 else "RAI"[k] for k in chosen)

"""The nouns that travel between rooms: Grid, Volume, Case, Prediction, Scores.

Conventions, everywhere: arrays are (C, z, y, x); spacing and sizes are (z, y, x) in mm; world coordinates are
(L, P, S) in mm, the patient frame of DICOM and ITK (x to the left, y to the back, z to the head). Readers convert on
the way in, writers on the way out, nobody between. In memory a volume lies in the canonical orientation: z runs from
inferior to superior, y from anterior to posterior, x from right to left, so `array[0, k]` is an axial slice as a
radiologist looks at it. `Volume.source` remembers how the file stored it, and `Volume.as_stored` is the exact way back.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field, replace
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from attentus.errors import BadInput, GridMismatch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

Triple = tuple[float, float, float]
Direction = tuple[Triple, Triple, Triple]

LPS: Direction = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""The canonical direction: array axes (z, y, x) point to (superior, posterior, left)."""

_CANONICAL_WORLD_AXIS = (2, 1, 0)  # canonical z, y, x lie along world S, P, L

OBLIQUE_COSINE = math.cos(math.radians(0.1))
"""Axes further than this from those of the patient make a grid oblique."""

IGNORE = 255
"""Class number of voxels that are not annotated: they neither train nor count."""


@dataclass(frozen=True)
class AxisMap:
    """A change of orientation without resampling: reorder the three spatial axes, then flip some of them."""

    order: tuple[int, int, int] = (0, 1, 2)
    """For each new axis, the old axis it comes from."""
    flip: tuple[bool, bool, bool] = (False, False, False)
    """For each new axis, whether it runs the other way."""

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """(..., z, y, x) in the old orientation to (..., z, y, x) in the new one; a view, nothing is copied."""
        lead = array.ndim - 3
        moved = array.transpose(*range(lead), *(lead + axis for axis in self.order))
        z, y, x = (slice(None, None, -1 if flipped else 1) for flipped in self.flip)
        return moved[..., z, y, x]

    @property
    def inverse(self) -> AxisMap:
        """The way back: `m.inverse.apply(m.apply(a))` is `a`."""
        back = tuple(self.order.index(axis) for axis in range(3))
        return AxisMap(back, tuple(self.flip[axis] for axis in back))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Grid:
    """Where the voxels of an array lie in the patient.

    The centre of voxel (z, y, x) is at `origin + z·spacing[0]·direction[0] + y·spacing[1]·direction[1] + ...`.
    """

    shape: tuple[int, int, int]
    """Voxels along (z, y, x)."""
    spacing: Triple
    """Distance between neighbouring voxel centres along (z, y, x), mm."""
    origin: Triple = (0.0, 0.0, 0.0)
    """World position (L, P, S) of the centre of voxel (0, 0, 0), mm."""
    direction: Direction = LPS
    """Three unit vectors in the world (L, P, S): where the array axes z, y and x point."""

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise BadInput(f"A grid has three sizes of at least 1, got {self.shape}.")
        if not all(math.isfinite(s) and s > 0 for s in self.spacing):
            raise BadInput(f"Spacing must be positive and finite, got {self.spacing} mm.")

    @classmethod
    def from_affine(cls, shape: Sequence[int], affine: NDArray[Any]) -> Grid:
        """From a 4x4 matrix that takes (z, y, x, 1) to (L, P, S, 1).

        Raises:
            BadInput: the matrix is not finite, singular, or sheared by more than 0.1 degrees (axes not at right
                angles), which no toolkit of the field represents.
        """
        axes = np.asarray(affine, float)[:3, :3].T
        spacing = np.linalg.norm(axes, axis=1)
        if not np.isfinite(affine).all() or (spacing <= 0).any():
            raise BadInput("the geometry in the header is not a usable matrix (zero, infinite or not a number)")
        direction = axes / spacing[:, None]
        skew = np.abs(direction @ direction.T - np.eye(3)).max()
        if skew > math.sin(math.radians(0.1)):
            raise BadInput(
                f"the voxel axes are sheared (angles off by {math.degrees(math.asin(min(skew, 1.0))):.2f} degrees)"
            )
        return cls(
            tuple(int(n) for n in shape),  # type: ignore[arg-type]
            _triple(spacing),
            _triple(np.asarray(affine, float)[:3, 3]),
            (_triple(direction[0]), _triple(direction[1]), _triple(direction[2])),
        )

    @property
    def affine(self) -> NDArray[np.float64]:
        """4x4 matrix that takes (z, y, x, 1) to (L, P, S, 1)."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.array(self.direction).T * np.array(self.spacing)
        matrix[:3, 3] = self.origin
        return matrix

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, millilitres."""
        return math.prod(self.spacing) / 1000.0

    @property
    def size_mm(self) -> Triple:
        """Field of view along (z, y, x), mm."""
        return _triple([n * s for n, s in zip(self.shape, self.spacing, strict=True)])

    @property
    def orientation(self) -> str:
        """Where the axes (z, y, x) point, one letter each of L/R, P/A, S/I; canonical grids say 'SPL'."""
        letters = []
        for axis in self.direction:
            world = int(np.argmax(np.abs(axis)))
            letters.append("LPS"[world] if axis[world] >= 0 else "RAI"[world])
        return "".join(letters)

    def world(self, index: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
        """World position (..., 3) in (L, P, S) mm of voxel indices (..., 3) in (z, y, x)."""
        return np.asarray(index, float) @ self.affine[:3, :3].T + self.origin

    def index(self, world: Sequence[float] | NDArray[Any]) -> NDArray[np.float64]:
        """Voxel indices (..., 3) in (z, y, x), fractional, of world positions (..., 3) in (L, P, S) mm."""
        return (np.asarray(world, float) - self.origin) @ np.linalg.inv(self.affine[:3, :3]).T

    def canonical(self) -> tuple[AxisMap, Grid]:
        """The axis change that brings this grid closest to the canonical orientation, and the grid it leads to."""
        closeness = np.round(np.abs(self.direction), 6)  # rounded, so that twins with float noise agree on ties
        order = max(permutations(range(3)), key=lambda o: closeness[list(o), list(_CANONICAL_WORLD_AXIS)].sum())
        flip = tuple(self.direction[order[i]][_CANONICAL_WORLD_AXIS[i]] < 0 for i in range(3))
        axes = AxisMap(order, flip)  # type: ignore[arg-type]
        return axes, self.reoriented(axes)

    def reoriented(self, axes: AxisMap) -> Grid:
        """The same voxels in the same places, counted along other axes."""
        first = [0.0, 0.0, 0.0]
        for flipped, old in zip(axes.flip, axes.order, strict=True):
            first[old] = self.shape[old] - 1 if flipped else 0.0
        direction = tuple(
            _triple(np.array(self.direction[old]) * (-1 if flipped else 1) + 0.0)
            for flipped, old in zip(axes.flip, axes.order, strict=True)
        )
        return Grid(
            tuple(self.shape[old] for old in axes.order),  # type: ignore[arg-type]
            tuple(self.spacing[old] for old in axes.order),  # type: ignore[arg-type]
            _triple(self.world(first)),
            direction,  # type: ignore[arg-type]
        )

    def cropped(self, start: Sequence[int], stop: Sequence[int]) -> Grid:
        """The grid of `array[..., start[0]:stop[0], ...]`; negative starts and far stops mean padding."""
        shape = tuple(int(b - a) for a, b in zip(start, stop, strict=True))
        return Grid(shape, self.spacing, _triple(self.world(start)), self.direction)  # type: ignore[arg-type]

    def resampled(self, spacing: Sequence[float]) -> Grid:
        """A grid of another spacing over the same field of view (outer edges of the first and last voxel kept).

        The number of voxels is rounded, so the spacing that results is the nearest one that fills the field of view
        exactly; it is what `Grid.spacing` of the result says.
        """
        shape = tuple(max(1, round(n * s / new)) for n, s, new in zip(self.shape, self.spacing, spacing, strict=True))
        exact = _triple([size / n for size, n in zip(self.size_mm, shape, strict=True)])
        shift = [(new / old - 1) / 2 for new, old in zip(exact, self.spacing, strict=True)]
        return Grid(shape, exact, _triple(self.world(shift)), self.direction)  # type: ignore[arg-type]

    def distance_mm(self, other: Grid) -> float:
        """How far apart the same corner voxels of two grids of one shape lie at most, mm; inf if shapes differ."""
        if self.shape != other.shape:
            return math.inf
        corners = np.array([[z, y, x] for z in (0, 1) for y in (0, 1) for x in (0, 1)]) * (np.array(self.shape) - 1)
        # The outer half voxel counts too: grids one voxel thick may share centres and differ in spacing.
        spread = np.abs(np.array(self.spacing) - other.spacing).max() / 2
        return float(max(np.linalg.norm(self.world(corners) - other.world(corners), axis=1).max(), spread))

    def matches(self, other: Grid) -> bool:
        """Whether both describe the same voxels: equal shapes and no corner off by more than a tenth of a voxel."""
        return self.distance_mm(other) <= 0.1 * min(*self.spacing, *other.spacing)

    def offset_of(self, part: Grid) -> tuple[int, int, int] | None:
        """Where voxel (0, 0, 0) of a smaller grid lies in this one; None unless its voxels are some of this grid's.

        The spacing along an axis of a single voxel does not matter: one slice has no step.
        """
        steps = [s if n == 1 else t for n, s, t in zip(part.shape, self.spacing, part.spacing, strict=True)]
        alike = replace(part, spacing=_triple(steps))
        start = [round(float(v)) for v in self.index(part.origin)]
        stop = [first + n for first, n in zip(start, part.shape, strict=True)]
        inside = all(a >= 0 and b <= n for a, b, n in zip(start, stop, self.shape, strict=True))
        z, y, x = start
        return (z, y, x) if inside and self.cropped(start, stop).matches(alike) else None

    def require_match(
        self, other: Grid, what: str, mine: str = "image", theirs: str = "labels", fix: str | None = None
    ) -> None:
        """Raise GridMismatch, with both geometries and the remedy, unless `matches`."""
        if self.matches(other):
            return
        width = max(len(mine), len(theirs))
        apart = self.distance_mm(other)
        how = f"Corresponding corners lie up to {apart:.2f} mm apart." if math.isfinite(apart) else "The shapes differ."
        lines = [
            f"{what}: {mine} and {theirs} lie on different grids.",
            f"  {mine:<{width}}  {self.describe()}",
            f"  {theirs:<{width}}  {other.describe()}",
            f"  {how}",
            f"  {fix or f'Resample the {theirs} onto the {mine} if they show the same place, or leave this case out.'}",
        ]
        raise GridMismatch("\n".join(lines))

    def describe(self) -> str:
        """Shape, spacing, origin and orientation in one line, all in (z, y, x) order but the origin (L, P, S).

        Oblique grids also say where each axis points, as a unit vector (L, P, S).
        """
        shape = " × ".join(str(n) for n in self.shape)
        spacing = " × ".join(f"{s:.4g}" for s in self.spacing)
        origin = ", ".join(f"{o:.2f}" for o in self.origin)
        line = f"{shape} voxels, {spacing} mm, origin ({origin}) mm, axes {self.orientation}"
        if np.abs(self.direction).max(axis=1).min() > OBLIQUE_COSINE:
            return line
        vectors = (
            f"{name} ({', '.join(f'{v:.4f}' for v in axis)})" for name, axis in zip("zyx", self.direction, strict=True)
        )
        return f"{line}, pointing {' '.join(vectors)}"


@dataclass(frozen=True)
class Source:
    """Where a volume came from and how the file stored it, so that results can be written the same way."""

    grid: Grid
    """The grid as stored, before it was brought to the canonical orientation."""
    path: Path | None = None
    """File, or folder of a DICOM series."""
    format: str = "array"
    """What the file was: "nifti", "nrrd", "dicom", "png", ..., or "array"."""
    dtype: str = ""
    """Number type of the stored values, scale factors applied."""
    header: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """What the writer of the same format needs to repeat the geometry bit for bit; never patient data."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels with their place in the patient. Images hold float32, labels uint8 or uint16."""

    array: NDArray[Any]
    """(C, z, y, x)."""
    grid: Grid
    source: Source | None = None

    def __post_init__(self) -> None:
        if self.array.ndim != 4:
            raise BadInput(
                f"A volume's array has four axes (C, z, y, x), got shape {self.array.shape}."
                " For a single channel pass array[None]; for a 2D image array[None, None]."
            )
        if tuple(self.array.shape[1:]) != self.grid.shape:
            raise BadInput(f"The array has shape {self.array.shape[1:]} (z, y, x) but its grid says {self.grid.shape}.")

    @classmethod
    def from_array(cls, array: NDArray[Any], spacing: Sequence[float] = (1.0, 1.0, 1.0)) -> Volume:
        """A volume from voxels alone: (z, y, x) or (C, z, y, x), taken to be in the canonical orientation already.

        Args:
            array: the voxels.
            spacing: (z, y, x), mm.
        """
        array = np.asarray(array)
        array = array[None] if array.ndim == 3 else array
        if array.ndim != 4:
            raise BadInput(f"Expected (z, y, x) or (C, z, y, x), got an array of shape {array.shape}.")
        return cls(array, Grid(tuple(array.shape[1:]), _triple(spacing)))

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.array.shape[0])

    def like(self, array: NDArray[Any]) -> Volume:
        """Other voxels (C, z, y, x) in the same place, with the same way back to the file's own grid."""
        return replace(self, array=array)

    def canonical(self) -> Volume:
        """The same voxels in the canonical orientation; a view. Remembers the present grid as the stored one."""
        axes, grid = self.grid.canonical()
        source = self.source or Source(self.grid)
        return Volume(axes.apply(self.array), grid, source)

    def laid_on(self, grid: Grid) -> Volume | None:
        """The same voxels on a larger grid with 0 around them; None unless they are some of that grid's voxels."""
        start = grid.offset_of(self.grid)
        if start is None:
            return None
        if grid.shape == self.grid.shape:
            return replace(self, grid=grid)
        array = np.zeros((self.channels, *grid.shape), self.array.dtype)
        z, y, x = (slice(a, a + n) for a, n in zip(start, self.grid.shape, strict=True))
        array[:, z, y, x] = self.array
        return Volume(array, grid, self.source)

    def as_stored(self) -> Volume:
        """The same voxels on the grid of the file they came from, geometry bit for bit; a view.

        A volume without a source, or one that was moved to another grid since, is returned as it is.
        """
        if self.source is None:
            return self
        axes, grid = self.source.grid.canonical()
        if grid != self.grid:
            return self
        return Volume(axes.inverse.apply(self.array), self.source.grid, self.source)


@dataclass(frozen=True)
class Part:
    """Some of the labels of a case, and what its values become."""

    path: Path
    """A label file, a DICOM series of a mask, or a folder of picture slices."""
    values: tuple[tuple[int, int, int], ...] = ()
    """(lowest, highest, label): values in a range become a label, others background. Empty: values are labels."""

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read."""
        if not self.path.is_dir():
            return (self.path,)
        return tuple(sorted(p for p in self.path.rglob("*") if p.is_file() and not p.name.startswith(".")))


@dataclass(frozen=True)
class Annotation:
    """Labels that are not one file of labels: masks one by one, grey codes, slices that do not say where they lie."""

    parts: tuple[Part, ...]
    """Painted one over another, the last on top."""
    drawn_on: Path | None = None
    """The DICOM series to whose slices those of the parts belong, one by one; None where the parts say themselves
    where they lie in the patient."""
    order: Literal["name", "number"] = "name"
    """Of the slices of that series: by file name, as a person sorts (2 before 10), or by InstanceNumber."""

    @property
    def path(self) -> Path:
        """The file, or the folder that holds all parts; for messages."""
        first, *others = (part.path for part in self.parts)
        return Path(os.path.commonpath([first, *others])) if others else first

    @property
    def files(self) -> tuple[Path, ...]:
        """What is read of the labels themselves."""
        return tuple(file for part in self.parts for file in part.files)

    def absolute(self) -> Annotation:
        """The same with paths that mean the same everywhere."""
        parts = tuple(replace(part, path=part.path.absolute()) for part in self.parts)
        return replace(self, parts=parts, drawn_on=self.drawn_on and self.drawn_on.absolute())

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Case:
    """One examination: files, not voxels. `attentus.io.read` and `read_labels` turn them into volumes."""

    id: str
    images: tuple[Path, ...]
    """One file or DICOM folder with all channels, or one per channel in the order of `Dataset.channels`."""
    label: Path | Annotation | None = None
    """What `attentus.io.read_labels` reads."""
    subject: str = ""
    """Who was scanned: cases of one subject never part in a split. Defaults to the id."""

    def __post_init__(self) -> None:
        if not self.subject:
            object.__setattr__(self, "subject", self.id)


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model says about one scan, on the scan's own place in the patient."""

    labels: Volume
    """(1, z, y, x), one integer per structure as named in `names`; `attentus.write` puts it on the file's own grid."""
    names: Mapping[str, int]
    """Structure to integer; 0 is background."""
    probabilities: Volume | None = None
    """(1 + structures, z, y, x) float16, background first, when asked for; regions come without background."""
    attention: Mapping[str, Volume] = field(default_factory=dict)
    """Attention coefficients by module name, (maps, z, y, x) float16, when asked for."""
    parts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Structure to all integers that its voxels hold, where that is more than its own: a region that holds others."""
    removed_ml: Mapping[str, float] = field(default_factory=dict)
    """What post-processing took from structures, millilitres; those that lost nothing are left out."""
    added_ml: Mapping[str, float] = field(default_factory=dict)
    """What it gave to structures, millilitres."""
    model: str = ""
    seconds: float = 0.0
    """Wall time from the volume in memory to the labels."""
    level: float | None = None
    """With early exit: the level of the head that answered, mean over the windows."""
    notes: tuple[str, ...] = ()
    """Why a person should look at it before it is used, e.g. a cascade whose first stage found nothing."""


class Score(NamedTuple):
    """One measured number."""

    case: str
    structure: str
    metric: str
    value: float
    """Fraction, mm or ml as `unit` says; nan or inf where the rules give no number."""
    unit: str
    note: str = ""
    """Why the value is not a number, or was set by the empty-mask rule."""


@dataclass(frozen=True)
class Scores:
    """Measurements of a cohort, with the rules they were made by."""

    rows: tuple[Score, ...]
    rules: Mapping[str, str]
    """Name of each convention and the choice made: empty masks, border, connectivity, percentile."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Case id to message for cases that could not be scored."""

    def __iter__(self) -> Iterator[Score]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def cases(self) -> list[str]:
        """Scored cases, in order of first appearance."""
        return list(dict.fromkeys(row.case for row in self.rows))

    @property
    def structures(self) -> list[str]:
        """Scored structures, in order of first appearance."""
        return list(dict.fromkeys(row.structure for row in self.rows))

    @property
    def metrics(self) -> list[str]:
        """Metrics, in order of first appearance."""
        return list(dict.fromkeys(row.metric for row in self.rows))

    def select(self, *, case: str | None = None, structure: str | None = None, metric: str | None = None) -> Scores:
        """The rows that agree with every given name."""
        wanted = (case, structure, metric)
        rows = tuple(row for row in self.rows if all(w in (None, g) for w, g in zip(wanted, row[:3], strict=True)))
        return replace(self, rows=rows)

    def value(self, case: str, structure: str, metric: str) -> float:
        """One number.

        Raises:
            BadInput: no such row.
        """
        rows = self.select(case=case, structure=structure, metric=metric).rows
        if not rows:
            raise BadInput(f"No score of metric '{metric}' for structure '{structure}' of case '{case}'.")
        return rows[0].value

    def mean(self, metric: str, structure: str | None = None) -> float:
        """Mean over the finite values of a metric, over all structures or one; nan when there is none."""
        values = [r.value for r in self.select(structure=structure, metric=metric) if math.isfinite(r.value)]
        return float(np.mean(values)) if values else math.nan


def _triple(values: Sequence[float] | NDArray[Any]) -> Triple:
    z, y, x = (float(v) for v in values)
    return z, y, x

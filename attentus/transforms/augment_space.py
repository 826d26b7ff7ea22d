"""Where the voxels of an augmented patch come from: one resampling for turning, scaling, shifting and bending.

PyTorch interpolates in volumes on a CPU one voxel at a time, but in pictures with the processor's vector units. So a
volume is laid out as a picture of its slices, side by side; every place is looked up in its slice and in the next one,
and the two are mixed. That is linear interpolation all the same, at places true to a thousandth of a voxel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 2**16
"""Voxels moved at once on a CPU."""


@dataclass(frozen=True, eq=False)
class Move:
    """Where one patch looks: a voxel at offset p from the middle shows what lies at `matrix` (p + bend(p)) + `shift`.

    Args:
        matrix: dims x dims, from offsets in the result to offsets in the source, voxels.
        shift: dims, voxels.
        bend: (dims, *lattice) displacements of control points, voxels; without elements if nothing is bent.
        lattice: voxels between control points, per axis.
    """

    matrix: list[list[float]]
    shift: list[float]
    bend: Tensor
    lattice: list[float]

    @property
    def flips(self) -> list[int] | None:
        """Axes to mirror, if that and whole steps are all there is to do."""
        dims = len(self.shift)
        plain = all(abs(self.matrix[i][j]) == (i == j) for i in range(dims) for j in range(dims))
        if self.bend.numel() or not plain or any(step % 1 for step in self.shift):
            return None
        return [axis for axis in range(dims) if self.matrix[axis][axis] < 0]

    @property
    def keeps_slices(self) -> bool:
        """Whether every slice of the result is parallel to the slices of the source."""
        first_row, first_column = self.matrix[0][1:], [row[0] for row in self.matrix[1:]]
        return len(self.shift) == 3 and not self.bend.numel() and not any(first_row + first_column)


def move(image: Tensor, labels: Tensor, how: Move, to: tuple[Tensor, Tensor]) -> None:
    """One patch: cut and mirror where that is all there is to do, otherwise one interpolation.

    Args:
        image: (C, *source); sampled linearly.
        labels: (*source); the nearest voxel is taken.
        how: where to look.
        to: image (C, *patch) and labels (*patch) to fill.
    """
    flips, source, patch = how.flips, labels.shape, to[1].shape
    starts = [(full - n) // 2 + int(step) for full, n, step in zip(source, patch, how.shift, strict=True)]
    inside = all(0 <= start <= full - n for start, full, n in zip(starts, source, patch, strict=True))
    if flips is not None and inside:
        window = tuple(slice(start, start + n) for start, n in zip(starts, patch, strict=True))
        _mirror(image[(slice(None), *window)], flips, to[0])
        _mirror(labels[window][None], flips, to[1][None])
    elif how.keeps_slices:
        _in_slices(image, labels, how, to)
    elif len(patch) == 3:
        _in_volume(image, labels, how, to)
    else:
        y, x = _Places.of(how, patch, source, image.device).at()
        to[0].copy_(_in_picture(image, y, x))
        to[1].copy_(_nearest(labels, (y, x)))


def _mirror(given: Tensor, flips: list[int], to: Tensor) -> None:
    """Copy (C, *patch), mirrored along some axes of the patch; some rows at a time, as `flip` needs memory."""
    if not flips:
        to.copy_(given)
        return
    axes, n = [1 + axis for axis in flips], given.shape[1]
    for rows in _parts(given.shape[1:], given.device):
        theirs = slice(n - rows.stop, n - rows.start) if 0 in flips else rows
        to[:, rows] = given[:, theirs].flip(axes)


def _parts(patch: Sequence[int], device: torch.device) -> list[slice]:
    """Rows of the first axis to work on at once, so that what is in between stays in the processor's cache."""
    n = patch[0]
    several = max(AT_ONCE // math.prod(patch[1:]), 1) if device.type == "cpu" else n
    return [slice(first, min(first + several, n)) for first in range(0, n, several)]


@dataclass(frozen=True, eq=False)
class _Places:
    """For each axis of the source, the index at which each voxel of the result looks; the edge repeats outside.

    Args:
        first: per axis of the source, what the first axis of the result adds, (n,).
        rest: what the others add, (*rest).
        last: per axis of the source, its last index.
        weights: (n, lattice) of the bend's control points along the first axis.
        bend: (dims, lattice, voxels of rest) displacements there, in the source; no elements if nothing is bent.
    """

    first: list[Tensor]
    rest: list[Tensor]
    last: list[int]
    weights: Tensor
    bend: Tensor

    @classmethod
    def of(cls, how: Move, patch: Sequence[int], source: Sequence[int], device: torch.device) -> _Places:
        dims = len(patch)
        offsets = [torch.arange(n, device=device) - (n - 1) / 2 for n in patch]
        first = [
            offsets[0] * row[0] + (step + (full - 1) / 2)
            for row, step, full in zip(how.matrix, how.shift, source, strict=True)
        ]
        rest = [torch.zeros((), device=device) for _ in range(dims)]
        for axis in range(1, dims):
            rest = [part[..., None] + offsets[axis] * row[axis] for part, row in zip(rest, how.matrix, strict=True)]
        weights = bend = torch.empty(0, device=device)
        if how.bend.numel():
            weights = bspline(patch[0], how.lattice[0], how.bend.shape[1]).to(device)
            bend = _bend_inside(how, patch, device)
        return cls(first, rest, [full - 1 for full in source], weights, bend)

    def at(self, rows: slice = slice(None)) -> list[Tensor]:
        """Those of some rows of the result."""
        outer = [1] * self.rest[0].ndim
        places = [along[rows].view(-1, *outer) + rest for along, rest in zip(self.first, self.rest, strict=True)]
        if self.bend.numel():
            for place, bend in zip(places, self.weights[rows] @ self.bend, strict=True):
                place.add_(bend.view(place.shape))
        return [place.clamp_(0, last) for place, last in zip(places, self.last, strict=True)]


def _bend_inside(how: Move, patch: Sequence[int], device: torch.device) -> Tensor:
    """A cubic B-spline through the turned control points, on all axes but the first; see `_Places.bend`."""
    bend = torch.tensordot(torch.tensor(how.matrix), how.bend, 1).to(device)
    for axis in reversed(range(1, len(patch))):
        points = how.bend.shape[1 + axis]
        weights = bspline(patch[axis], how.lattice[axis], points).to(device)
        bend = weights @ bend.reshape(-1, points, math.prod(patch[axis + 1 :]))
    inside: Tensor = bend.view(len(patch), how.bend.shape[1], -1)
    return inside


def control_points(n: int, step: float) -> int:
    """How many control points, `step` voxels apart, it takes to bend n voxels."""
    return math.ceil(n / step) + 3


def bspline(n: int, step: float, points: int) -> Tensor:
    """(n, points) weights of cubic B-splines around control points `step` voxels apart, the lattice centred on n."""
    at = (torch.arange(n) - (n - 1) / 2) / step + (points - 1) / 2
    distance = (at[:, None] - torch.arange(points)).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    return torch.where(distance < 1, near, (2 - distance).clamp_min(0) ** 3 / 6)


def _nearest(labels: Tensor, places: Sequence[Tensor]) -> Tensor:
    """The voxels next to the places, which may have to be broadcast to the size of the result."""
    index: Tensor | None = None
    for place, full in zip(places, labels.shape, strict=True):
        whole = place.round().int()
        index = whole if index is None else index * full + whole
    assert index is not None  # noqa: S101 (for the type checker: there are axes)
    return labels.reshape(-1).index_select(0, index.view(-1)).view(index.shape)


def _in_picture(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """(C, H, W) sampled linearly at (h, w) places."""
    grid = torch.empty(2, *y.shape, device=image.device)
    for place, full, scaled in ((x, image.shape[-1], grid[0]), (y, image.shape[-2], grid[1])):
        torch.mul(place, 2 / max(full - 1, 1), out=scaled).sub_(1)  # -1 to 1 from the first centre to the last
    options = {"mode": "bilinear", "padding_mode": "border", "align_corners": True}
    sampled: Tensor = F.grid_sample(image[None], grid.permute(1, 2, 0)[None], **options)[0]  # type: ignore[arg-type]
    return sampled


def _in_slices(image: Tensor, labels: Tensor, how: Move, to: tuple[Tensor, Tensor]) -> None:
    """The slices of the result out of those of the source, then all of them sampled alike as channels of a picture."""
    device, patch = image.device, to[1].shape
    depth = Move([how.matrix[0][:1]], how.shift[:1], how.bend, how.lattice)
    plane = Move([row[1:] for row in how.matrix[1:]], how.shift[1:], how.bend, how.lattice)
    (z,) = _Places.of(depth, patch[:1], labels.shape[:1], device).at()
    y, x = _Places.of(plane, patch[1:], labels.shape[1:], device).at()
    lower, part = _below(z, labels.shape[0])
    slices = image.index_select(1, lower.int())
    if part.any():
        upper = (lower + 1).clamp_(max=labels.shape[0] - 1).int()
        slices.lerp_(image.index_select(1, upper), part[:, None, None])
    to[0].copy_(_in_picture(slices.flatten(0, 1), y, x).view(to[0].shape))
    to[1].copy_(_nearest(labels, [z[:, None, None], y, x]))


def _in_volume(image: Tensor, labels: Tensor, how: Move, to: tuple[Tensor, Tensor]) -> None:
    """Slices laid out as a picture."""
    looked_up = _Places.of(how, to[1].shape, labels.shape, image.device)
    pairs = [slice(k, k + 2) for k in range(0, len(image), 2)]  # of more channels together too little fits in the cache
    tiles = [_Tiles.lay(image[pair]) for pair in pairs]
    for rows in _parts(to[1].shape, image.device):
        places = looked_up.at(rows)
        to[1][rows] = _nearest(labels, places)
        for pair, part in zip(pairs, tiles, strict=True):
            part.sample(places, out=to[0][pair, rows])


@dataclass(frozen=True, eq=False)
class _Tiles:
    """The slices of a volume side by side in a picture.

    Args:
        picture: (2 C, H, W) views: of the C channels, then of the same one slice later.
        across: slices side by side.
        size: (C, D, H, W) of the volume.
    """

    picture: Tensor
    across: int
    size: torch.Size

    @classmethod
    def lay(cls, image: Tensor) -> _Tiles:
        """Lay out (C, D, H, W). Slices go on in the next row, which begins with the last one of the row above."""
        channels, depth, height, width = image.shape
        across = max(round(math.sqrt(depth * height / (width * channels))), 1)
        rows = max(-(-(depth - 1) // across), 1)
        laid = image.new_zeros(rows, height, across + 1, channels, width)
        for row in range(rows):
            slices = image[:, row * across : (row + 1) * across + 1]
            laid[row, :, : slices.shape[1]] = slices.permute(2, 1, 0, 3)
        size = (2 * channels, rows * height, (across - 1) * channels * width + width)
        return cls(laid.as_strided(size, (width, (across + 1) * channels * width, 1)), across, image.shape)

    def sample(self, places: Sequence[Tensor], out: Tensor) -> None:
        """Look up (d, h, w) places; (C, d, h, w)."""
        (z, y, x), (channels, depth, height, width) = places, self.size
        lower, part = _below(z, depth)
        row = ((lower + 0.5) * (1 / self.across)).floor_()
        y, column = torch.add(y, row, alpha=height), lower.sub_(row, alpha=self.across)
        x = torch.add(x, column, alpha=channels * width)
        both = _in_picture(self.picture, y.flatten(0, 1), x.flatten(0, 1)).view(2, *out.shape)
        torch.lerp(both[0], both[1], part, out=out)


def _below(place: Tensor, full: int) -> tuple[Tensor, Tensor]:
    """The slice below each place, one that has a next one where there are two, and the share of that next one."""
    lower = place.floor().clamp_(max=max(full - 2, 0))
    return lower, place - lower

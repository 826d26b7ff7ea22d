"""Random changes to batches of patches: drawn in one place, recorded, applied deterministically on CPU or GPU.

`draw` makes all random decisions from a generator; `apply` only computes. The same `Drawn` gives the same result
again, on any batch of the same size, so an augmentation can be replayed and looked at. `augment_space` does what
moves voxels, `augment_values` what changes their values.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, fields
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from attentus.errors import BadInput
from attentus.transforms import augment_values as values
from attentus.transforms.augment_space import Move, control_points, move

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from attentus.recipes import Augment

AXES = "zyx"


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was decided for each of N patches: nothing but tensors whose first axis is the patch, on the CPU.

    So `safetensors.torch.save_file(vars(drawn), path)` keeps it and `Drawn(**load_file(path))` brings it back.
    """

    matrix: Tensor
    """(N, dims, dims): from offsets in the result to offsets in the source, both in voxels from the centre."""
    shift: Tensor
    """(N, dims): then moved by this many voxels; axes in array order."""
    bend: Tensor
    """(N, dims, *lattice): displacements of control points before all that, voxels; no elements: nothing is bent."""
    lattice: Tensor
    """(N, dims): voxels between control points."""
    blur: Tensor
    """(N, dims): standard deviation of the Gaussian, voxels."""
    low_resolution: Tensor
    """(N, dims): share of the voxels kept."""
    contrast: Tensor
    """(N,): factor on the deviation from the mean."""
    brightness: Tensor
    """(N,): added."""
    gamma: Tensor
    """(N,): exponent on the values scaled to 0..1."""
    mirrored: Tensor
    """(N,) bool: whether 0..1 runs from the largest value to the smallest for that."""
    noise: Tensor
    """(N,): standard deviation of the noise."""
    noise_seed: Tensor
    """(N,) int64."""

    def pick(self, patches: Sequence[int]) -> Drawn:
        """What was decided for some of the patches, in this order."""
        return Drawn(**{name: value[list(patches)] for name, value in vars(self).items()})

    def record(self) -> dict[str, Any]:
        """All of it as numbers in lists, for JSON; exact."""
        return {name: value.tolist() for name, value in vars(self).items()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Drawn:
        """What `record` wrote.

        Raises:
            BadInput: something is missing or unknown.
        """
        names = {field.name for field in fields(cls)}
        if set(record) != names:
            wrong = ", ".join(sorted(names ^ set(record)))
            raise BadInput(f"This is no record of an augmentation of this version: see {wrong}. Draw it again.")
        parts = {name: _tensor(name, record[name]) for name in names}
        if not parts["bend"].numel():  # lists do not tell the size of nothing
            parts["bend"] = _no_bend(*parts["shift"].shape)
        return cls(**parts)


def source_size(patch: Sequence[int], how: Augment, spacing: Sequence[float]) -> tuple[int, ...]:
    """Size of the region to cut so that turned, shrunk, bent and shifted patches find real voxels in their corners.

    Limited to 1.5 times the patch, beyond which the edge is repeated; room for a random crop comes on top.

    Args:
        patch: size of the result, voxels.
        how: the recipe's `augment` section.
        spacing: of the voxels, mm, so that turning stays turning where they are not cubes.
    """
    full = np.array(patch, float)
    reach = full + 2 * how.bend / np.array(spacing) if how.elastic else full
    if how.affine:
        corners = reach * np.array(list(product((-1, 1), repeat=len(patch))))
        turns = [_rotation((np.array(signs) * how.rotate).tolist(), spacing) for signs in product((-1, 0, 1), repeat=3)]
        zoom = how.scale[0] * how.stretch[0]
        reach = np.max([abs(corners @ turn.T).max(0) for turn in turns], axis=0) / zoom + 2 * how.shift * full
    reach = np.minimum(reach, 1.5 * full).round(3)  # what is too small to see needs no further voxel
    return tuple(int(n) + 2 * int(how.crop * own) for n, own in zip(np.ceil(reach), patch, strict=True))


def draw(
    how: Augment, patches: int, patch: Sequence[int], spacing: Sequence[float], generator: torch.Generator
) -> Drawn:
    """Decide everything random for a batch.

    Args:
        how: the recipe's `augment` section.
        patches: N.
        patch: size of the result, voxels.
        spacing: of the voxels, mm.
        generator: source of randomness, on the CPU.
    """
    seeds = torch.randint(2**62, (patches,), generator=generator).tolist()
    each = [_decide(how, patch, spacing, random.Random(seed)) for seed in seeds]
    decided = {name: _tensor(name, [one[name] for one in each]) for name in each[0]}
    mm = torch.tensor([float(s) for s in spacing])
    bend = _no_bend(patches, len(patch))
    if how.elastic:
        points = [control_points(n, how.bend_grid / s) for n, s in zip(patch, spacing, strict=True)]
        directions = 2 * torch.rand(patches, len(patch), *points, generator=generator) - 1
        strength = decided["strength"][:, None] / mm
        bend = directions * strength.view(*strength.shape, *[1] * len(patch))
    del decided["strength"]
    return Drawn(bend=bend, lattice=(how.bend_grid / mm).repeat(patches, 1), **decided)


def apply(images: Tensor, labels: Tensor, drawn: Drawn, patch: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Carry out what was drawn: move, then blur, low resolution, contrast and brightness, gamma, noise.

    Args:
        images: (N, C, *source) float32, at least as large as the patch.
        labels: (N, *source) integers.
        drawn: the decisions.
        patch: size of the result.

    Returns:
        Images (N, C, *patch) and labels (N, *patch), the centre of the source after the change.
    """
    changed = images.new_empty(*images.shape[:2], *patch)
    followed = labels.new_empty(len(labels), *patch)
    numbers = {name: value.tolist() for name, value in vars(drawn).items() if name != "bend"}
    for n in range(len(images)):
        one, image = {name: value[n] for name, value in numbers.items()}, changed[n]
        bend = drawn.bend[n] if drawn.bend[n].any() else torch.empty(0)
        how = Move(one["matrix"], one["shift"], bend, one["lattice"])
        move(images[n], labels[n], how, (image, followed[n]))
        _revalue(image, one)
    return changed, followed


def _revalue(image: Tensor, one: Mapping[str, Any]) -> None:
    """What changes the values of one patch, in place, each only if it was drawn."""
    if any(one["blur"]):
        image.copy_(values.blur(image, one["blur"]))
    if min(one["low_resolution"]) < 1:
        image.copy_(values.low_resolution(image, one["low_resolution"]))
    if one["contrast"] != 1 or one["brightness"]:
        values.contrast_(image, one["contrast"], one["brightness"])
    if one["gamma"] != 1:
        values.gamma_(image, one["gamma"], mirrored=one["mirrored"])
    if one["noise"]:
        values.noise_(image, one["noise"], one["noise_seed"])


def _decide(how: Augment, patch: Sequence[int], spacing: Sequence[float], rng: random.Random) -> dict[str, Any]:
    """For one patch, all but where the control points go: of them, how far."""

    def within(limits: tuple[float, float], probability: float, neutral: float) -> float:
        return rng.uniform(*limits) if rng.random() < probability else neutral

    matrix, shift = _decide_affine(how, patch, spacing, rng)
    sigma = within(how.blur, how.probability("blur"), 0.0)
    kept = within(how.low_resolution, how.probability("low_resolution"), 1.0)
    return {
        "matrix": matrix,
        "shift": shift,
        "strength": within((0, how.bend), how.elastic, 0.0),
        "blur": [sigma * min(spacing) / s for s in spacing],
        "low_resolution": [min(kept * s / min(spacing), 1.0) for s in spacing],
        "contrast": within(how.contrast, how.probability("contrast"), 1.0),
        "brightness": within((-how.brightness, how.brightness), how.probability("brightness"), 0.0),
        "gamma": within(how.gamma, how.probability("gamma"), 1.0),
        "mirrored": rng.random() < how.gamma_mirrored,
        "noise": within((0, how.noise), how.probability("noise"), 0.0),
        "noise_seed": rng.getrandbits(31),
    }


def _decide_affine(
    how: Augment, patch: Sequence[int], spacing: Sequence[float], rng: random.Random
) -> tuple[list[list[float]], list[float]]:
    """Matrix and shift: turning, zoom, mirroring, and cutting off the centre."""
    dims = len(patch)
    matrix, shift = np.eye(dims), np.zeros(dims)
    if rng.random() < how.affine:
        scale, stretch = rng.uniform(*how.scale), [rng.uniform(*how.stretch) for _ in patch]
        matrix = _rotation([rng.uniform(-angle, angle) for angle in how.rotate], spacing) / (scale * np.array(stretch))
        shift = np.array([rng.uniform(-how.shift, how.shift) * n for n in patch])
    mirrored = [axis in how.flip and rng.random() < 0.5 for axis in AXES[-dims:]]
    matrix[mirrored] *= -1
    room = [int(how.crop * n) for n in patch]
    return matrix.tolist(), [float(s) + rng.randint(-n, n) for s, n in zip(shift, room, strict=True)]


def _tensor(name: str, numbers: Sequence[Any]) -> Tensor:
    kind = {"mirrored": np.bool_, "noise_seed": np.int64}.get(name, np.float32)
    return torch.from_numpy(np.array(numbers, kind))  # faster than torch.tensor


def _no_bend(patches: int, dims: int) -> Tensor:
    return torch.zeros(patches, dims, *[0] * dims)


def _rotation(degrees: Sequence[float], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Rotation about z, then y, then x, for offsets in voxels, array order; two spacings mean 2D, about z only."""
    z, y, x = np.deg2rad(degrees)
    dims = len(spacing)
    turned = _turn(z, 1, 2) if dims == 2 else _turn(z, 1, 2) @ _turn(y, 0, 2) @ _turn(x, 0, 1)
    mm = np.array(spacing)
    matrix: NDArray[np.float64] = turned[-dims:, -dims:] * mm / mm[:, None]
    return matrix


def _turn(angle: float, first: int, second: int) -> NDArray[np.float64]:
    """3x3 rotation in the plane of two axes."""
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix

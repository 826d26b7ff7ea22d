"""Random changes to batches of patches: drawn in one place, recorded, applied deterministically on CPU or GPU.

`draw` makes all random decisions from a generator; `apply` only computes. The same `Drawn` gives the same result
again, on any batch of the same size, so an augmentation can be replayed and looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.recipes import Augment

AXES = "zyx"


@dataclass(frozen=True, eq=False)
class Drawn:
    """What was decided for each of N patches."""

    matrix: Tensor
    """(N, dims, dims): from offsets in the result to offsets in the source, both in voxels from the centre."""
    shift: Tensor
    """(N, dims): then moved by this many voxels; axes in array order."""
    noise: Tensor
    """(N,): standard deviation of the noise."""
    noise_seed: int
    brightness: Tensor
    """(N,): added."""
    contrast: Tensor
    """(N,): factor on the deviation from the mean."""
    gamma: Tensor
    """(N,): exponent on the values scaled to 0..1."""


def source_size(patch: Sequence[int], how: Augment, spacing: Sequence[float]) -> tuple[int, ...]:
    """Size of the region to cut so that turned, shrunk and shifted patches find real voxels in their corners.

    Limited to 1.5 times the patch; beyond that the edge is repeated.

    Args:
        patch: size of the result, voxels.
        how: the recipe's `augment` section.
        spacing: of the voxels, mm, so that turning stays turning where they are not cubes.
    """
    if not how.affine:
        return tuple(patch)
    half = torch.tensor([float(n) for n in patch])
    corners = half * torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * len(patch))
    reach = torch.zeros(len(patch))
    for signs in torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3):
        turned = corners @ _rotation(signs * torch.tensor(how.rotate), spacing).T / how.scale[0]
        reach = torch.maximum(reach, turned.abs().amax(0))
    reach = torch.minimum(reach + 2 * how.shift * half, 1.5 * half)
    return tuple(int(n) for n in reach.ceil())


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
    dims = len(patch)

    def chance(probability: float) -> Tensor:
        return torch.rand(patches, generator=generator) < probability

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(patches, *shape, generator=generator)

    moved = chance(how.affine)
    angles = between(-1, 1, 3) * torch.tensor(how.rotate) * moved[:, None]
    zoom = torch.where(moved, between(*how.scale), torch.ones(patches))
    flips = torch.stack([chance(0.5 if axis in how.flip else 0.0) for axis in AXES[-dims:]], dim=1)
    matrix = torch.stack([_rotation(angle, spacing) for angle in angles]) / zoom[:, None, None]
    matrix = matrix * torch.where(flips, -1.0, 1.0)[:, :, None]
    shift = between(-1, 1, dims) * how.shift * torch.tensor([float(n) for n in patch]) * moved[:, None]
    return Drawn(
        matrix=matrix,
        shift=shift,
        noise=torch.where(chance(how.intensity), between(0, how.noise), torch.zeros(patches)),
        noise_seed=int(torch.randint(2**31, (1,), generator=generator)),
        brightness=torch.where(chance(how.intensity), between(-how.brightness, how.brightness), torch.zeros(patches)),
        contrast=torch.where(chance(how.intensity), between(*how.contrast), torch.ones(patches)),
        gamma=torch.where(chance(how.intensity), between(*how.gamma), torch.ones(patches)),
    )


def apply(images: Tensor, labels: Tensor, drawn: Drawn, patch: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Carry out what was drawn.

    Args:
        images: (N, C, *source) float32, at least as large as the patch.
        labels: (N, *source) integers.
        drawn: the decisions.
        patch: size of the result.

    Returns:
        Images (N, C, *patch) and labels (N, *patch), the centre of the source after the change.
    """
    moved = [_move(images[n], labels[n], drawn.matrix[n], drawn.shift[n], patch) for n in range(len(images))]
    images, labels = (torch.stack(parts) for parts in zip(*moved, strict=True))
    return _recolour(images, drawn), labels


def _move(image: Tensor, labels: Tensor, matrix: Tensor, shift: Tensor, patch: Sequence[int]) -> tuple[Tensor, Tensor]:
    """One patch: cut and flip where that is all there is to do, otherwise one interpolation."""
    if not shift.any() and torch.equal(matrix.abs(), torch.eye(len(patch))):
        axes = [axis for axis in range(len(patch)) if matrix[axis, axis] < 0]
        image, labels = (_centre(x, patch) for x in (image, labels))
        return image.flip([1 + axis for axis in axes]), labels.flip(axes)
    offsets = torch.meshgrid(*[torch.arange(n) - (n - 1) / 2 for n in patch], indexing="ij")
    places = torch.stack(offsets, dim=-1) @ matrix.T + shift  # voxels from the centre of the source
    half = torch.tensor([n / 2 for n in labels.shape])
    grid = (places / half).flip(-1)[None].to(image.device)  # grid_sample wants x first, -1..1 from edge to edge
    options = {"padding_mode": "border", "align_corners": False}
    sampled = F.grid_sample(image[None], grid, mode="bilinear", **options)[0]  # type: ignore[arg-type]
    nearest = F.grid_sample(labels[None, None].float(), grid, mode="nearest", **options)[0, 0]  # type: ignore[arg-type]
    return sampled, nearest.to(labels.dtype)


def _recolour(images: Tensor, drawn: Drawn) -> Tensor:
    """Contrast, brightness, gamma and noise, each only where it was drawn."""
    axes = tuple(range(2, images.ndim))
    shape = (-1,) + (1,) * (images.ndim - 1)
    contrast, brightness, gamma, noise = (
        value.to(images.device).view(shape) for value in (drawn.contrast, drawn.brightness, drawn.gamma, drawn.noise)
    )
    if (drawn.contrast != 1).any() or (drawn.brightness != 0).any():
        mean = images.mean(axes, keepdim=True)
        images = (images - mean) * contrast + mean + brightness
    if (drawn.gamma != 1).any():
        low, high = images.amin(axes, keepdim=True), images.amax(axes, keepdim=True)
        span = (high - low).clamp_min(1e-6)
        curved = ((images - low) / span).clamp_min(0) ** gamma * span + low
        images = torch.where(gamma == 1, images, curved)
    if (drawn.noise > 0).any():
        generator = torch.Generator().manual_seed(drawn.noise_seed)
        images = images + noise * torch.randn(images.shape, generator=generator).to(images.device)
    return images


def _centre(x: Tensor, patch: Sequence[int]) -> Tensor:
    """The middle `patch` voxels of the last axes."""
    for axis, n in enumerate(patch, start=x.ndim - len(patch)):
        x = x.narrow(axis, (x.shape[axis] - n) // 2, n)
    return x


def _rotation(degrees: Tensor, spacing: Sequence[float]) -> Tensor:
    """Rotation about z, then y, then x, for offsets in voxels, array order; two spacings mean 2D, about z only."""
    z, y, x = torch.deg2rad(degrees)
    dims = len(spacing)
    turned = _turn(z, 1, 2) if dims == 2 else _turn(z, 1, 2) @ _turn(y, 0, 2) @ _turn(x, 0, 1)
    mm = torch.tensor([float(s) for s in spacing])
    return turned[-dims:, -dims:] * mm / mm[:, None]


def _turn(angle: Tensor, first: int, second: int) -> Tensor:
    """3x3 rotation in the plane of two axes."""
    matrix = torch.eye(3)
    matrix[first, first] = matrix[second, second] = angle.cos()
    matrix[first, second], matrix[second, first] = -angle.sin(), angle.sin()
    return matrix

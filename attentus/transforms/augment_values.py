"""What augmentation does to values. All of it acts on one patch (C, *patch); what ends in _ changes it in place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def blur(image: Tensor, sigmas: list[float]) -> Tensor:
    """Gaussian blur, the edge repeated; kernels end at three standard deviations.

    Args:
        image: (C, *patch).
        sigmas: standard deviation per axis, voxels; an axis with less than a sixth of a voxel is left alone.
    """
    for axis, sigma in enumerate(sigmas, start=1):
        radius, n = int(3 * sigma + 0.5), image.shape[axis]
        if radius == 0:
            continue
        weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(radius + 1)]
        total = 2 * sum(weights) - weights[0]
        first, last = image.narrow(axis, 0, 1), image.narrow(axis, n - 1, 1)
        padded = torch.cat([first] * radius + [image] + [last] * radius, axis)
        image = image * (weights[0] / total)
        for k in range(1, radius + 1):
            for start in (radius - k, radius + k):
                image.add_(padded.narrow(axis, start, n), alpha=weights[k] / total)
    return image


def low_resolution(image: Tensor, kept: list[float]) -> Tensor:
    """As if scanned with fewer voxels: every so manieth voxel taken, the others interpolated linearly.

    Args:
        image: (C, *patch).
        kept: share of the voxels that stay, per axis.
    """
    patch = image.shape[1:]
    fewer = [max(round(n * share), 1) for n, share in zip(patch, kept, strict=True)]
    coarse = F.interpolate(image[None], fewer, mode="nearest-exact")[0]
    if len(patch) == 2:
        return F.interpolate(coarse[None], patch, mode="bilinear")[0]
    for axis in reversed(range(1, image.ndim)):  # the innermost axis, slowest to gather, while there is least of it
        coarse = _refine(coarse, axis, patch[axis - 1])
    return coarse


def _refine(image: Tensor, axis: int, n: int) -> Tensor:
    """Linear interpolation of one axis to n voxels, the edge repeated."""
    few = image.shape[axis]
    if few == n:
        return image
    at = ((torch.arange(n, device=image.device) + 0.5) * (few / n) - 0.5).clamp_(0, few - 1)
    if axis == image.ndim - 1:
        return image @ (1 - (at - torch.arange(few, device=image.device)[:, None]).abs()).clamp_(min=0)
    lower = at.floor()
    upper = (lower + 1).clamp_(max=few - 1)
    part = (at - lower).view(-1, *[1] * (image.ndim - 1 - axis))
    return image.index_select(axis, lower.int()).lerp_(image.index_select(axis, upper.int()), part)


def contrast_(image: Tensor, factor: float, offset: float) -> None:
    """Multiply the deviation from each channel's mean by a factor, then add an offset."""
    for channel in image:
        if factor == 1:
            channel.add_(offset)
        else:
            middle = channel.mean() * (1 - factor) + offset
            channel.mul_(factor).add_(middle)


def gamma_(image: Tensor, exponent: float, *, mirrored: bool) -> None:
    """Raise each channel, scaled to 0..1 from its minimum to its maximum (mirrored: back), to a power; scale back."""
    for channel in image:
        low, high = channel.aminmax()
        span = (high - low).clamp_min_(1e-6)
        start, span = (high, -span) if mirrored else (low, span)
        channel.sub_(start).div_(span).log_().mul_(exponent).exp_()  # a power, faster than pow_; zero stays zero
        channel.mul_(span).add_(start)


def noise_(image: Tensor, deviation: float, seed: int) -> None:
    """Add Gaussian noise. The numbers are those of the device's own generator: CPU and GPU differ."""
    generator = torch.Generator(image.device).manual_seed(seed)
    image.add_(torch.randn(image.shape, generator=generator, device=image.device), alpha=deviation)

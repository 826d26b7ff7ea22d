"""What makes a training step cheaper: half precision where it is right, memory layout, memory kept, compilation."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import RecipeError
from attentus.infer.processor import compiler_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

N = TypeVar("N", bound=nn.Module)

FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Memory formats with the channels innermost, by the number of spatial axes."""


def prepare_net(net: N, dims: int, precision: str, device: torch.device | str) -> N:
    """Lay a net out for fast steps, in place; weights keep names and values. In fp32 nothing changes.

    With bf16 and fp16, convolution weights get their channels innermost; the features follow the weights, so inputs
    need no change. On processors, instance normalisation is told not to turn them round again, and bf16 is made safe,
    see `shield`.

    Args:
        net: before Fabric wraps it; the optimiser may exist already.
        dims: 2 or 3.
        precision: "fp32", "bf16" or "fp16".
        device: where it will be trained.
    """
    if precision == "fp32":
        return net
    if torch.device(device).type == "cpu":
        shield(net)
        for module in net.modules():
            if type(module) in _UNTURNED and not module.track_running_stats:
                module.__class__ = _UNTURNED[type(module)]
    return net.to(memory_format=FORMATS[dims])  # type: ignore[call-overload, no-any-return]


def _normalise(norm: _InstanceNorm, x: Tensor) -> Tensor:
    """Instance normalisation that keeps channels innermost: batch normalisation of every sample by itself.

    torch's own makes (N, C, *spatial) contiguous first, and the next convolution turns it round again.
    """
    if x.device.type != "cpu" or x.is_contiguous():
        return F.instance_norm(x, weight=norm.weight, bias=norm.bias, eps=norm.eps)
    scale = (norm.weight, norm.bias)
    return torch.cat([F.batch_norm(one, None, None, *scale, training=True, eps=norm.eps) for one in torch.split(x, 1)])


class _InstanceNorm2d(nn.InstanceNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return _normalise(self, x)


class _InstanceNorm3d(nn.InstanceNorm3d):
    def forward(self, x: Tensor) -> Tensor:
        return _normalise(self, x)


_InstanceNorm = nn.InstanceNorm2d | nn.InstanceNorm3d
_UNTURNED: dict[type, type[_InstanceNorm]] = {nn.InstanceNorm2d: _InstanceNorm2d, nn.InstanceNorm3d: _InstanceNorm3d}


def shield(net: nn.Module) -> int:
    """Let convolutions on maps no larger than their kernel compute in fp32 although autocast asks for bf16, in place.

    On processors, oneDNN makes the bf16 gradient of such a convolution's weights from memory that it never wrote, and
    at times writes where it must not (torch 2.13: 3x3x3 kernels on maps two slices deep, strided ones on maps one
    voxel wide, 5x5x5 on three slices, transposed ones, too). Which size a map has is looked at in each forward pass,
    so one module may meet several. Such maps are the smallest of a net: fp32 costs next to nothing there.

    Returns:
        Number of convolutions that are watched.
    """
    watched = 0
    for module in net.modules():
        kind = _SHIELDED.get(type(module))
        if kind is not None and max(module.kernel_size) > 1:  # type: ignore[arg-type]
            module.__class__ = kind  # weights, hooks and names stay, and copies are shielded, too
            watched += 1
    return watched


class _ShieldedConv2d(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return _forward(super().forward, self, x)


class _ShieldedConv3d(nn.Conv3d):
    def forward(self, x: Tensor) -> Tensor:
        return _forward(super().forward, self, x)


class _ShieldedConvTranspose2d(nn.ConvTranspose2d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _forward(partial(super().forward, output_size=output_size), self, x)


class _ShieldedConvTranspose3d(nn.ConvTranspose3d):
    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        return _forward(partial(super().forward, output_size=output_size), self, x)


Conv = nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d
_SHIELDED: dict[type, type[Conv]] = {
    nn.Conv2d: _ShieldedConv2d,
    nn.Conv3d: _ShieldedConv3d,
    nn.ConvTranspose2d: _ShieldedConvTranspose2d,
    nn.ConvTranspose3d: _ShieldedConvTranspose3d,
}


def _forward(plain: Callable[[Tensor], Tensor], conv: Conv, x: Tensor) -> Tensor:
    """A convolution, in fp32 where bf16 goes wrong; the result has the type that autocast would have given it."""
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu") or not _thin(conv, x):
        return plain(x)
    with torch.autocast("cpu", enabled=False):
        right = plain(x.float())
    return right.to(torch.get_autocast_dtype("cpu"))


def _thin(conv: Conv, x: Tensor) -> bool:
    """Whether the kernel is as long as the map along any axis, or longer, or the map's rows are a single voxel."""
    along = zip(x.shape[2:], conv.kernel_size, conv.dilation, strict=True)
    return x.shape[-1] == 1 or any(size > 1 and n <= step * (size - 1) + 1 for n, size, step in along)


def compiled(net: N, device: torch.device | str = "cpu") -> N:
    """Let torch compile a net at its first forward pass, in place: names of weights stay as they are.

    Raises:
        RecipeError: what the compiler needs is missing.
    """
    if missing := compiler_missing(device):
        raise RecipeError(f"train.compile: {missing}, or set train.compile to false.")
    net.compile()
    return net


@contextmanager
def eager(net: nn.Module) -> Iterator[None]:
    """Inside the `with` block a compiled net runs uncompiled, so that hooks set meanwhile are called."""
    compiled_call = net._compiled_call_impl  # nn.Module.compile has no way back
    net._compiled_call_impl = None
    try:
        yield
    finally:
        net._compiled_call_impl = compiled_call

"""What makes a training step cheaper: half precision where it is right, memory layout, memory kept, compilation."""

from __future__ import annotations

import ctypes
import platform
import shutil
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import RecipeError

if TYPE_CHECKING:
    from collections.abc import Callable

N = TypeVar("N", bound=nn.Module)

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""
FORMATS = {2: torch.channels_last, 3: torch.channels_last_3d}
"""Memory formats with the channels innermost, by the number of spatial axes."""


def keep_memory() -> bool:
    """Let the process keep memory that it has freed, instead of handing it back and fetching it anew in every step.

    By default glibc gives every block of more than 32 MiB straight back to the system, which zeroes its pages again
    at the next use: a third of the processor time of a step in 3D. The process then stays as large as it ever was.

    Returns:
        Whether it took effect; False with other C libraries (macOS, Windows, musl), where nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    never = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))  # blocks of their own; handing back the end of the heap
    return all(libc.mallopt(option, value) == 1 for option, value in never)


def best_precision(device: torch.device | str) -> Literal["bf16", "fp32"]:
    """bf16 where the device computes in it: GPUs since Ampere, processors with AVX512-BF16 or AMX; fp32 elsewhere."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if kind == "cpu" and _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    """Whether an x86 processor multiplies bf16 numbers itself."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    asks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    answers = [bool(ask()) for ask in asks if ask is not None]
    if answers:
        return any(answers)
    flags = Path("/proc/cpuinfo")  # for a torch that does not tell
    return flags.is_file() and bool({"avx512_bf16", "amx_bf16"} & set(flags.read_text(encoding="utf-8").split()))


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
    if torch.device(device).type == "cpu" and not _has_cpp_compiler():
        raise RecipeError(
            "train.compile: torch compiles for processors through a C++ compiler, and none was found.\n"
            "  Install one (Debian and Ubuntu: apt install g++, macOS: xcode-select --install, Windows: Visual Studio"
            " Build Tools), or set train.compile to false."
        )
    if torch.device(device).type == "cuda" and not torch.utils._triton.has_triton():
        raise RecipeError("train.compile: torch compiles for GPUs through triton, which is missing: pip install triton")
    net.compile()
    return net


def _has_cpp_compiler() -> bool:
    """Whether one of the compilers that inductor calls is on the path."""
    from torch._inductor import config

    names = config.cpp.cxx if isinstance(config.cpp.cxx, tuple | list) else (config.cpp.cxx,)
    return any(shutil.which(name) for name in (*names, "cl") if name)

"""Layers that compute what torch's do, with `kernels.c`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentus.infer.backends.winograd.compiled import PARTS
from attentus.infer.backends.winograd.weights import POINTS, packed, packed_direct, packed_doubling
from attentus.nets.parts import resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.infer.backends.winograd.compiled import Kernels
    from attentus.infer.backends.winograd.parts import Parts

_CONV = {4: F.conv2d, 5: F.conv3d}
TILE = 4
"""Voxels of a side that a tile yields."""
LARGEST_TABLE = 2.0
"""Bytes of transformed weights per byte of features; beyond, reading them costs what they spare."""
LARGER_IN_BF16 = 10.0
"""How many times as large they may be in bf16: they are half as long, and torch would convert features to and fro."""
MAPS_AND_TILES, LEAST_TILES, MOST_TILES = 4096, 32, 128
"""Channels times tiles that are worked on together, and tiles alone, in fp32: fewer read what neighbours need again and
again, more leave the cache."""
VOXELS_AT_ONCE = 64
"""Of layers that do without tiles."""
UNITS_PER_THREAD = 4
"""Units of work per thread at least, so that all end at about the same time."""


class _Layer(nn.Module):
    """What stands for a layer of torch's, and for what rectifies after it.

    Args:
        kernels: compiled.
        slope: of results below 0; 1 rectifies nothing.

    Attributes:
        in_half: whether results are bf16, which only these layers need to understand; features may be either.
    """

    def __init__(self, kernels: Kernels, slope: float = 1.0) -> None:
        super().__init__()
        self.kernels = kernels
        self.slope = slope
        self.in_half = False


class _Convolution(_Layer):
    """What stands for a convolution."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, kernels: Kernels, slope: float = 1.0) -> None:
        super().__init__(kernels, slope)
        self.conv = conv
        self.taps, self.step = (conv.kernel_size[0], conv.stride[0]) if len(conv.kernel_size) == 3 else (1, 1)


class WinogradConv(_Convolution):
    """A 3x3 or 3x3x3 (or 1x3x3) convolution that keeps the size; where that would not pay it computes directly."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, kernels: Kernels, slope: float = 1.0) -> None:
        super().__init__(conv, kernels, slope)
        self.packed: dict[int, Tensor] = {}
        self.rounded: dict[int, Tensor] = {}

    def forward(self, x: Tensor | Parts) -> Tensor:
        """(N, C, *spatial) to (N, K, *spatial)."""
        if isinstance(x, Tensor):
            return self._read([x], 0, None, last=True)
        if x.half or x.made:  # two parts in bf16 are as large as one in fp32: both may be there at once
            return self._read(x.together(self.conv.in_channels), 0, None, last=True)
        first, part = x.take(self.conv.in_channels)
        y = self._read([part], first, None, last=not x.parts)
        while x.parts:
            del part  # before the next one is made
            first, part = x.take(self.conv.in_channels)
            y = self._read([part], first, y, last=not x.parts)
        return y

    def _read(self, parts: list[Tensor], first: int, y: Tensor | None, *, last: bool) -> Tensor:
        """Add to the results what comes from some channels.

        Args:
            parts: (N, c, *spatial), the channels; of the same type.
            first: of them, counted among all.
            y: results so far.
            last: whether no others follow.
        """
        conv, n, spatial = self.conv, len(parts[0]), parts[0].shape[2:]
        channels = sum(part.shape[1] for part in parts)
        bias, slope = (conv.bias, self.slope) if last else (None, 1.0)
        weight = conv.weight[:, first : first + channels]
        times = self.kernels.short * (LARGER_IN_BF16 if self.kernels.pair == 2 else 1)
        if not pays(conv, (n, channels, *spatial), times):
            plain = self._directly(parts, first, weight, bias)
            plain = plain if y is None else plain.add_(y)
            return plain if slope == 1 else F.leaky_relu_(plain, slope)
        if first not in self.packed:
            self.packed[first] = packed(weight, self.kernels.block, self.kernels.pair)
        add = y is not None
        if y is None:
            y = self.kernels.features.empty((n, conv.out_channels, *spatial), half=self.in_half)
        parts = _few(parts)
        tensors = {"weights": self.packed[first], "bias": bias, "y": y}
        sizes = _sizes(parts[0], y) | {"in": channels, "add": int(add)}
        self.kernels("convolve", tensors, sizes | self._work(sizes), parts=parts, slope=slope)
        return y

    def _directly(self, parts: list[Tensor], first: int, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What torch makes of it, in the precision of the kernels."""
        x = torch.cat(parts, 1) if parts[1:] else parts[0]
        if self.kernels.pair == 1:
            return _CONV[x.ndim](x, weight, bias, padding=self.conv.padding)
        if first not in self.rounded:
            self.rounded[first] = weight.bfloat16()
        y = _CONV[x.ndim](x.bfloat16(), self.rounded[first], padding=self.conv.padding)
        y = y if self.in_half else y.float()
        return y if bias is None else y.add_(bias.view(-1, *[1] * (x.ndim - 2)))

    def _work(self, sizes: dict[str, int]) -> dict[str, int]:
        """What threads work on together."""
        across, down, depth = -(-sizes["w"] // TILE), -(-sizes["h"] // TILE), sizes["d"]
        tiles = self.kernels.pair * min(max(MAPS_AND_TILES // sizes["in"], LEAST_TILES), MOST_TILES)
        rows = min(-(-down // 2), max(1, tiles // 2 // across))
        planes = min(depth, max(1, tiles // (rows * across)))
        wanted = -(-UNITS_PER_THREAD * self.kernels.threads // (sizes["n"] * -(-down // rows)))
        chunk = -(-depth // min(wanted, -(-depth // planes)))
        return {"taps": self.taps, "rows": rows, "planes": planes, "chunk": -(-chunk // planes) * planes}


class HalvingConv(_Convolution):
    """A 3x3 or 3x3x3 (or 1x3x3) convolution that halves planes."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, kernels: Kernels, slope: float = 1.0) -> None:
        super().__init__(conv, kernels, slope)
        self.packed = packed_direct(conv.weight, kernels.block, kernels.pair)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) to (N, K, *halved)."""
        x = x.contiguous()
        sides = [-(-n // step) for n, step in zip(x.shape[2:], self.conv.stride, strict=True)]
        y = self.kernels.features.empty((x.shape[0], self.conv.out_channels, *sides), half=self.in_half)
        rows = min(sides[-2], -(-VOXELS_AT_ONCE // sides[-1]))
        tensors = {"weights": self.packed, "bias": self.conv.bias, "y": y}
        sizes = _sizes(x, y) | {"taps": self.taps, "step": self.step, "rows": rows}
        self.kernels("halve", tensors, sizes, parts=[x], slope=self.slope)
        return y


class PointwiseConv(_Convolution):
    """A 1x1(x1) convolution."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d, kernels: Kernels, slope: float = 1.0) -> None:
        super().__init__(conv, kernels, slope)
        self.packed = packed_direct(conv.weight, kernels.block, kernels.pair)

    def forward(self, x: Tensor | Parts) -> Tensor:
        """(N, C, *spatial) to (N, K, *spatial)."""
        channels = self.conv.in_channels
        parts = _few([x] if isinstance(x, Tensor) else x.together(channels))
        batch, _, *spatial = parts[0].shape
        y = self.kernels.features.empty((batch, self.conv.out_channels, *spatial), half=self.in_half)
        tensors = {"weights": self.packed, "bias": self.conv.bias, "y": y}
        sizes = _sizes(parts[0], y) | {"in": channels, "chunk": 2 * VOXELS_AT_ONCE}
        self.kernels("pointwise", tensors, sizes, parts=parts, slope=self.slope)
        return y


class DoublingConv(_Layer):
    """A transposed convolution that doubles the sides."""

    def __init__(self, conv: nn.ConvTranspose2d | nn.ConvTranspose3d, kernels: Kernels) -> None:
        super().__init__(kernels)
        self.conv = conv
        self.taps = conv.kernel_size[0] if len(conv.kernel_size) == 3 else 1
        self.packed = packed_doubling(conv.weight, kernels.block, kernels.pair)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) to (N, K, *doubled)."""
        x = x.contiguous()
        sides = [n * k for n, k in zip(x.shape[2:], self.conv.kernel_size, strict=True)]
        y = self.kernels.features.empty((x.shape[0], self.conv.out_channels, *sides), half=self.in_half)
        sizes = _sizes(x, y) | {"taps": self.taps}
        rows = min(sizes["h"], -(-VOXELS_AT_ONCE // sizes["w"]))
        tensors = {"weights": self.packed, "bias": self.conv.bias, "y": y}
        self.kernels("transpose", tensors, sizes | {"rows": rows}, parts=[x])
        return y


class RectifiedNorm(_Layer):
    """Instance normalisation and what rectifies after it, in place: only for what nobody else reads."""

    def __init__(self, norm: nn.InstanceNorm2d | nn.InstanceNorm3d, kernels: Kernels, slope: float = 1.0) -> None:
        super().__init__(kernels, slope)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial), changed."""
        x = x.contiguous()
        tensors = {"weights": self.norm.weight, "bias": self.norm.bias, "y": x}
        self.kernels("normalise", tensors, _sizes(x, x), slope=self.slope, eps=self.norm.eps)
        return x


class Pool(_Layer):
    """Keeps the largest of 2x2(x2) voxels, as bf16 if they are that."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) to (N, C, *halved)."""
        x = x.contiguous()
        sides = [n // 2 for n in x.shape[2:]]
        y = self.kernels.features.empty((*x.shape[:2], *sides), half=x.dtype == torch.bfloat16)
        self.kernels("pool", {"y": y}, _sizes(x, y) | {"taps": x.ndim - 3}, parts=[x])
        return y


class Enlarge(_Layer):
    """`nets.parts.Resize`, faster where it doubles every side."""

    def forward(self, x: Tensor, size: Sequence[int]) -> Tensor:
        """(N, C, *spatial) to (N, C, *size)."""
        if tuple(size) != tuple(2 * n for n in x.shape[2:]):
            return resize(x, size)
        x = x.contiguous()
        y = self.kernels.features.empty((*x.shape[:2], *size))
        self.kernels("enlarge", {"y": y}, _sizes(x, y) | {"taps": x.ndim - 3}, parts=[x])
        return y


def pays(conv: nn.Conv2d | nn.Conv3d, shape: Sequence[int], times: float = 1) -> bool:
    """Whether features are many enough for Winograd's larger table of weights.

    Args:
        conv: the convolution.
        shape: of features, (N, c, *spatial); c is all its channels or some.
        times: how many times as many features as that the table may be weighed against.
    """
    taps = math.prod(conv.kernel_size[:-2])
    table = len(POINTS) ** 2 * taps * shape[1] * conv.out_channels
    return table <= times * LARGEST_TABLE * (shape[1] + conv.out_channels) * shape[0] * math.prod(shape[2:])


def _few(parts: list[Tensor]) -> list[Tensor]:
    """As many as kernels take at most, contiguous."""
    return [part.contiguous() for part in (parts if len(parts) <= PARTS else [torch.cat(parts, 1)])]


def _sizes(x: Tensor, y: Tensor) -> dict[str, int]:
    """What all kernels want to know of (N, C, [z,] y, x)."""
    depth = x.shape[2] if x.ndim == 5 else 1
    channels = {"in": x.shape[1], "out": y.shape[1]}
    sides = {"n": x.shape[0], "d": depth, "h": x.shape[-2], "w": x.shape[-1]}
    return channels | sides | dict.fromkeys(("taps", "step", "rows", "planes", "chunk"), 1) | {"add": 0}

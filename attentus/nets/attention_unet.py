"""Attention U-Net and its baseline, the plain 3D U-Net (Oktay et al., "Learning Where to Look for the Pancreas", 2018).

Five levels. Every step down halves the grid; on the way up, the skip of levels 2 to 4 passes gates that weigh each
voxel by how well it agrees with the coarser signal from below (Eq. 1-2, Figs. 1-2). Level 1 has no gate: its features
"do not represent the input data in a high dimensional space". The outputs of all four scales are brought to full size
and fused by one convolution: that is what the authors call deep supervision.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.nets.parts import (
    AttentionTap,
    Concatenate,
    Resize,
    conv,
    crop_to,
    double_conv,
    max_pool,
    normalise,
    one_of,
    pad_to_multiple,
    resize,
)

BASE_WIDTHS = (64, 128, 256, 512, 1024)

DeepSupervision = Literal["fuse", "aux", "off"]


class AttentionUNet(nn.Module):
    """U-Net with grid attention gates on its skips; without gates (`n_gates=0`) the plain U-Net.

    input    (N, in_channels, *spatial), any size: padded inside to multiples of 16 and cropped back
    returns  a tuple of logits (N, out_channels, *spatial), the final one first

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes, background included.
        n_gates: gates per skip, each free to look for other structures ("multi-dimensional attention", section 2).
        feature_scale: widths are 64, 128, ..., 1024 divided by this and truncated.
        gating: width of a 1x1 convolution on the bottleneck that feeds the deepest gate; None feeds it directly.
        deep_supervision: "fuse" joins the four scales into one output (the paper); "aux" returns the four scales
            as outputs of their own, finest first; "off" reads the output from the finest scale.
        gate_init: "open" starts with every coefficient at sigmoid(3) = 0.9526, so that gates pass features
            everywhere (section 3); "kaiming" as in the published code.
    """

    multiple = 16

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        n_gates: int = 2,
        feature_scale: float = 4,
        gating: int | None = None,
        deep_supervision: DeepSupervision = "fuse",
        gate_init: Literal["open", "kaiming"] = "open",
    ) -> None:
        super().__init__()
        one_of("deep_supervision", deep_supervision, ("fuse", "aux", "off"))
        one_of("gate_init", gate_init, ("open", "kaiming"))
        widths = [int(width / feature_scale) for width in BASE_WIDTHS]
        if min(widths) < 1:
            raise BadInput(f"feature_scale {feature_scale} leaves a level without channels; it must be at most 64.")
        self.deep_supervision = deep_supervision

        self.encoder = nn.ModuleList(double_conv(dims, i, o) for i, o in pairwise([in_channels, *widths[:-1]]))
        self.center = double_conv(dims, widths[3], widths[4])
        self.pool = max_pool(dims)

        self.gating = gating_signal(dims, widths[4], gating) if gating and n_gates else nn.Identity()
        signals = {4: gating or widths[4], 3: widths[3], 2: widths[2]}
        self.gates = nn.ModuleDict(
            {
                f"level{level}": MultiGate(dims, widths[level - 1], signals[level], n_gates)
                for level in ((4, 3, 2) if n_gates else ())
            }
        )
        self.decoder = nn.ModuleDict(
            {f"level{n}": double_conv(dims, widths[n - 1] + widths[n], widths[n - 1]) for n in (4, 3, 2, 1)}
        )
        self.resize = Resize()
        self.join = Concatenate()
        scales = {"fuse": (1, 2, 3, 4), "aux": (1, 2, 3, 4), "off": (1,)}[deep_supervision]
        self.heads = nn.ModuleDict({f"level{n}": conv(dims, widths[n - 1], out_channels, 1) for n in scales})
        self.final = conv(dims, 4 * out_channels, out_channels, 1) if deep_supervision == "fuse" else nn.Identity()
        _initialise(self, gate_init)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, *spatial) to a tuple of (N, out_channels, *spatial)."""
        size = x.shape[2:]
        x = pad_to_multiple(x, self.multiple)
        padded = x.shape[2:]

        skips = []
        for block in self.encoder:
            x = block(x)
            skips.append(x)  # level n: width n, side / 2^(n-1)
            x = self.pool(x)
        x = self.center(x)

        signal = self.gating(x)
        outputs = {}
        for level in (4, 3, 2, 1):
            name = f"level{level}"
            skip = skips.pop()
            gated = self.gates[name](skip, signal) if name in self.gates else skip
            x = self.decoder[name](self.join(gated, self.resize(x, skip.shape[2:])))
            signal = x  # the next gate listens to what this level decided
            if name in self.heads:
                outputs[level] = self.resize(self.heads[name](x), padded)

        scales = [outputs[level] for level in sorted(outputs)]  # finest first
        logits = [self.final(self.join(*scales))] if self.deep_supervision == "fuse" else scales
        return tuple(crop_to(output, size) for output in logits)


class MultiGate(nn.Module):
    """Several independent gates on one skip, their outputs fused: "multi-dimensional attention coefficients".

    skip     (N, C, *fine)
    signal   (N, G, *coarse), half as fine
    returns  (N, C, *fine)
    """

    def __init__(self, dims: int, channels: int, signal_channels: int, n_gates: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(GridGate(dims, channels, signal_channels) for _ in range(n_gates))
        self.join = Concatenate()
        self.fuse = nn.Sequential(
            conv(dims, n_gates * channels, channels, 1), normalise(dims, channels), nn.ReLU(inplace=True)
        )

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Gate the skip by the coarser signal."""
        return self.fuse(self.join(*(gate(skip, signal) for gate in self.each)))  # type: ignore[no-any-return]


class GridGate(nn.Module):
    """Additive attention on a grid (Eq. 1-2, Fig. 2): one coefficient in 0..1 per voxel, shared by all channels.

    skip     (N, C, *fine)
    signal   (N, G, *coarse), half as fine
    returns  (N, C, *fine)
    """

    def __init__(self, dims: int, channels: int, signal_channels: int) -> None:
        super().__init__()
        self.theta = conv(dims, channels, channels, 2, stride=2, bias=False)
        self.phi = conv(dims, signal_channels, channels, 1)
        self.psi = conv(dims, channels, 1, 1)
        self.alpha = AttentionTap(made_by=["theta", "phi", "psi"])
        self.out = nn.Sequential(conv(dims, channels, channels, 1), normalise(dims, channels))

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Weigh the skip by how well it agrees with the signal."""
        alpha = None if self.alpha.left_out else self._coefficients(skip, signal)
        return self.out(self.alpha(alpha, skip))  # type: ignore[no-any-return]

    def _coefficients(self, skip: Tensor, signal: Tensor) -> Tensor:
        """(N, 1, *fine)."""
        at_skip = self.theta(skip)  # (N, C, *coarse)
        at_signal = resize(self.phi(signal), at_skip.shape[2:])
        score = self.psi(torch.relu_(at_skip.add_(at_signal)))  # (N, 1, *coarse)
        return resize(torch.sigmoid(score), skip.shape[2:])


def unet(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    feature_scale: float = 4,
    deep_supervision: DeepSupervision = "fuse",
) -> AttentionUNet:
    """The baseline: the same network without gates."""
    options = {"feature_scale": feature_scale, "deep_supervision": deep_supervision}
    return AttentionUNet(dims, in_channels, out_channels, n_gates=0, **options)  # type: ignore[arg-type]


def gating_signal(dims: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, batch normalisation, ReLU: what grid gates listen to."""
    return nn.Sequential(conv(dims, in_channels, out_channels, 1), normalise(dims, out_channels), nn.ReLU(inplace=True))


def _initialise(net: nn.Module, gate_init: str) -> None:
    """Kaiming-normal convolutions and N(1, 0.02) normalisation weights (published code), then the gates (paper)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    if gate_init == "open":
        for gate in (module for module in net.modules() if isinstance(module, GridGate)):
            for parameter, start in zip(gate.psi.parameters(), (0.0, 3.0), strict=True):  # weight, bias
                nn.init.constant_(parameter, start)

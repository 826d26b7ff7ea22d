"""MSConvLSTM-Att (Ait Skourt et al., "Multi-scale ConvLSTM attention-based brain tumor segmentation", 2021).

2D. Every modality has its own branch of three scales: a ConvLSTM that reads the slice as a sequence of four
quadrants, an SE-Inception block at half the grid, SE-ResNet blocks at a quarter. At each scale the modalities are
joined; the three joined maps make one multi-scale map that refines each of them; spatial attention follows; the
predictions of the three scales are averaged.

The paper publishes neither code nor widths; the defaults follow its text and were chosen to run (docs/papers).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.nets.parts import AttentionTap, crop_to, one_of, pad_to_multiple, resize

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.nets.parts import Coefficients

ASKED = 256
"""Positions whose attention is looked at, at most, to tell where all of it falls."""


class MSConvLSTMAtt(nn.Module):
    """Multi-scale ConvLSTM with spatial attention.

    input    (N, modalities, y, x), any size: padded inside to even sides and cropped back
    returns  a tuple with one tensor of logits, (N, out_channels, y, x): the mean over the three scales

    Args:
        dims: 2; the net reads slices.
        in_channels: modalities, each with a branch of its own.
        out_channels: classes.
        widths: channels of the three scales of a branch.
        channels: width of everything after the modalities have been joined.
        residual_blocks: SE-ResNet blocks of the third scale.
        share_branches: whether all modalities share the weights of one branch.
        n_sam: attention modules per scale, one after the other.
        attention_stride: 1, 2 or 4: how much coarser than the slice the attended grid is. 1 costs 16 times as much.
        detail: whether the heads see the first scale at full resolution (sharper borders).
    """

    multiple = 2

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        widths: Sequence[int] = (16, 64, 128),
        channels: int = 64,
        residual_blocks: int = 2,
        share_branches: bool = False,
        n_sam: int = 1,
        attention_stride: int = 2,
        detail: bool = False,
    ) -> None:
        super().__init__()
        if dims != 2:
            raise BadInput(
                "msconvlstm-att is a 2D net: its ConvLSTM reads the four quadrants of a slice."
                " Take dims=2; volumes are segmented slice by slice."
            )
        if len(widths) != 3:
            raise BadInput(f"widths are three numbers, one per scale; got {list(widths)}.")
        one_of("attention_stride", attention_stride, (1, 2, 4))
        self.stride, self.modalities = attention_stride, in_channels
        count = 1 if share_branches else in_channels
        self.branches = nn.ModuleList(Branch(widths, residual_blocks) for _ in range(count))
        self.join = nn.ModuleList(cbr(in_channels * width, channels, 1) for width in widths)  # single-scale features
        self.multi_scale = cbr(3 * channels, channels, 3)
        self.refine = nn.ModuleList(cbr(2 * channels, channels, 3) for _ in widths)
        self.sam = nn.ModuleList(nn.Sequential(*(SpatialAttention(channels) for _ in range(n_sam))) for _ in widths)
        self.detail = nn.ModuleList(cbr(2 * channels, channels // 2, 3) for _ in widths if detail)
        self.heads = nn.ModuleList(nn.Conv2d(channels // 2 if detail else channels, out_channels, 1) for _ in widths)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, modalities, y, x) to a tuple of one (N, out_channels, y, x)."""
        size = x.shape[2:]
        logits = torch.stack(self.scale_logits(pad_to_multiple(x, self.multiple))).mean(0)
        return (crop_to(logits, size),)

    def scale_logits(self, x: Tensor) -> list[Tensor]:
        """The prediction of each scale, (N, out_channels, y, x), for even y and x."""
        modalities = torch.split(x, 1, dim=1)
        branches = [self.branches[m % len(self.branches)](one) for m, one in enumerate(modalities)]
        singles = [
            join(torch.cat(scale, dim=1)) for join, scale in zip(self.join, zip(*branches, strict=True), strict=True)
        ]
        grid = [-(-n // self.stride) for n in x.shape[2:]]
        common = [_to_grid(single, grid) for single in singles]
        multi = self.multi_scale(torch.cat(common, dim=1))
        logits = []
        for number, single in enumerate(common):
            features = self.sam[number](self.refine[number](torch.cat([single, multi], dim=1)))
            if self.detail:
                features = resize(features, x.shape[2:])
                features = self.detail[number](torch.cat([features, singles[0]], dim=1))
            logits.append(resize(self.heads[number](features), x.shape[2:]))
        return logits


class Branch(nn.Module):
    """The three scales of one modality.

    input    (N, 1, y, x), y and x even
    returns  (N, widths[0], y, x), (N, widths[1], y/2, x/2), (N, widths[2], y/4, x/4), halves rounded up
    """

    def __init__(self, widths: Sequence[int], residual_blocks: int) -> None:
        super().__init__()
        hidden, inception, residual = widths
        self.lstm = ConvLSTM(1, hidden)
        self.inception = nn.Sequential(nn.MaxPool2d(3, stride=2, padding=1), SEInception(hidden, inception))
        blocks = [SEResidual(inception, residual, stride=2)]
        blocks += [SEResidual(residual, residual) for _ in range(residual_blocks - 1)]
        self.residual = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Features of the three scales, finest first."""
        first = tile(self.lstm(quadrants(x)))
        second = self.inception(first)
        return first, second, self.residual(second)


class ConvLSTM(nn.Module):
    """Convolutional LSTM (Shi et al. 2015, without peepholes), started from zeros; all hidden states are kept.

    input    (N, T, C, y, x)
    returns  (N, T, hidden, y, x)
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(channels + hidden, 4 * hidden, 3, padding=1)  # input, forget, output, candidate
        with torch.no_grad():
            self.gates.bias[hidden : 2 * hidden] = 1.0  # type: ignore[index]  # remember, until taught otherwise

    def forward(self, sequence: Tensor) -> Tensor:
        """Hidden states of all steps."""
        n, _, _, *size = sequence.shape
        hidden = cell = sequence.new_zeros(n, self.hidden, *size)
        states = []
        for x in sequence.unbind(1):
            i, f, o, g = self.gates(torch.cat([x, hidden], dim=1)).chunk(4, dim=1)
            cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(cell)
            states.append(hidden)
        return torch.stack(states, dim=1)


def quadrants(x: Tensor) -> Tensor:
    """(N, C, y, x) to (N, 4, C, y/2, x/2): top left, top right, bottom left, bottom right."""
    top, bottom = x.chunk(2, dim=2)
    return torch.stack([*top.chunk(2, dim=3), *bottom.chunk(2, dim=3)], dim=1)


def tile(parts: Tensor) -> Tensor:
    """The way back from `quadrants`: (N, 4, C, y/2, x/2) to (N, C, y, x)."""
    a, b, c, d = parts.unbind(1)
    return torch.cat([torch.cat([a, b], dim=3), torch.cat([c, d], dim=3)], dim=2)


class SEInception(nn.Module):
    """Four parallel views of 1x1, 3x3, 5x5 and pooling, joined and weighed per channel.

    input    (N, in_channels, y, x)
    returns  (N, channels, y, x)
    """

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        narrow = max(4, channels // 16)
        self.views = nn.ModuleList(
            [
                cbr(in_channels, channels // 4, 1),
                nn.Sequential(cbr(in_channels, 3 * channels // 8, 1), cbr(3 * channels // 8, channels // 2, 3)),
                nn.Sequential(cbr(in_channels, narrow, 1), cbr(narrow, channels // 8, 5)),
                nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), cbr(in_channels, channels // 8, 1)),
            ]
        )
        self.excite = SqueezeExcitation(channels)

    def forward(self, x: Tensor) -> Tensor:
        """All views, joined and weighed."""
        return self.excite(torch.cat([view(x) for view in self.views], dim=1))  # type: ignore[no-any-return]


class SEResidual(nn.Module):
    """Residual block of two 3x3 convolutions, weighed per channel before the sum.

    input    (N, in_channels, y, x)
    returns  (N, channels, y/stride, x/stride), rounded up
    """

    def __init__(self, in_channels: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            cbr(in_channels, channels, 3, stride=stride),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            SqueezeExcitation(channels),
        )
        changed = stride > 1 or in_channels != channels
        self.shortcut = (
            nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride=stride, bias=False), nn.BatchNorm2d(channels))
            if changed
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Body plus shortcut, rectified."""
        return torch.relu(self.body(x) + self.shortcut(x))


class SqueezeExcitation(nn.Module):
    """Factors in 0..1 per channel, from the mean of every channel (Hu et al. 2018).

    input, returns  (N, C, y, x)
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(4, channels // 16)
        self.factors = nn.Sequential(nn.Linear(channels, inner), nn.ReLU(inplace=True), nn.Linear(inner, channels))
        self.alpha = AttentionTap("channel", made_by=["factors"])

    def forward(self, x: Tensor) -> Tensor:
        """Scale the channels."""
        factors = None if self.alpha.left_out else torch.sigmoid(self.factors(x.mean((2, 3))))[:, :, None, None]
        return self.alpha(factors, x)  # type: ignore[no-any-return]


class SpatialAttention(nn.Module):
    """Every position gathers from all positions, by how well its query meets their keys (section III.C, Eq. 1-2).

    input    V, (N, C, y, x)
    returns  O_j = strength * sum_i S[i,j] X_i + V_j, same shape; strength starts at 0, S[:,j] sums to 1

    S has (y x)^2 entries (4.85 GiB for one slice of 190 x 190) and is never built: the sum goes through the fused
    attention of torch, with keys and queries padded by zeros to the width of the values.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 8)
        self.key = nn.Conv2d(channels, inner, 1)
        self.query = nn.Conv2d(channels, inner, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.strength = nn.Parameter(torch.zeros(1))  # lambda
        self.alpha = Gathering("received", made_by=["key", "query", "value", "strength"])

    def forward(self, v: Tensor) -> Tensor:
        """Add to every position what it gathers from all others."""
        if self.alpha.left_out:
            return v
        gathered: Tensor = self.alpha((self.key(v), self.query(v)), self.value(v))
        return self.strength * gathered + v

    def attention_of(self, v: Tensor, positions: Sequence[tuple[int, int]]) -> Tensor:
        """Where the given positions look.

        Args:
            v: input of the module, (N, C, y, x).
            positions: (y, x) of the queries.

        Returns:
            (N, positions, y, x), each map non-negative with sum 1: columns of S.
        """
        key, query = _rows(self.key(v)), _rows(self.query(v))
        chosen = query[:, [y * v.shape[3] + x for y, x in positions]]
        share = torch.softmax(chosen @ key.transpose(1, 2), dim=2)
        return share.view(len(v), len(positions), *v.shape[2:])

    def dense(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """The module as it is printed, for checking: output and S, (N, P, P) with columns that sum to 1."""
        key, query, value = (_rows(project(v)) for project in (self.key, self.query, self.value))
        share = torch.softmax(key @ query.transpose(1, 2), dim=1)  # S[i,j]
        gathered = share.transpose(1, 2) @ value
        return self.strength * gathered.transpose(1, 2).reshape(v.shape) + v, share


class Gathering(AttentionTap):
    """What every position gathers from all: sum_i S[i,j] X_i, with S the softmax over i of key_i query_j.

    coefficients  key and query, (N, narrow, y, x) each; None gathers nothing
    features      X, (N, C, y, x)
    returns       (N, C, y, x)
    """

    def plain(self, features: Tensor) -> Tensor:
        """Zeros."""
        return torch.zeros_like(features)

    def weigh(self, coefficients: Coefficients, features: Tensor) -> Tensor:
        """Through the fused attention of torch."""
        key, query, value = (_rows(x) for x in (*coefficients, features))  # (N, P, .)
        pad = (0, value.shape[2] - key.shape[2])
        q, k, x = (rows[:, None] for rows in (F.pad(query, pad), F.pad(key, pad), value))  # one head
        gathered: Tensor = F.scaled_dot_product_attention(q, k, x, scale=1.0)[:, 0]
        return gathered.transpose(1, 2).reshape(features.shape)

    def shown(self, coefficients: Coefficients) -> Tensor:
        """Share of all attention that each position receives, (N, 1, y, x) with sum 1; see `_received`."""
        key, query = coefficients
        return _received(_rows(key), _rows(query)).view(len(key), 1, *key.shape[2:])

    def towards(self, coefficients: Coefficients, position: tuple[int, int]) -> Tensor:
        """Where one position (y, x) looks: a column of S, (N, 1, y, x) with sum 1."""
        key, query = coefficients
        y, x = position
        score = torch.einsum("nchw,nc->nhw", key, query[:, :, y, x])
        return torch.softmax(score.flatten(1), dim=1).view(len(key), 1, *key.shape[2:])


def _rows(x: Tensor) -> Tensor:
    """(N, C, y, x) to (N, positions, C)."""
    return x.flatten(2).transpose(1, 2)


def _received(key: Tensor, query: Tensor) -> Tensor:
    """Share of all attention that each position receives, (N, P) with sum 1.

    Of more than `ASKED` positions some are asked, evenly spread: all would cost as much as the attention itself.
    """
    asked = query[:, :: -(-query.shape[1] // ASKED)]
    return torch.softmax(asked @ key.transpose(1, 2), dim=2).mean(1)


def cbr(in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution without bias, batch normalisation, ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def _to_grid(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Pool (3x3, stride 2) until the grid is reached, or interpolate up to it."""
    while any(n > g for n, g in zip(x.shape[2:], grid, strict=True)):
        x = F.max_pool2d(x, 3, stride=2, padding=1)
    return resize(x, grid)

"""ANU-Net (Li et al., "ANU-Net: Attention-based Nested U-Net", 2020), and UNet++, which is the same without gates.

Nodes X[i,j] stand on a triangle: i counts halvings of the grid, j steps along a row. X[i,0] is the encoder; every
other node joins all earlier nodes of its row, each through an attention gate, with the node below-left brought up
(Eq. 4, Fig. 5). The heads on X[0,1] ... X[0,L] see the full grid, so the net can be cut to a smaller one after
training (`prune`, Fig. 7). With default options the parameter counts of Table 6 come out to the last digit.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.nets.attention import leave_out, left_out
from attentus.nets.parts import (
    AttentionTap,
    Concatenate,
    Norm,
    Up,
    conv,
    crop_to,
    double_conv,
    max_pool,
    normalise,
    one_of,
    pad_to_multiple,
    up_step,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Gates = Literal["all", "last", "source", "separate", "none"]
GATE_FLOOR = 32  # smallest inner width of a gate; the published counts need it


class ANUNet(nn.Module):
    """Nested U-Net with an attention gate in front of every node.

    input    (N, in_channels, *spatial), any size: padded inside to multiples of 2^levels and cropped back
    returns  a tuple of logits (N, out_channels, *spatial): in training one per head, deepest first, [X04, X03, X02,
             X01]; in evaluation that of the deepest head

    Args:
        dims: 2 or 3.
        in_channels: channels of the image.
        out_channels: classes.
        levels: L, 1 to 4: how often the grid is halved, and how many heads there are.
        width: channels of the first level; each further level doubles them.
        gates: which skips of a node are gated, and how gates are shared. "all": every one, by one gate per node
            (Eq. 4). "last": only the nearest (the author's code). "source": every one, by one gate per skip's source.
            "separate": every one by its own gate. "none": UNet++.
        share_up: whether all nodes of a row share one way up (needed for the published counts).
        up: how features are brought up, see `parts.up_step`.
        norm: normalisation after every convolution of the nodes; "none" leaves it out.
        deep_supervision: whether all heads exist and learn; without, only the deepest does.
        ensemble: whether evaluation returns the mean of all heads' logits ("accurate mode" of UNet++).
    """

    def __init__(
        self,
        dims: int,
        in_channels: int,
        out_channels: int,
        *,
        levels: int = 4,
        width: int = 32,
        gates: Gates = "all",
        share_up: bool = True,
        up: Up = "transposed",
        norm: Norm = "batch",
        deep_supervision: bool = True,
        ensemble: bool = False,
    ) -> None:
        super().__init__()
        one_of("levels", levels, (1, 2, 3, 4))
        one_of("gates", gates, ("all", "last", "source", "separate", "none"))
        if ensemble and not deep_supervision:
            raise BadInput("ensemble averages the heads of deep supervision; without those there is only one.")
        self.made_from: dict[str, Any] = {
            "dims": dims,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "width": width,
            "gates": gates,
            "share_up": share_up,
            "up": up,
            "norm": norm,
            "ensemble": ensemble,
        }
        self.levels, self.gating, self.share_up, self.ensemble = levels, gates, share_up, ensemble
        self.multiple = 2**levels
        self.can_stop = deep_supervision and not ensemble
        self.supervision = (1.0,) * levels if deep_supervision else (1.0,)  # Eq. 8: a plain sum over the heads
        widths = [width * 2**i for i in range(levels + 1)]
        joins = [(i, j) for j in range(1, levels + 1) for i in range(levels + 1 - j)]

        self.pool = max_pool(dims)
        self.nodes = nn.ModuleDict(
            {f"x{i}_0": double_conv(dims, a, b, norm) for i, (a, b) in enumerate(pairwise([in_channels, *widths]))}
        )
        self.nodes.update({f"x{i}_{j}": double_conv(dims, (j + 1) * widths[i], widths[i], norm) for i, j in joins})
        self.join = Concatenate()
        self.ups = nn.ModuleDict()
        self.gates, self.attention = nn.ModuleDict(), nn.ModuleDict()
        for i, j in joins:
            if self._up(i, j) not in self.ups:
                self.ups[self._up(i, j)] = up_step(dims, widths[i + 1], widths[i], up, norm)
            for k in self._gated(j):
                gate = self._gate(i, j, k)
                self.attention[f"x{i}_{j}_from_x{i}_{k}"] = AttentionTap(made_by=[f"gates.{gate}"])
                if gate not in self.gates:
                    self.gates[gate] = Agreement(dims, widths[i], max(GATE_FLOOR, widths[i] // 2))
        heads = range(1, levels + 1) if deep_supervision else (levels,)
        self.heads = nn.ModuleDict({f"x0_{j}": conv(dims, width, out_channels, 1) for j in heads})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """(N, in_channels, *spatial) to a tuple of (N, out_channels, *spatial)."""
        nodes = self._nodes(pad_to_multiple(x, self.multiple))
        names = list(self.heads)[::-1]
        if not self.training and not self.ensemble:
            names = names[:1]
        logits = tuple(crop_to(self.heads[name](nodes[name]), x.shape[2:]) for name in names)
        if self.ensemble and not self.training:
            return (torch.stack(logits).mean(0),)
        return logits

    def forward_until(self, x: Tensor, agree: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """Head by head, each sample until two heads in a row agree: what lies deeper is never computed for it.

        Needs `can_stop`. A net of one level answers with its only head.

        Args:
            x: (N, in_channels, *spatial).
            agree: gets the logits of a head and of the next, (n, out_channels, *spatial) each, of those samples that
                are still open; returns (n,) booleans.

        Returns:
            Logits (N, out_channels, *spatial), each sample's from the second of the heads that agreed or from the
            deepest, and the level of that head, (N,) integers from 1.
        """
        nodes: dict[str, Tensor] = {}
        self._add_diagonal(nodes, pad_to_multiple(x, self.multiple), 0)
        still, before = torch.arange(len(x), device=x.device), None
        levels, found = torch.empty_like(still), []
        for depth in range(1, self.levels + 1):
            self._add_diagonal(nodes, x, depth)
            logits = crop_to(self.heads[f"x0_{depth}"](nodes[f"x0_{depth}"]), x.shape[2:])
            if depth == self.levels or before is None:
                done = torch.full_like(still, depth == self.levels, dtype=torch.bool)
            else:
                done = agree(before, logits)
            found.append((still[done], logits[done]))
            levels[still[done]] = depth
            if done.all():
                break
            if done.any():
                nodes = {name: node[~done] for name, node in nodes.items()}
            still, before = still[~done], logits[~done]
        order = torch.cat([samples for samples, _ in found]).argsort()
        return torch.cat([logits for _, logits in found])[order], levels

    def _nodes(self, x: Tensor) -> dict[str, Tensor]:
        nodes: dict[str, Tensor] = {}
        for depth in range(self.levels + 1):
            self._add_diagonal(nodes, x, depth)
        return nodes

    def _add_diagonal(self, nodes: dict[str, Tensor], x: Tensor, depth: int) -> None:
        """Add the nodes with i + j = depth, ending in the one with a head; they need only diagonals before."""
        nodes[f"x{depth}_0"] = self.nodes[f"x{depth}_0"](self.pool(nodes[f"x{depth - 1}_0"]) if depth else x)
        for j in range(1, depth + 1):
            i = depth - j
            nodes[f"x{i}_{j}"] = self.nodes[f"x{i}_{j}"](self._join(nodes, i, j))

    def _join(self, nodes: dict[str, Tensor], i: int, j: int) -> Tensor:
        """What node (i, j) sees (Eq. 4)."""
        signal = self.ups[self._up(i, j)](nodes[f"x{i + 1}_{j - 1}"])  # g in Eq. 1-4
        skips = [self._pass(nodes[f"x{i}_{k}"], signal, i, j, k) for k in range(j)]
        joint: Tensor = self.join(*skips, signal)
        return joint

    def _pass(self, skip: Tensor, signal: Tensor, i: int, j: int, k: int) -> Tensor:
        """What node (i, j) gets of X[i,k]."""
        if k not in self._gated(j):
            return skip
        tap = self.attention[f"x{i}_{j}_from_x{i}_{k}"]
        alpha = None if tap.left_out else self.gates[self._gate(i, j, k)](skip, signal)
        return tap(alpha, skip)  # type: ignore[no-any-return]

    def _gated(self, j: int) -> range:
        """Those k < j whose skips into column j are gated."""
        return {"none": range(0), "last": range(j - 1, j)}.get(self.gating, range(j))

    def _gate(self, i: int, j: int, k: int) -> str:
        """The gate in charge of the skip from (i, k) to (i, j)."""
        shared = {"source": f"x{i}_{k}", "separate": f"x{i}_{j}_from_x{i}_{k}"}
        return shared.get(self.gating, f"x{i}_{j}")

    def _up(self, i: int, j: int) -> str:
        return f"row{i}" if self.share_up else f"x{i}_{j}"

    def prune(self, level: int) -> ANUNet:
        """A smaller, complete copy: the first `level` diagonals, in evaluation equal to head `level` of this net.

        The equality is exact, bit for bit, for inputs that need no padding in either net. All heads up to the level
        are kept, as Table 6 counts them.

        Args:
            level: 1 to the levels of this net.

        Raises:
            BadInput: no such level, or a net that was trained without the head of that level.
        """
        if level not in range(1, self.levels + 1):
            raise BadInput(f"This net has {self.levels} levels; it cannot be pruned to {level}.")
        if f"x0_{level}" not in self.heads:
            raise BadInput(f"Level {level} has no head: this net was made with deep_supervision=False.")
        smaller = ANUNet(**self.made_from, levels=level, deep_supervision=len(self.heads) > 1 or self.levels == 1)
        leave_out(smaller, left_out(self, within=smaller))
        kept = smaller.state_dict().keys()
        smaller.load_state_dict({name: value for name, value in self.state_dict().items() if name in kept})
        return smaller.to(next(self.parameters())).train(self.training)


class Agreement(nn.Module):
    """Additive attention where skip and signal share a grid (Eq. 1-2, Fig. 3); each 1x1 convolution is normalised.

    skip, signal  (N, C, *spatial)
    returns       (N, 1, *spatial) coefficients in 0..1
    """

    def __init__(self, dims: int, channels: int, inner: int) -> None:
        super().__init__()
        self.of_skip = nn.Sequential(conv(dims, channels, inner, 1), normalise(dims, inner))
        self.of_signal = nn.Sequential(conv(dims, channels, inner, 1), normalise(dims, inner))
        self.score = nn.Sequential(conv(dims, inner, 1, 1), normalise(dims, 1))

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """How well each voxel of the skip agrees with the signal."""
        agreement = torch.relu_(self.of_skip(skip).add_(self.of_signal(signal)))  # F in Eq. 1, (N, inner, *spatial)
        return torch.sigmoid(self.score(agreement))


class SameGridGate(nn.Module):
    """A skip weighed by its agreement with a signal on the same grid (Eq. 1-3).

    skip, signal  (N, C, *spatial)
    returns       (N, C, *spatial), the skip times one coefficient in 0..1 per voxel
    """

    def __init__(self, dims: int, channels: int, inner: int) -> None:
        super().__init__()
        self.agreement = Agreement(dims, channels, inner)
        self.alpha = AttentionTap(made_by=["agreement"])

    def forward(self, skip: Tensor, signal: Tensor) -> Tensor:
        """Weigh the skip by how well it agrees with the signal."""
        alpha = None if self.alpha.left_out else self.agreement(skip, signal)
        return self.alpha(alpha, skip)  # type: ignore[no-any-return]


def unet_plus_plus(
    dims: int,
    in_channels: int,
    out_channels: int,
    *,
    levels: int = 4,
    width: int = 32,
    share_up: bool = True,
    up: Up = "transposed",
    norm: Norm = "batch",
    deep_supervision: bool = True,
    ensemble: bool = False,
) -> ANUNet:
    """UNet++ (Zhou et al. 2018): the nested U-Net without gates. Options as in `ANUNet`."""
    options: dict[str, Any] = {"levels": levels, "width": width, "share_up": share_up, "up": up, "norm": norm}
    options |= {"deep_supervision": deep_supervision, "ensemble": ensemble}
    return ANUNet(dims, in_channels, out_channels, gates="none", **options)

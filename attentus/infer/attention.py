"""Attention as maps while a scan is segmented: one map per module, stitched by the same windows as the prediction.

A module with a map per channel is shown by their mean. Vectors, a factor per channel, are no maps: their mean and
spread over the windows is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attentus import nets
from attentus.infer.sliding import laid_over
from attentus.metrics.attention import score_map

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from attentus.infer.sliding import Maps
    from attentus.metrics.attention import Target
    from attentus.nets.parts import AttentionTap, Coefficients
    from attentus.transforms.prepare import WayBack
    from attentus.types import Volume

FEW = 2**26
"""Bytes of maps that are held in memory."""
LAYERS = "layers"
"""The name under which the maps of all modules come, one behind the other."""


@dataclass
class Vector:
    """Factors per channel over all windows, (C,)."""

    total: Tensor
    squares: Tensor
    windows: int = 0

    def add(self, factors: Tensor) -> None:
        """Count factors (N, C) of N windows."""
        wide = factors.double()
        self.total += wide.sum(0)
        self.squares += wide.square().sum(0)
        self.windows += len(factors)

    @property
    def mean(self) -> list[float]:
        """Of each channel."""
        return [float(v) for v in self.total / self.windows]

    @property
    def sd(self) -> list[float]:
        """Of each channel, over the windows (n)."""
        spread = self.squares / self.windows - (self.total / self.windows).square()
        return [float(v) for v in spread.clamp_min(0).sqrt()]


class Capture:
    """A net as a function of windows that also returns its attention, inside a `with` block of its own.

    Args:
        net: in evaluation mode.
        dims: 2 for nets that take slices.
        device: where the net lives.
        features: also return what goes into each module and what comes out, the mean size over the channels.
    """

    def __init__(self, net: nn.Module, dims: int, device: torch.device, *, features: bool = False) -> None:
        self.net, self.dims, self.device, self.features = net, dims, device, features
        self.vectors: dict[str, Vector] = {}
        self.sizes: dict[tuple[str, str], tuple[int, ...]] = {}
        """Resolution of each layer in a window, as the module has it; known after the first pass."""
        self._seen: dict[tuple[str, str], list[Tensor]] = {}
        self._taps = nets.taps(net)
        self.keep_only(tuple(self._taps))

    def keep_only(self, names: Sequence[str]) -> None:
        """Look at these modules and at no others."""
        self.kinds = {name: self._taps[name].kind for name in names}
        self.layers = [(name, "attention") for name, kind in self.kinds.items() if kind != "channel"]
        if self.features:
            self.layers += [(name, what) for name in self.kinds for what in ("before", "after")]

    def __enter__(self) -> Capture:
        """Begin to listen."""
        self._open = nets.watching({name: self._taps[name] for name in self.kinds}, self._see)
        self._open.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        self._open.__exit__(None, None, None)

    @contextmanager
    def vectors_left_alone(self) -> Iterator[None]:
        """Passes made inside the `with` block do not count for vectors."""
        before = self.vectors
        self.vectors = {}
        try:
            yield
        finally:
            self.vectors = before

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.float32]) -> Maps:
        """Windows (N, C, z, y, x) to "logits" (N, K, z, y, x) and `LAYERS` (N, len(layers), z, y, x)."""
        x = torch.from_numpy(windows).to(self.device)
        flat = x[:, :, 0] if self.dims == 2 else x
        self._seen.clear()
        maps = {"logits": self.net(flat)[0].float()}
        if self.layers:
            maps[LAYERS] = self._stacked(flat.shape[2:])
        return {name: (v[:, :, None] if self.dims == 2 else v).cpu().numpy() for name, v in maps.items()}

    def _see(self, name: str, tap: AttentionTap, coefficients: Coefficients, before: Tensor, after: Tensor) -> None:
        shown = tap.shown(coefficients)
        if tap.kind == "channel":
            factors = shown.flatten(1).cpu()
            empty = torch.zeros(factors.shape[1], dtype=torch.float64)
            self.vectors.setdefault(name, Vector(empty, empty.clone())).add(factors)
        else:
            self._keep(name, "attention", one_map(tap, shown))
        if self.features:
            self._keep(name, "before", before.abs().mean(1, keepdim=True))
            self._keep(name, "after", after.abs().mean(1, keepdim=True))

    def _keep(self, name: str, what: str, one: Tensor) -> None:
        self._seen.setdefault((name, what), []).append(one)

    def _stacked(self, size: torch.Size) -> Tensor:
        """All layers of the pass on the voxels of its windows; those of one resolution are brought there together."""
        alike: dict[torch.Size, list[int]] = {}
        found = []
        for place, layer in enumerate(self.layers):
            passes = self._seen[layer]  # several where a module is used more than once, as shared branches are
            found.append(passes[0] if len(passes) == 1 else torch.stack(passes).mean(0))
            alike.setdefault(found[-1].shape[2:], []).append(place)
            self.sizes[layer] = tuple(found[-1].shape[2:])
        out = found[0].new_empty((len(found[0]), len(found), *size), dtype=torch.float32)
        for places in alike.values():
            out[:, places] = laid_over(self.net, torch.cat([found[place] for place in places], dim=1), size)
        return out


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Inside the `with` block the net is in evaluation mode."""
    was_training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(was_training)


def one_map(tap: AttentionTap, shown: Tensor) -> Tensor:
    """What is heard of a module as one map, (N, 1, *spatial): mean of several; received shares times the positions.

    So 1 is full attention for factors, and for shares what every position would get if all were alike.
    """
    if tap.kind == "received":
        return shown * shown[0, 0].numel()
    return shown if shown.shape[1] == 1 else shown.mean(1, keepdim=True)


def scored(
    capture: Capture, maps: Iterable[tuple[str, NDArray[Any]]], targets: Mapping[str, Target]
) -> dict[str, dict[str, Any]]:
    """Numbers for every module that was looked at.

    Args:
        capture: after its passes.
        maps: name of a module and its map (z, y, x), one at a time.
        targets: by name, what maps are compared with; see `score_map`.

    Returns:
        Module to "kind" and, for a map, what `score_map` says, for factors of channels their number and mean.
    """
    found: dict[str, dict[str, Any]] = {name: {"kind": kind} for name, kind in capture.kinds.items()}
    for name, vector in capture.vectors.items():
        found[name] |= {"channels": len(vector.mean), "mean": float(np.mean(vector.mean))}
    for name, one in maps:
        found[name] |= score_map(one, targets)
    return found


class Layers(Mapping[str, "Volume"]):
    """Maps on the prepared grid, each brought to the scan's own when it is asked for: one whole map at a time.

    Args:
        arrays: name to map (z, y, x), half precision.
        way: the way back.
        scan: in its canonical orientation.
    """

    def __init__(self, arrays: Mapping[str, NDArray[np.float16]], way: WayBack, scan: Volume) -> None:
        self.arrays, self.way, self.scan = dict(arrays), way, scan

    def __getitem__(self, name: str) -> Volume:
        """A map (1, z, y, x) float32, interpolated as the logits are; 0 outside the crop."""
        array = self.arrays[name]
        whole = np.zeros((1, *self.scan.grid.shape), np.float32)
        inside = whole[(slice(None), *self.way.box)]
        for step in self.way.plan(1):
            inside[:, step.rows] = self.way.bring(np.asarray(array[None, step.needs], np.float32), step)
        return self.scan.like(whole)

    def __iter__(self) -> Iterator[str]:
        """Names."""
        return iter(self.arrays)

    def __len__(self) -> int:
        """How many."""
        return len(self.arrays)

    def __contains__(self, name: object) -> bool:
        """Whether there is such a map; nothing is brought anywhere."""
        return name in self.arrays


def on_disk(shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Zeros, in memory if they are few, else in a temporary file, which goes when nobody holds them any more."""
    if 2 * math.prod(shape) <= FEW:
        return np.zeros(shape, np.float16)
    with TemporaryFile(prefix="attentus-") as file:  # the mapping keeps it after it is closed
        array: NDArray[np.float16] = np.memmap(file, np.float16, "w+", shape=shape)
    return array

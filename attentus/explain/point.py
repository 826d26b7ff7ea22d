"""Where one point of a scan looks, in modules whose positions look at each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from attentus import nets
from attentus.data.patches import window as cut
from attentus.infer.sliding import laid_over

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from attentus.infer.model import Model
    from attentus.infer.sliding import Window
    from attentus.nets.parts import AttentionTap, Coefficients
    from attentus.transforms.prepare import Preparation
    from attentus.types import Volume

    Corner = tuple[int, int, int]


def towards(model: Model, scan: Preparation, volume: Volume, point: Corner) -> dict[str, NDArray[np.float16]]:
    """The share of its attention that a point gives to every voxel, times the positions it could look at.

    Only windows that hold the point have an answer; they are blended as in the prediction.

    Args:
        model: with modules of kind "received".
        scan: the volume, prepared for it.
        volume: in its canonical orientation.
        point: voxel (z, y, x) of it.

    Returns:
        Module to map (z, y, x) on the prepared grid; 0 where no window with the point reaches.
    """
    wished = [round(float(v)) for v in scan.grid.index(volume.grid.world(point))]
    z, y, x = (min(max(at, 0), n - 1) for at, n in zip(wished, scan.grid.shape, strict=True))
    at, how = (z, y, x), model.window
    reached = [start for start in how.starts(scan.grid.shape) if _holds(start, how.size, at)]
    weights = np.zeros(scan.grid.shape, np.float32)
    sums: dict[str, NDArray[np.float32]] = {}
    for start in reached:
        inside = [slice(max(s, 0), min(s + n, full)) for s, n, full in zip(start, how.size, weights.shape, strict=True)]
        own = tuple(slice(i.start - s, i.stop - s) for i, s in zip(inside, start, strict=True))
        place, weight = tuple(inside), how.weight()[own]
        weights[place] += weight
        for name, share in _of_window(model, scan, how, start, at).items():
            sums.setdefault(name, np.zeros_like(weights))[place] += share[own] * weight
    np.maximum(weights, np.finfo(np.float32).tiny, out=weights)
    return {name: (total / weights).astype(np.float16) for name, total in sums.items()}


def _holds(start: Corner, size: Corner, at: Corner) -> bool:
    return all(s <= a < s + n for s, n, a in zip(start, size, at, strict=True))


@torch.inference_mode()
def _of_window(
    model: Model, scan: Preparation, how: Window, start: Corner, at: Corner
) -> dict[str, NDArray[np.float32]]:
    """Maps (z, y, x) of one window."""
    z, y, x = start
    rows = scan.rows(max(z, 0), min(z + how.size[0], scan.grid.shape[0]))
    one = torch.from_numpy(cut(rows, (min(z, 0), y, x), how.size, scan.outside)[None])
    flat = one.to(next(model.net.parameters()).device)[:, :, 0]  # such modules are in 2D nets
    found: dict[str, NDArray[np.float32]] = {}

    def look(name: str, tap: AttentionTap, coefficients: Coefficients, _before: Tensor, _after: Tensor) -> None:
        if tap.kind == "received":
            grid = coefficients[0].shape[2:]
            place = tuple(
                min(int((a - s + 0.5) * n / size), n - 1)
                for a, s, n, size in zip(at[1:], start[1:], grid, flat.shape[2:], strict=True)
            )
            share = tap.towards(coefficients, place)  # type: ignore[operator]
            share = laid_over(model.net, share * share[0].numel(), flat.shape[2:])
            found[name] = share[0].cpu().numpy()

    with nets.watching(model.net, look):
        model.net(flat)
    return found

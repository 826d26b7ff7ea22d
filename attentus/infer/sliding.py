"""Sliding-window inference: overlapping windows, blended, with a canvas that rolls along z.

No whole map of a scan is ever held. Windows are computed in the order of z; as soon as no later window reaches a row,
it is final and can be taken, and what has been taken is forgotten. The numbers do not depend on how many rows are
taken at a time: every voxel is summed over the same windows in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, combinations, product
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from attentus.data.patches import window
from attentus.nets import listening
from attentus.nets.parts import crop_to, resize

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from attentus.progress import Task

    Maps = dict[str, NDArray[np.float32]]
    Run = Callable[[NDArray[np.float32]], Maps]
    """A net on windows (N, C, z, y, x): maps by name, "logits" among them, each (N, K, z, y, x)."""

SIGMA = 1 / 8
"""Standard deviation of the Gaussian blending weight, as a share of the window (nnU-Net's choice)."""
SURE = 10.0
"""Logit of background in a window that is skipped because there is nothing in it."""
ROWS_AT_ONCE = 16
"""Of a window's, that are added to the canvas."""


@dataclass(frozen=True)
class Window:
    """How a scan is walked over.

    Args:
        size: (z, y, x) voxels; z is 1 for 2D nets.
        overlap: share of a window that its neighbour covers, too.
        blend: "gaussian" or "constant".
        batch: windows per forward pass.
    """

    size: tuple[int, int, int]
    overlap: float = 0.5
    blend: str = "gaussian"
    batch: int = 1

    def starts(self, shape: Sequence[int]) -> list[tuple[int, int, int]]:
        """First voxels of all windows over a scan; evenly spread, at least as dense as the overlap asks."""
        axes = [_starts(full, size, self.overlap) for full, size in zip(shape, self.size, strict=True)]
        return [(z, y, x) for z, y, x in product(*axes)]

    def weights(self) -> tuple[NDArray[np.float32], ...]:
        """Blending weight along each axis, largest 1; that of a voxel is the product of three."""
        if self.blend == "constant":
            return tuple(np.ones(n, np.float32) for n in self.size)
        axes = []
        for n in self.size:
            offset = (np.arange(n) - (n - 1) / 2) / max(n * SIGMA, 1e-6)
            weight = np.exp(-0.5 * offset**2)
            axes.append((weight / weight.max()).astype(np.float32))
        return tuple(axes)

    def weight(self) -> NDArray[np.float32]:
        """Blending weight of each voxel of a window, (z, y, x), largest 1."""
        z, y, x = self.weights()
        return z[:, None, None] * y[:, None] * x

    def totals(self, shape: Sequence[int]) -> tuple[NDArray[np.float32], ...]:
        """Sum of the weights of all windows over a scan, along each axis."""
        sums = []
        for full, size, weight in zip(shape, self.size, self.weights(), strict=True):
            total = np.zeros(full, np.float32)
            for start in _starts(full, size, self.overlap):
                low, high = max(start, 0), min(start + size, full)
                total[low:high] += weight[low - start : high - start]
            sums.append(total)
        return tuple(sums)


class Source(Protocol):
    """A prepared scan that can be had row by row: (C, rows, y, x)."""

    def __call__(self, first: int, last: int) -> NDArray[np.float32]:
        """Rows first..last."""
        ...


@dataclass(frozen=True)
class Options:
    """What may be done with a window besides running the net once.

    Args:
        mirror: axes of the array (2 z, 3 y, 4 x of N, C, z, y, x) to flip; the mean of all combinations is taken.
        skip: values per channel; a window in which no channel exceeds its own is background without being looked at.
            Channels that a member carries along beside the scan's have none.
        background: the first map is background (not so for regions).
    """

    mirror: tuple[int, ...] = ()
    skip: tuple[float, ...] | None = None
    background: bool = True


@dataclass(eq=False)
class Walk:
    """A net on its way through a scan.

    Args:
        run: the net.
        source: the scan.
        shape: of the scan, (z, y, x).
        outside: value per channel beyond the scan.
        how: windows.
        options: flips and skipping.
        ahead: rows that are taken at a time, at most.
        task: told of every window that is done.
        on_disk: the canvas is a temporary file, for machines with little memory.
    """

    run: Run
    source: Source
    shape: tuple[int, int, int]
    outside: Sequence[float]
    how: Window
    options: Options = Options()
    ahead: int = 1
    task: Task | None = None
    on_disk: bool = False
    skipped: int = 0
    """Windows that were not looked at."""
    _canvas: dict[str, Ring] = field(default_factory=dict)
    _chunks: list[list[tuple[int, int, int]]] = field(default_factory=list)
    _done: int = 0
    _layer: tuple[int, NDArray[np.float32]] | None = None
    _low: int = 0

    def __post_init__(self) -> None:
        starts, batch = self.how.starts(self.shape), self.how.batch
        self._chunks = [starts[k : k + batch] for k in range(0, len(starts), batch)]
        self._totals = self.how.totals(self.shape)
        self._weight = torch.from_numpy(self.how.weight())

    @property
    def capacity(self) -> int:
        """Rows of the canvas: those being taken, the windows under way, and what a chunk of them spans."""
        span = max(chunk[-1][0] - chunk[0][0] for chunk in self._chunks)
        return min(self.how.size[0] + span + self.ahead, self.shape[0])

    def rows(self, first: int, last: int) -> Maps:
        """Weighted means of all maps in rows first..last, (K, rows, y, x); earlier rows are forgotten."""
        for ring in self._canvas.values():
            ring.forget(first)
        self._low = first
        while not self.ready(last):
            self._advance()
        z, y, x = self._totals
        total = z[first:last, None, None] * y[:, None] * x
        return {name: ring.take(first, last) / total for name, ring in self._canvas.items()}

    def ready(self, last: int) -> bool:
        """Whether the rows below one can be had without another window."""
        return self._final >= last

    def logits(self, first: int, last: int) -> NDArray[np.float32]:
        """`rows` of the logits alone."""
        return self.rows(first, last)["logits"]

    @property
    def _final(self) -> int:
        """Rows below this one will not change any more."""
        return self.shape[0] if self._done == len(self._chunks) else max(self._chunks[self._done][0][0], 0)

    def _advance(self) -> None:
        chunk = self._chunks[self._done]
        cut = [self._window(start) for start in chunk]
        full = [k for k, one in enumerate(cut) if not self._empty(one)]
        maps = _flipped(self.run, np.stack([cut[k] for k in full]), self.options.mirror) if full else {}
        for name, values in maps.items():
            for k, one in zip(full, torch.from_numpy(values), strict=True):
                self._add(name, one, chunk[k])
        for k in set(range(len(chunk))) - set(full):
            self._add_background(chunk[k])
        self._done += 1
        if self.task:
            self.task.advance(len(chunk))

    def _window(self, start: tuple[int, int, int]) -> NDArray[np.float32]:
        """A window; its rows are kept for the others of the same layer, and for the layer that comes next."""
        z, y, x = start
        first, last = max(z, 0), min(z + self.how.size[0], self.shape[0])
        return window(self._layer_of(first, last), (min(z, 0), y, x), self.how.size, self.outside)

    def _layer_of(self, first: int, last: int) -> NDArray[np.float32]:
        """Rows first..last of the scan. Those that the layer before had, too, move up: none is prepared twice."""
        if self._layer is None or self._layer[1].shape[1] != last - first:
            self._layer = first, self.source(first, last).copy()  # it may be a part of something that others hold
        before, rows = self._layer
        if moved := first - before:
            kept = max(last - first - moved, 0)
            for row in range(kept):
                rows[:, row] = rows[:, row + moved]
            rows[:, kept:] = self.source(first + kept, last)
            self._layer = first, rows
        return rows

    def _empty(self, one: NDArray[np.float32]) -> bool:
        limits = self.options.skip
        return limits is not None and all(c.max() <= limit for c, limit in zip(one, limits, strict=False))

    def _add(self, name: str, maps: Tensor, start: tuple[int, int, int]) -> None:
        if name not in self._canvas:
            self._canvas[name] = self._ring(len(maps))
        target, inside = _inside(start, self.how.size, self.shape)
        self._canvas[name].add(maps[(slice(None), *inside)], self._weight[inside], target)

    def _add_background(self, start: tuple[int, int, int]) -> None:
        self.skipped += 1
        for name, ring in self._known().items():
            maps = torch.full((ring.maps, 1, 1, 1), -SURE if name == "logits" else 0.0)
            if name == "logits" and self.options.background:
                maps[0] = SURE
            self._add(name, maps.expand(-1, *self.how.size), start)

    def _ring(self, maps: int) -> Ring:
        return Ring(maps, self.capacity, self.shape, self._low, self.on_disk)

    def _known(self) -> dict[str, Ring]:
        """The canvases; if no window has been looked at yet, one is, to learn which maps there are."""
        if not self._canvas:
            for name, values in self.run(self._window(self._chunks[self._done][0])[None]).items():
                self._canvas[name] = self._ring(values.shape[1])
        return self._canvas


@dataclass(eq=False)
class Ring:
    """Sums of weighted windows for some rows of a scan: row z lies at z modulo the capacity."""

    maps: int
    capacity: int
    shape: tuple[int, int, int]
    low: int = 0
    """Rows below are forgotten."""
    on_disk: bool = False

    def __post_init__(self) -> None:
        shape = (self.maps, self.capacity, *self.shape[1:])
        if self.on_disk:
            with TemporaryFile(prefix="attentus-") as file:  # the mapping keeps it after it is closed
                self.sums: NDArray[np.float32] = np.memmap(file, np.float32, "w+", shape=shape)
        else:
            self.sums = np.zeros(shape, np.float32)

    def add(self, maps: Tensor, weight: Tensor, target: tuple[slice, ...]) -> None:
        """Add maps (K, rows, y, x), weighted, to a place of the scan; rows that are forgotten are left out.

        Products are taken few at a time, so that caches hold them, and apart from sums: both at once round otherwise
        at the ends of rows than within, on some processors, and bits depended on the canvas.
        """
        z, y, x = target
        sums = torch.from_numpy(self.sums)
        for row in range(max(z.start, self.low), z.stop, ROWS_AT_ONCE):
            for place, part in self._pieces(row, min(row + ROWS_AT_ONCE, z.stop)):
                rows = slice(row - z.start + part.start, row - z.start + part.stop)
                sums[:, place, y, x] += maps[:, rows] * weight[rows]

    def take(self, first: int, last: int) -> NDArray[np.float32]:
        """A copy of rows first..last."""
        return np.concatenate([self.sums[:, place] for place, _ in self._pieces(first, last)], axis=1)

    def forget(self, first: int) -> None:
        """Free the rows before one."""
        for place, _ in self._pieces(self.low, max(first, self.low)):
            self.sums[:, place] = 0
        self.low = max(first, self.low)

    def _pieces(self, first: int, last: int) -> Iterator[tuple[slice, slice]]:
        """Rows as places in the ring, and as parts of themselves."""
        z = first
        while z < last:
            place = z % self.capacity
            count = min(last - z, self.capacity - place)
            yield slice(place, place + count), slice(z - first, z - first + count)
            z += count


def sliding_window(
    net: nn.Module,
    array: NDArray[np.float32],
    how: Window,
    *,
    dims: int = 3,
    device: torch.device | str = "cpu",
    attention: bool = False,
    task: Task | None = None,
) -> Maps:
    """Run a net over a scan that is in memory, and get whole maps.

    Args:
        net: takes (N, C, *spatial), returns a tuple of logits; put into evaluation mode for the while.
        array: (C, z, y, x).
        how: size of the window, overlap, blending, batch.
        dims: 2 runs slices as a batch.
        device: where the net lives.
        attention: collect attention coefficients, too.
        task: told of every window that is done.

    Returns:
        "logits" (K, z, y, x) and, if asked for, each attention module's coefficients (maps, z, y, x) by its name,
        brought to the scan's voxels and blended like the logits.
    """
    z, y, x = array.shape[1:]
    outside = array.reshape(len(array), -1).min(axis=1).tolist()
    run = runner(net, dims, device, attention=attention)
    walk = Walk(run, lambda a, b: array[:, a:b], (z, y, x), outside, how, ahead=z, task=task)
    was_training = net.training
    net.eval()
    try:
        return walk.rows(0, z)
    finally:
        net.train(was_training)


def runner(net: nn.Module, dims: int, device: torch.device | str = "cpu", *, attention: bool = False) -> Run:
    """A net as a function of windows; attention coefficients come in the window's size.

    Args:
        net: in evaluation mode.
        dims: 2 for nets that take slices.
        device: where the net lives.
        attention: return the coefficients of every attention module, too.
    """

    @torch.inference_mode()
    def run(windows: NDArray[np.float32]) -> Maps:
        x = torch.from_numpy(windows).to(device)
        flat = x[:, :, 0] if dims == 2 else x
        maps: dict[str, Tensor] = {}
        if attention:
            with listening(net) as heard:
                maps["logits"] = net(flat)[0]
            maps |= {name: laid_over(net, alpha, flat.shape[2:]) for name, alpha in heard.items()}
        else:
            maps["logits"] = net(flat)[0]
        return {k: (v.float()[:, :, None] if dims == 2 else v.float()).cpu().numpy() for k, v in maps.items()}

    return run


def laid_over(net: nn.Module, maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps (N, K, *own) of what a net saw of a window, brought to the window's voxels.

    What the net pads inside, to multiples of its `multiple`, lies behind the far borders and is cut off again.
    """
    multiple = int(getattr(net, "multiple", 1))
    return crop_to(resize(maps.float(), [-(-n // multiple) * multiple for n in size]), size)


def _flipped(run: Run, windows: NDArray[np.float32], axes: Sequence[int]) -> Maps:
    """Mean over all flips along some axes, each turned back."""
    choices = list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))
    if len(choices) == 1:
        return run(windows)
    sums: Maps = {}
    for flip in choices:
        for name, maps in run(np.ascontiguousarray(np.flip(windows, flip))).items():
            turned = np.flip(maps, flip) / np.float32(len(choices))
            sums[name] = sums[name] + turned if name in sums else turned
    return sums


def _starts(full: int, size: int, overlap: float) -> list[int]:
    """Evenly spread first voxels along one axis; a window larger than the scan is centred on it."""
    if full <= size:
        return [(full - size) // 2]
    count = int(np.ceil((full - size) / max(size * (1 - overlap), 1))) + 1
    return [round(k * (full - size) / (count - 1)) for k in range(count)]


def _inside(
    start: Sequence[int], size: Sequence[int], shape: Sequence[int]
) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """The part of a window that lies in the scan: as slices of the scan and as slices of the window."""
    target = tuple(slice(max(s, 0), min(s + n, full)) for s, n, full in zip(start, size, shape, strict=True))
    source = tuple(slice(t.start - s, t.stop - s) for t, s in zip(target, start, strict=True))
    return target, source

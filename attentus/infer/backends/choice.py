"""Choose a backend by trying: it has to win back what it costs to set up."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Literal

import numpy as np

from attentus.infer import backends
from attentus.infer.backends import int8, openvino_runner
from attentus.infer.processor import release_memory

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from attentus.infer.backends import Runner

Precision = Literal["fp32", "bf16", "int8"]

ON_PROCESSOR: dict[Precision, tuple[str, ...]] = {
    "fp32": ("openvino",),
    "bf16": ("openvino-bf16", "torch-bf16", "openvino"),
    "int8": ("openvino-int8", "openvino-bf16", "torch-bf16", "openvino"),
}
"""What may replace torch when numbers may be no rougher than these."""
ON_GPU: dict[Precision, tuple[str, ...]] = {
    "fp32": (),
    "bf16": ("torch-cuda-graph", "torch-bf16"),
    "int8": ("torch-cuda-graph", "torch-bf16"),
}
GAIN = {"openvino": 1.2, "openvino-bf16": 2.0, "openvino-int8": 3.5, "torch-bf16": 1.5, "torch-cuda-graph": 2.0}
"""How many times faster than torch in fp32 a backend is at least expected to be; it is tried if that would pay."""
SET_UP_S = 5.0
"""Seconds that converting and compiling take besides passes over windows."""
PASSES = 2.0
"""Passes in torch that converting costs as much as; quantising as many as three times its windows on top."""
LARGE = 96**3
"""Voxels of a window that is not looked at as a whole."""
MARGIN = 2.0
"""How many times the expected cost must be won back, because both are guesses."""


def choose(
    net: nn.Module,
    shape: tuple[int, ...],
    windows: int,
    *,
    precision: Precision = "fp32",
    cache: Path | None = None,
    threads: int | None = None,
    calibration: Iterable[NDArray[np.float32]] = (),
) -> Runner:
    """The backend that finishes a job first, setting it up included.

    torch runs one batch; of the backends that promise to win back their cost on the rest of the job, the one that
    promises to end first is set up and timed, too, and the faster of both stays. A converted network in the cache costs
    next to nothing, so that even short jobs use it.

    Args:
        net: see `create`, as for the others.
        shape: (N, C, *spatial) of a batch of windows.
        windows: how many the job has.
        precision: the roughest numbers allowed.
        cache: as for `create`.
        threads: as for `create`.
        calibration: as for `create`; without any, int8 is taken from the cache or not at all.
    """
    plain = backends.create("torch", net, shape, threads=threads)
    listed = _candidates(net, shape, precision, cache, calibration)
    batches = -(-windows // shape[0])
    if not listed or batches < 2:
        return plain
    seconds = _clock_part(plain, shape, getattr(net, "multiple", 1))
    name = _worth(listed, shape, seconds, batches - 1)
    if name is None:
        return plain
    release_memory()
    other = backends.create(name, net, shape, cache=cache, threads=threads, calibration=calibration)
    release_memory()  # conversion runs the net in torch, too
    other(np.zeros(shape, np.float32))  # the first pass also fetches memory
    return other if _clock(other, shape) < seconds else plain


def _candidates(
    net: nn.Module,
    shape: tuple[int, ...],
    precision: Precision,
    cache: Path | None,
    calibration: Iterable[NDArray[np.float32]],
) -> dict[str, bool]:
    """The backends that can be had here, and whether each is converted already."""
    on_gpu = next(net.parameters()).device.type == "cuda"
    names = [name for name in (ON_GPU if on_gpu else ON_PROCESSOR)[precision] if not backends.missing(name)]
    listed = {name: _is_ready(name, net, shape, cache) for name in names}
    flat = len(shape) == 4 and "openvino-bf16" in listed  # on slices, bf16 is as fast as int8, and closer
    if "openvino-int8" in listed and (flat or (calibration == () and not listed["openvino-int8"])):
        del listed["openvino-int8"]
    return listed


def _worth(listed: dict[str, bool], shape: tuple[int, ...], seconds: float, batches: int) -> str | None:
    """The backend that promises to end first; None if none wins back its cost, with a margin.

    Args:
        listed: see `_candidates`.
        shape: of a batch.
        seconds: that torch takes for a batch.
        batches: still to do.
    """
    ends: dict[str, float] = {}
    for name, ready in listed.items():
        passes = PASSES + (3 * int8.windows_for(shape) / shape[0] if name == "openvino-int8" else 0)
        cost = 1.0 if ready else SET_UP_S + passes * seconds
        rest = batches * seconds / GAIN[name]
        if batches * seconds - rest >= MARGIN * cost:
            ends[name] = cost + rest
    return min(ends, key=lambda name: ends[name], default=None)


def _is_ready(name: str, net: nn.Module, shape: tuple[int, ...], cache: Path | None) -> bool:
    """Whether a converted network lies in the cache."""
    if not cache or not name.startswith("openvino"):
        return False
    return (cache / openvino_runner.cached_name(name, net, shape)).is_file()


def _clock_part(runner: Runner, shape: tuple[int, ...], multiple: int) -> float:
    """Seconds of one batch of a runner that takes any size; large windows are halved, so that a look costs less memory.

    Args:
        runner: torch.
        shape: of a batch.
        multiple: of what the sides of a window have to be.
    """
    if math.prod(shape[2:]) < LARGE or shape[2] % (2 * multiple):
        return _clock(runner, shape)
    return 2 * _clock(runner, (*shape[:2], shape[2] // 2, *shape[3:]))


def _clock(runner: Runner, shape: tuple[int, ...]) -> float:
    """Seconds of one batch."""
    batch = np.zeros(shape, np.float32)
    started = time.perf_counter()
    runner(batch)
    return time.perf_counter() - started

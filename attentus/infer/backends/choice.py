"""Choose a backend by trying: it has to win back what it costs to set up."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from attentus.errors import Unusable
from attentus.infer import backends
from attentus.infer.backends import int8, openvino_net, torch_runner, winograd
from attentus.infer.backends.timings import Timings
from attentus.infer.processor import cpu_has_tiles, keep_no_memory, release_memory

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from attentus.infer.backends import Runner

Precision = Literal["fp32", "bf16", "int8"]

ON_PROCESSOR: dict[Precision, tuple[str, ...]] = {
    "fp32": ("winograd", "openvino"),
    "bf16": ("winograd-bf16", "winograd", "openvino-bf16", "torch-bf16", "openvino"),
    "int8": ("openvino-int8", "winograd-bf16", "winograd", "openvino-bf16", "torch-bf16", "openvino"),
}
"""What may replace torch when numbers may be no rougher than these."""
ON_GPU: dict[Precision, tuple[str, ...]] = {
    "fp32": (),
    "bf16": ("torch-cuda-graph", "torch-bf16"),
    "int8": ("torch-cuda-graph", "torch-bf16"),
}
GAIN = {
    "winograd": 1.5,
    "winograd-bf16": 1.8,
    "openvino": 1.2,
    "openvino-bf16": 2.0,
    "openvino-int8": 3.5,
    "torch-bf16": 1.5,
    "torch-cuda-graph": 2.0,
}
"""How many times faster than torch in fp32 a backend is at least expected to be; it is tried if that would pay. Once
the work is known that winograd takes over, `winograd.expected_gain` says it more exactly."""
WITH_TILES = 5.0
"""The same for bf16 on a processor with units for products of matrices (AMX)."""
HALVED = 1.2
"""How many times faster winograd is at least expected to be in bf16, once it is timed in fp32."""
SET_UP_S = 5.0
"""Seconds that converting and compiling take besides passes over windows."""
COMPILE_S = 2.0
"""Seconds that those take which convert nothing."""
READY_S = 1.0
"""Seconds that a converted network in the cache takes."""
PASSES = 5.0
"""Passes in torch over a small window (`int8.sample_shape`) that converting costs as much as; quantising costs as many
as three times its windows on top."""
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

    torch runs a batch of small windows. Of the backends that promise to win back their cost on the rest of the job, the
    one that promises to end first is set up and timed, then the next, until none promises more than the fastest so far,
    which stays. What must be quantised first comes last. A converted network in the cache costs next to nothing, so
    that even short jobs use it, and what was timed on this machine within some days is not timed again.

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
    ready = _candidates(net, shape, precision, cache, calibration)
    batches = -(-windows // shape[0])
    if not ready or batches < 2:
        return plain
    sample = int8.sample_shape(shape, int(getattr(net, "multiple", 1)))
    larger = math.prod(shape) / math.prod(sample)
    timings = Timings(cache, net, shape, threads)
    with winograd.counted(net) as products:
        seconds = timings.get("torch", lambda: larger * _clock(plain, sample))
    costs = {name: READY_S if ready[name] else _cost(name, sample, seconds / larger) for name in ready}
    gains = dict(GAIN)
    if products.whole:
        gains["winograd"] = winograd.expected_gain(products)
        gains["winograd-bf16"] = winograd.expected_gain(products, "bf16")
    if cpu_has_tiles():
        gains |= dict.fromkeys(("openvino-bf16", "torch-bf16"), WITH_TILES)
    gains |= {name: seconds / known for name, known in timings.known.items()}
    if "winograd" in timings.known:
        gains["winograd-bf16"] = seconds / timings.known.get("winograd-bf16", timings.known["winograd"] / HALVED)
    best, fastest = plain, seconds
    while name := _worth(costs, gains, seconds=seconds, fastest=fastest, batches=batches - 1):
        del costs[name]
        release_memory()
        try:
            other = backends.create(name, net, shape, cache=cache, threads=threads, calibration=calibration)
        except Unusable:
            continue
        release_memory()  # conversion runs the net in torch, too
        took = timings.get(name, partial(_look, other, shape, sample, fastest))
        if took < fastest:
            best, fastest = other, took
    if not best.name.startswith("torch"):
        keep_no_memory()  # they have memory of their own
    return best


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
    listed = {n: n.startswith("openvino") and openvino_net.is_kept(n, net, shape, cache) for n in names}
    flat = len(shape) == 4 and "openvino-bf16" in listed  # on slices, bf16 is as fast as int8, and closer
    if "openvino-int8" in listed and (flat or (calibration == () and not listed["openvino-int8"])):
        del listed["openvino-int8"]
    return listed


def _worth(
    costs: dict[str, float],
    gains: dict[str, float],
    *,
    seconds: float,
    fastest: float,
    batches: int,
) -> str | None:
    """The backend that promises to end first; None if none wins back its cost, with a margin.

    Promises are cautious. Quantising costs most by far, so it is tried when all others have shown what they can do.

    Args:
        costs: seconds until each is set up.
        gains: see `GAIN`.
        seconds: that torch takes for a batch.
        fastest: that the fastest backend so far takes.
        batches: still to do.
    """
    worth: dict[str, tuple[bool, float]] = {}
    for name, cost in costs.items():
        rest = batches * seconds / gains[name]
        if batches * fastest - rest >= MARGIN * cost:
            worth[name] = name == "openvino-int8" and cost > READY_S, cost + rest
    return min(worth, key=lambda name: worth[name], default=None)


def _cost(name: str, sample: tuple[int, ...], seconds: float) -> float:
    """Seconds until a backend is set up that is not converted yet.

    Args:
        name: of it.
        sample: shape of the windows that it is converted with.
        seconds: that torch takes for a batch of them.
    """
    if not name.startswith("openvino"):
        return COMPILE_S
    passes = PASSES + (3 * int8.windows_for(sample) / sample[0] if name == "openvino-int8" else 0)
    return SET_UP_S + passes * seconds


def _look(runner: Runner, shape: tuple[int, ...], sample: tuple[int, ...], fastest: float) -> float:
    """Seconds of a batch of a runner that has just been made.

    Its first pass also fetches memory: a second one decides, unless it takes a whole batch and the first is the fastest
    as it is.

    Args:
        runner: any.
        shape: of a batch.
        sample: of one with smaller windows, for those that take any size.
        fastest: that the fastest backend so far takes.
    """
    if isinstance(runner, torch_runner.TorchRunner) and runner.any_size:
        _clock(runner, sample)
        return _clock(runner, sample) * math.prod(shape) / math.prod(sample)
    first = _clock(runner, shape)
    return first if first < fastest else _clock(runner, shape)


def _clock(runner: Runner, shape: tuple[int, ...]) -> float:
    """Seconds of a batch."""
    batch = np.zeros(shape, np.float32)
    started = time.perf_counter()
    runner(batch)
    return time.perf_counter() - started

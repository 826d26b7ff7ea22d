"""Choose a backend by trying: it has to win back what it costs to set up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import numpy as np

from attentus.infer import backends
from attentus.infer.backends import int8, openvino_runner

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
"""What may replace torch when numbers may be no rougher than these; the first that can be had is tried."""
ON_GPU: dict[Precision, tuple[str, ...]] = {
    "fp32": (),
    "bf16": ("torch-cuda-graph", "torch-bf16"),
    "int8": ("torch-cuda-graph", "torch-bf16"),
}
GAIN = {"openvino": 1.2, "openvino-bf16": 2.0, "openvino-int8": 3.5, "torch-bf16": 1.5, "torch-cuda-graph": 2.0}
"""How many times faster than torch in fp32 a backend is at least expected to be; it is tried if that would pay."""
SET_UP_S = 5.0
"""Seconds that converting and compiling take besides passes over windows."""
PASSES = {"openvino": 2, "openvino-bf16": 2, "openvino-int8": 3 * int8.CALIBRATION_WINDOWS}
"""Passes in torch that converting costs as much as."""
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

    torch runs one batch; if another backend promises to win back its cost on the rest of the job it is set up and
    timed, too, and the faster of both stays. A converted network in the cache costs next to nothing, so that even
    short jobs use it.

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
    name = _candidate(net, shape, precision, cache, calibration)
    if name is None:
        return plain
    ready = _is_ready(name, net, shape, cache)
    batches = -(-windows // shape[0])
    if batches < (2 if ready else 4):
        return plain
    seconds = _clock(plain, shape)
    cost = 1.0 if ready else SET_UP_S + PASSES.get(name, 3) * seconds
    if (batches - 1) * seconds * (1 - 1 / GAIN[name]) < MARGIN * cost:
        return plain
    other = backends.create(name, net, shape, cache=cache, threads=threads, calibration=calibration)
    other(np.zeros(shape, np.float32))  # the first pass also fetches memory
    return other if _clock(other, shape) < seconds else plain


def _candidate(
    net: nn.Module,
    shape: tuple[int, ...],
    precision: Precision,
    cache: Path | None,
    calibration: Iterable[NDArray[np.float32]],
) -> str | None:
    """The most promising backend that can be had here."""
    on_gpu = next(net.parameters()).device.type == "cuda"
    listed = [name for name in (ON_GPU if on_gpu else ON_PROCESSOR)[precision] if not backends.missing(name)]
    flat = len(shape) == 4 and "openvino-bf16" in listed  # on slices, bf16 is as fast as int8, and closer
    if "openvino-int8" in listed and (
        flat or (calibration == () and not _is_ready("openvino-int8", net, shape, cache))
    ):
        listed.remove("openvino-int8")
    return listed[0] if listed else None


def _is_ready(name: str, net: nn.Module, shape: tuple[int, ...], cache: Path | None) -> bool:
    """Whether a converted network lies in the cache."""
    if not cache or not name.startswith("openvino"):
        return False
    return (cache / openvino_runner.cached_name(name, net, shape)).is_file()


def _clock(runner: Runner, shape: tuple[int, ...]) -> float:
    """Seconds of one batch."""
    batch = np.zeros(shape, np.float32)
    started = time.perf_counter()
    runner(batch)
    return time.perf_counter() - started

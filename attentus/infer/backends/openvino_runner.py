"""OpenVINO on the processor, in fp32, bf16 or int8; needs the extra `openvino`."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from attentus.infer.backends import openvino_net
from attentus.infer.backends.converted import filled
from attentus.infer.backends.intel import load
from attentus.infer.backends.signal_stack import signal_stack_kept
from attentus.infer.processor import best_precision

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from attentus.infer.backends.kept import Parts


class OpenVinoRunner:
    """A compiled network for batches of one size.

    Args:
        name: see `attentus.infer.backends`.
        compiled: OpenVINO's compiled model.
        batch: windows per run.
    """

    def __init__(self, name: str, compiled: Any, batch: int) -> None:
        self.name = name
        self.compiled = compiled
        self.batch = batch

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows (n, C, *spatial) to final logits (n, K, *spatial)."""
        with signal_stack_kept():
            logits: NDArray[np.float32] = self.compiled(filled(windows, self.batch))[0]
        return logits[: len(windows)]


def create(
    name: str,
    net: nn.Module,
    shape: tuple[int, ...],
    *,
    cache: Path | None,
    threads: int | None,
    calibration: Iterable[NDArray[np.float32]],
) -> OpenVinoRunner:
    """Convert a net, or fetch it from the cache, and compile it.

    Raises:
        MissingExtra: OpenVINO, or for int8 NNCF, is not installed.
        Unusable: int8 is not in the cache and there are no windows to calibrate with.
    """
    if name == "openvino-int8":
        parts = openvino_net.fetch_int8(net, shape, cache, calibration)
    else:
        parts = openvino_net.fetch(net, shape, cache, exact=name == "openvino")
    return from_parts(name, parts, shape, threads)


@signal_stack_kept()
def from_parts(name: str, parts: Parts, shape: tuple[int, ...], threads: int | None = None) -> OpenVinoRunner:
    """Compile a converted network for this processor and windows of a shape."""
    how = {
        "INFERENCE_PRECISION_HINT": "bf16" if name == "openvino-bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino_net.read(parts, shape)
    return OpenVinoRunner(name, load().Core().compile_model(model, "CPU", how), shape[0])


def missing(name: str) -> str:
    """Why a backend of this file cannot be used here; empty if it can."""
    if not _installed("openvino") or (name == "openvino-int8" and not _installed("nncf")):
        return "not installed: pip install 'attentus[openvino]'"
    if name == "openvino-bf16" and best_precision("cpu") != "bf16":
        return "this processor does not compute in bf16"
    return ""


def _installed(package: str) -> bool:
    return find_spec(package) is not None

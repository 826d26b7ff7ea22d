"""OpenVINO on the processor, in fp32, bf16 or int8; needs the extra `openvino`."""

from __future__ import annotations

import warnings
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attentus.infer.backends import kept
from attentus.infer.backends.converted import FinalOutput, blockwise, filled, on_processor, sums_maps
from attentus.infer.backends.int8 import EXACT, quantise
from attentus.infer.backends.intel import load
from attentus.infer.backends.signal_stack import signal_stack_kept
from attentus.infer.processor import best_precision, handing_back

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import nn


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
        BadInput: int8 is not in the cache and there are no windows to calibrate with.
    """
    if name == "openvino-int8":
        parts = fetch_int8(net, shape, cache, calibration)
    else:
        parts = fetch(net, shape, cache, exact=name == "openvino")
    return from_parts(name, parts, shape[0], threads)


@signal_stack_kept()
def from_parts(name: str, parts: kept.Parts, batch: int, threads: int | None = None) -> OpenVinoRunner:
    """Compile a converted network for this processor."""
    how = {
        "INFERENCE_PRECISION_HINT": "bf16" if name == "openvino-bf16" else "f32",
        "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    return OpenVinoRunner(name, load().Core().compile_model(_read(parts), "CPU", how), batch)


def fetch(net: nn.Module, shape: tuple[int, ...], cache: Path | None, *, exact: bool) -> kept.Parts:
    """The net as OpenVINO's model.xml and model.bin, from the cache if it is there.

    Args:
        net: see `create`, as the others.
        shape: of a batch.
        cache: folder for it.
        exact: for fp32, see `BlockwiseNorm`; with rougher numbers that would be lost.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    load()
    exact = exact and any(map(sums_maps, net.modules()))
    name = cached_name("openvino" if exact else "openvino-bf16", net, shape)
    return kept.fetch(cache, name, lambda: _parts(_convert(blockwise(net) if exact else net, shape)))


def fetch_int8(
    net: nn.Module,
    shape: tuple[int, ...],
    cache: Path | None,
    calibration: Iterable[NDArray[np.float32]],
    *,
    fresh: bool = False,
) -> kept.Parts:
    """The quantised net as model.xml and model.bin, from the cache if it is there and need not be made afresh.

    Raises:
        MissingExtra: OpenVINO or NNCF is not installed.
        BadInput: it is not in the cache and there are no windows.
    """
    load()
    return kept.fetch(
        cache,
        cached_name("openvino-int8", net, shape),
        lambda: _parts(quantise(_read(fetch(net, shape, cache, exact=False)), shape, calibration)),
        fresh=fresh,
    )


def cached_name(name: str, net: nn.Module, shape: tuple[int, ...]) -> str:
    """The cache's file for a backend; fp32 and bf16 share one unless fp32 takes its sums otherwise."""
    if name != "openvino-int8":
        kind = "openvino-fp32" if name == "openvino" and any(map(sums_maps, net.modules())) else "openvino"
        return kept.file_name(kind, net, shape, f"openvino {version('openvino')}")
    made_by = (f"{package} {version(package)}" for package in ("openvino", "nncf"))
    return kept.file_name("openvino-int8", net, shape, *made_by, f"exact {EXACT}")


def missing(name: str) -> str:
    """Why a backend of this file cannot be used here; empty if it can."""
    if not _installed("openvino") or (name == "openvino-int8" and not _installed("nncf")):
        return "not installed: pip install 'attentus[openvino]'"
    if name == "openvino-bf16" and best_precision("cpu") != "bf16":
        return "this processor does not compute in bf16"
    return ""


def _installed(package: str) -> bool:
    return find_spec(package) is not None


@signal_stack_kept()
def _convert(net: nn.Module, shape: tuple[int, ...]) -> Any:
    """Trace a net with one pass and hand the trace over."""
    image = torch.zeros(shape)
    with handing_back(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes become constants, which is what one shape needs
        final = FinalOutput(on_processor(net)).eval()
        traced = torch.jit.trace(final, image, check_trace=False)  # type: ignore[no-untyped-call]
        return load().convert_model(traced, example_input=image, input=[list(shape)])


@signal_stack_kept()
def _parts(model: Any) -> kept.Parts:
    with TemporaryDirectory() as folder:
        load().save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in ("model.xml", "model.bin")}


def _read(parts: kept.Parts) -> Any:
    openvino = load()
    weights = np.frombuffer(parts["model.bin"], np.uint8)
    return openvino.Core().read_model(parts["model.xml"], openvino.Tensor(weights))

"""ONNX Runtime on the processor, in fp32; needs the extra `onnx`."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from attentus.errors import MissingExtra
from attentus.infer.backends import kept
from attentus.infer.backends.converted import filled, on_processor
from attentus.infer.backends.onnx_file import to_onnx

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import nn


class OnnxRunner:
    """An ONNX Runtime session for batches of one size.

    Args:
        session: the runtime's.
        batch: windows per run.
    """

    name = "onnxruntime"

    def __init__(self, session: Any, batch: int) -> None:
        self.session = session
        self.batch = batch

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows (n, C, *spatial) to final logits (n, K, *spatial)."""
        [logits] = self.session.run(["logits"], {"image": filled(windows, self.batch)})
        found: NDArray[np.float32] = logits[: len(windows)]
        return found


def create(net: nn.Module, shape: tuple[int, ...], *, cache: Path | None, threads: int | None) -> OnnxRunner:
    """Convert a net, or fetch it from the cache, and open a session.

    Raises:
        MissingExtra: the extra `onnx` is not installed.
    """
    return from_file(fetch(net, shape, cache), shape[0], threads)


def fetch(net: nn.Module, shape: tuple[int, ...], cache: Path | None) -> bytes:
    """The net as the content of an ONNX file, from the cache if it is there.

    Raises:
        MissingExtra: the extra `onnx` is not installed.
    """
    if missing("onnxruntime"):
        raise MissingExtra("onnxruntime", "onnx", "The backend onnxruntime")
    return kept.fetch(cache, cached_name(net, shape), lambda: {"model.onnx": _convert(net, shape)})["model.onnx"]


def from_file(content: bytes, batch: int, threads: int | None = None) -> OnnxRunner:
    """Open a session for a network."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or torch.get_num_threads()
    options.log_severity_level = 3  # errors
    return OnnxRunner(onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"]), batch)


def cached_name(net: nn.Module, shape: tuple[int, ...]) -> str:
    """The cache's file."""
    return kept.file_name("onnx", net, shape, f"onnxscript {version('onnxscript')}")


def missing(_: str) -> str:
    """Why this backend cannot be used here; empty if it can."""
    here = all(find_spec(package) for package in ("onnxruntime", "onnxscript"))
    return "" if here else "not installed: pip install 'attentus[onnx]'"


def _convert(net: nn.Module, shape: tuple[int, ...]) -> bytes:
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        to_onnx(on_processor(net), file, shape[1], shape[2:], batch=shape[0])
        return file.read_bytes()

"""What computes a net's logits: torch, OpenVINO or ONNX Runtime, behind one face.

torch             fp32, as in training; the reference for all others
torch-bf16        bf16 by autocast; on GPUs with channels innermost
torch-cuda-graph  the same with the whole pass recorded once and replayed, GPUs only
torch-compile     fp32 through torch's compiler: a minute or more at the start, so only when asked for by name
winograd          fp32 with fewer products, by kernels that the machine's C compiler makes for its processor
winograd-bf16     the same in bf16
openvino          fp32
openvino-bf16     bf16
openvino-int8     8-bit weights and features, quantised with windows of real scans
onnxruntime       fp32
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attentus.errors import BadInput, UnknownName
from attentus.infer.backends import onnx_runner, openvino_runner, torch_runner, winograd
from attentus.infer.backends.choice import choose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

__all__ = ["NAMES", "Runner", "choose", "create", "missing", "names"]


class Runner(Protocol):
    """A net made ready for windows of one shape."""

    name: str

    def __call__(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Windows (n, C, *spatial), n no larger than the batch it was made for, to final logits (n, K, *spatial)."""
        ...


_MISSING: dict[str, Callable[[str], str]] = {
    "torch": torch_runner.missing,
    "torch-bf16": torch_runner.missing,
    "torch-cuda-graph": torch_runner.missing,
    "torch-compile": torch_runner.missing,
    "winograd": lambda _: winograd.missing(),
    "winograd-bf16": lambda _: winograd.missing(bf16=True),
    "openvino": openvino_runner.missing,
    "openvino-bf16": openvino_runner.missing,
    "openvino-int8": openvino_runner.missing,
    "onnxruntime": onnx_runner.missing,
}
NAMES = tuple(_MISSING)
"""All backends, installed or not."""


def missing(name: str) -> str:
    """Why a backend cannot be used on this machine, and what would help; empty if it can.

    Raises:
        UnknownName: no backend of that name.
    """
    if name not in _MISSING:
        raise UnknownName("backend", name, NAMES)
    return _MISSING[name](name)


def names() -> list[str]:
    """The backends that can be used on this machine."""
    return [name for name in NAMES if not missing(name)]


def create(
    name: str,
    net: nn.Module,
    shape: tuple[int, ...],
    *,
    cache: Path | None = None,
    threads: int | None = None,
    calibration: Iterable[NDArray[np.float32]] = (),
) -> Runner:
    """Make a net ready.

    Args:
        name: one of `names()`.
        net: in evaluation from now on; on a GPU the torch backends run there, all others run on the processor.
        shape: (N, C, *spatial) of the windows; N is the largest number at once.
        cache: folder for converted networks, which are used again when weights, shape and versions are the same; None
            keeps nothing.
        threads: of the processor; None: as many as torch uses, which is one per physical core unless told otherwise.
        calibration: windows (C, *spatial) as the net sees them, a few dozen of several scans: what openvino-int8
            measures the range of features on when it is not in the cache yet.

    Raises:
        UnknownName: no backend of that name.
        MissingExtra: its package is not installed.
        BadInput: it cannot run here, or openvino-int8 has nothing to calibrate with.
    """
    if name not in _MISSING:
        raise UnknownName("backend", name, NAMES)
    net.eval()
    if name.startswith("openvino"):
        return openvino_runner.create(name, net, shape, cache=cache, threads=threads, calibration=calibration)
    if name == "onnxruntime":
        return onnx_runner.create(net, shape, cache=cache, threads=threads)
    if reason := missing(name):
        raise BadInput(f"Backend {name}: {reason}")
    if name.startswith("winograd"):
        return winograd.create(net, shape[0], bf16=name == "winograd-bf16", threads=threads)
    return torch_runner.create(name, net, shape, threads=threads)

"""Nets as OpenVINO reads them, converted once and kept.

A net is traced, and for 8 bits calibrated, with small windows: that takes a fraction of the time and memory of large
ones. What comes out is tried on a window of another size and then serves all sizes. A net whose sizes became constants
on the way is converted for one size, as all are in fp32, where sums are taken by blocks that have to fit the size.
"""

from __future__ import annotations

import warnings
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attentus.infer.backends import kept
from attentus.infer.backends.converted import FinalOutput, blockwise, on_processor, sums_maps
from attentus.infer.backends.int8 import EXACT, quantise, sample_shape
from attentus.infer.backends.intel import load
from attentus.infer.backends.signal_stack import signal_stack_kept
from attentus.infer.processor import handing_back

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from torch import nn

SAME = 0.01
"""Of the largest logit: what a converted net may differ by in windows of another size than it was converted with. That
is more than rounding does and less than a size does that became a constant."""


class _OneSizeOnly(Exception):
    """A net's sizes became constants."""


def fetch(net: nn.Module, shape: tuple[int, ...], cache: Path | None, *, exact: bool) -> kept.Parts:
    """The net as OpenVINO's model.xml and model.bin, from the cache if it is there; see `read`.

    Args:
        net: in evaluation mode.
        shape: (N, C, *spatial) of the windows.
        cache: folder for it; None keeps nothing.
        exact: for fp32, see `BlockwiseNorm`; with rougher numbers that would be lost.

    Raises:
        MissingExtra: OpenVINO is not installed.
    """
    load()
    if exact and any(map(sums_maps, net.modules())):
        [name] = _names("openvino", net, shape)
        return kept.fetch(cache, name, lambda: _parts(_convert(blockwise(net), shape)))
    any_size, one_size = _names("openvino-bf16", net, shape)
    if cache is None or not (cache / one_size).is_file():
        try:
            return kept.fetch(cache, any_size, lambda: _parts(_of_any_size(net, shape)))
        except _OneSizeOnly:
            pass
    return kept.fetch(cache, one_size, lambda: _parts(_convert(net, shape)))


def fetch_int8(
    net: nn.Module,
    shape: tuple[int, ...],
    cache: Path | None,
    calibration: Iterable[NDArray[np.float32]],
    *,
    fresh: bool = False,
) -> kept.Parts:
    """The quantised net as model.xml and model.bin, from the cache if it is there and need not be made afresh.

    Args:
        net: in evaluation mode.
        shape: (N, C, *spatial) of the windows.
        cache: folder for it; None keeps nothing.
        calibration: windows (C, *spatial).
        fresh: make it in any case.

    Raises:
        MissingExtra: OpenVINO or NNCF is not installed.
        Unusable: it is not in the cache and there are no windows.
    """
    load()
    any_size, one_size = _names("openvino-int8", net, shape)
    for name in (any_size, one_size):
        if cache and not fresh and (parts := kept.read(cache / name)):
            return parts
    model = _model(fetch(net, shape, cache, exact=False))
    sizes = model.input(0).partial_shape
    if not sizes.is_dynamic:
        return kept.fetch(cache, one_size, lambda: _parts(quantise(model, shape, calibration)), fresh=True)
    sample = sample_shape(shape, _multiple(net))

    def make() -> kept.Parts:
        model.reshape(list(sample))
        quantised = quantise(model, sample, calibration)
        quantised.reshape(sizes)
        return _parts(quantised)

    return kept.fetch(cache, any_size, make, fresh=True)


@signal_stack_kept()
def read(parts: kept.Parts, shape: tuple[int, ...]) -> Any:
    """OpenVINO's model for windows of a shape."""
    model = _model(parts)
    if model.input(0).partial_shape.is_dynamic:
        model.reshape(list(shape))
    return model


def for_size(parts: kept.Parts, shape: tuple[int, ...]) -> kept.Parts:
    """The same net for windows of one shape: for programs that do not set it themselves."""
    return _parts(read(parts, shape))


def is_kept(name: str, net: nn.Module, shape: tuple[int, ...], cache: Path | None) -> bool:
    """Whether what a backend of OpenVINO's needs lies in the cache."""
    return cache is not None and any((cache / file).is_file() for file in _names(name, net, shape))


def _names(name: str, net: nn.Module, shape: tuple[int, ...]) -> list[str]:
    """The cache's files for a backend: for windows of any size and of this one.

    fp32 and bf16 share them, unless fp32 takes its sums otherwise: then it has one of its own.
    """
    made_by = [f"openvino {version('openvino')}"]
    if name == "openvino-int8":
        made_by += [f"nncf {version('nncf')}", f"exact {EXACT}"]
        return kept.file_names(name, net, [shape[:2], shape], *made_by)
    if name == "openvino" and any(map(sums_maps, net.modules())):
        return kept.file_names("openvino-fp32", net, [shape], *made_by)
    return kept.file_names("openvino", net, [shape[:2], shape], *made_by)


def _multiple(net: nn.Module) -> int:
    return int(getattr(net, "multiple", 1))


@signal_stack_kept()
def _of_any_size(net: nn.Module, shape: tuple[int, ...]) -> Any:
    """Convert a net with small windows, and try it on one of another size.

    Raises:
        _OneSizeOnly: it says something else there than torch.
    """
    multiple = _multiple(net)
    sample = sample_shape(shape, multiple)
    model = _convert(net, sample, any_size=True)
    other = model.clone()
    larger = (*sample[:2], *(n + multiple for n in sample[2:]))
    windows = torch.randn(larger, generator=torch.Generator().manual_seed(0))
    with handing_back(), torch.no_grad():
        expected = FinalOutput(on_processor(net))(windows).numpy()
    try:
        other.reshape(list(windows.shape))
        found = load().compile_model(other, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(windows.numpy())[0]
    except RuntimeError as error:
        raise _OneSizeOnly from error
    if found.shape != expected.shape or not np.abs(found - expected).max() <= SAME * np.abs(expected).max():
        raise _OneSizeOnly
    return model


@signal_stack_kept()
def _convert(net: nn.Module, shape: tuple[int, ...], *, any_size: bool = False) -> Any:
    """Trace a net with one pass and hand the trace over.

    Args:
        net: in evaluation mode.
        shape: of the pass.
        any_size: leave the windows' sides open.
    """
    image = torch.zeros(shape)
    openvino = load()
    sizes = [*shape[:2], *(-1 if any_size else n for n in shape[2:])]
    with handing_back(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sizes may become constants: see `_of_any_size`
        final = FinalOutput(on_processor(net)).eval()
        traced = torch.jit.trace(final, image, check_trace=False)  # type: ignore[no-untyped-call]
        return openvino.convert_model(traced, example_input=image, input=[openvino.PartialShape(sizes)])


@signal_stack_kept()
def _parts(model: Any) -> kept.Parts:
    with TemporaryDirectory() as folder:
        load().save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in ("model.xml", "model.bin")}


@signal_stack_kept()
def _model(parts: kept.Parts) -> Any:
    openvino = load()
    weights = np.frombuffer(parts["model.bin"], np.uint8)
    return openvino.Core().read_model(parts["model.xml"], openvino.Tensor(weights))

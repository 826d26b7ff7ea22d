"""A model's net in another program's form: ONNX or OpenVINO, fp32 or int8, with a way to run it and look it over."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from attentus.errors import BadInput
from attentus.export.bundle import to_bundle, write_folder
from attentus.infer.backends import create, int8, onnx_runner, openvino_net, openvino_runner
from attentus.io.atomic import replacing
from attentus.transforms.prepare import activate

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from attentus.infer.backends import Runner
    from attentus.infer.backends.kept import Parts
    from attentus.infer.model import Model
    from attentus.infer.sliding import Maps

To = Literal["onnx", "openvino", "bundle"]

TOLERANCE = 1e-3
"""Largest difference in probability that a form in fp32 may show."""


@dataclass(frozen=True, eq=False)
class Form:
    """A converted net.

    Args:
        to: which program's.
        parts: its files; an ONNX file, or OpenVINO's model.xml and model.bin.
        runner: runs it.
        int8: whether it is quantised.
        dims: 2 or 3.
    """

    to: To
    parts: Parts
    runner: Runner
    int8: bool
    dims: int

    def run(self, windows: NDArray[np.float32]) -> Maps:
        """As `infer.sliding.Run`: windows (N, C, z, y, x) to logits (N, K, z, y, x)."""
        logits = self.runner(windows[:, :, 0] if self.dims == 2 else windows)
        return {"logits": logits[:, :, None] if self.dims == 2 else logits}

    def write(self, model: Model, out: Path, card: str, *, overwrite: bool = False) -> None:
        """Write the form where it shall be: an ONNX file, a folder for OpenVINO, a folder or zip file as a bundle.

        Raises:
            BadFile: the place holds something that may not be replaced, or cannot be written to.
        """
        if self.to == "bundle":
            to_bundle(model, out, self.parts["model.onnx"], card, int8=self.int8, overwrite=overwrite)
        elif self.to == "openvino":
            write_folder(out, {**self.parts, "card.md": card.encode()}, holds="model.xml", overwrite=overwrite)
        else:
            with replacing(out, overwrite=overwrite) as temporary:
                temporary.write_bytes(self.parts["model.onnx"])


def convert(model: Model, to: To, calibration: Iterable[NDArray[np.float32]] | None = None) -> Form:
    """Convert a model's net for batches of its own windows.

    Args:
        model: on the processor. Converted nets are kept in its folder, where predictions find them, too.
        to: "onnx", "openvino" or "bundle" (an ONNX file, too).
        calibration: windows (C, *spatial) to quantise with; None keeps fp32.

    Raises:
        MissingExtra: ONNX Runtime, OpenVINO or NNCF is not installed.
        BadInput: no windows to quantise with.
    """
    shape = shape_of(model)
    cache = model.folder / "compiled" if model.folder else None
    if to == "openvino":
        if calibration is None:
            parts = openvino_net.fetch(model.net, shape, cache, exact=True)
        else:
            parts = openvino_net.fetch_int8(model.net, shape, cache, calibration, fresh=True)
        parts = openvino_net.for_size(parts, shape)
        runner: Runner = openvino_runner.from_parts("openvino", parts, shape)
        return Form(to, parts, runner, calibration is not None, model.recipe.net.dims)
    content = onnx_runner.fetch(model.net, shape, cache)
    if calibration is not None:
        import onnx

        content = int8.quantise(onnx.load_from_string(content), shape, calibration, "image").SerializeToString()
    runner = onnx_runner.from_file(content, shape[0])
    return Form(to, {"model.onnx": content}, runner, calibration is not None, model.recipe.net.dims)


def shape_of(model: Model) -> tuple[int, ...]:
    """(N, C, *spatial) of a batch of a model's windows."""
    return (model.window.batch, len(model.recipe.channels), *model.window.size[-model.recipe.net.dims :])


def difference(model: Model, form: Form) -> float:
    """Largest difference in probability between torch and a form, on a batch of noise.

    Raises:
        BadInput: a form in fp32 differs by more than `TOLERANCE`.
    """
    noise = np.random.default_rng(0).normal(size=shape_of(model)).astype(np.float32)
    pair = (create("torch", model.net, noise.shape)(noise), form.runner(noise))
    both = [activate(np.moveaxis(logits, 1, 0), regions=model.recipe.regions) for logits in pair]
    largest = float(np.abs(both[0] - both[1]).max())
    if not form.int8 and not largest <= TOLERANCE:
        raise BadInput(
            f"{model.recipe.name} says something else as {form.to} (probabilities differ by {largest:.2g}).\n"
            "  Please report this with the net's name and options; nothing was written."
        )
    return largest

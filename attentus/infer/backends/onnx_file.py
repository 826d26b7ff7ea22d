"""A network as an ONNX file, through torch.export; needs the extra `onnx`."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from attentus.errors import MissingExtra
from attentus.infer.backends.converted import FinalOutput
from attentus.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from torch import nn

OPSET = 18
"""Version of the ONNX operators that files are written for; every runtime since 2023 reads it."""


def to_onnx(
    net: nn.Module, file: Path, in_channels: int, size: Sequence[int], *, batch: int = 1, overwrite: bool = False
) -> None:
    """Write the evaluation form of a net: input "image" (batch, in_channels, *size), output "logits".

    The size is fixed in the file: the sliding window asks for one size only, and runtimes are fastest when they know
    it.

    Args:
        net: any net.
        file: where to write; one file holds layers and weights.
        in_channels: channels of the image.
        size: (z, y, x) or (y, x) of the window.
        batch: windows per run.
        overwrite: whether an existing file may be replaced.

    Raises:
        MissingExtra: the extra `onnx` is not installed.
        BadFile: the file exists, or cannot be written.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtra("onnxscript", "onnx", "Writing ONNX files") from error
    image = torch.zeros(batch, in_channels, *size, device=next(net.parameters()).device)
    was_training = net.training
    net.eval()
    try:
        with torch.no_grad(), _quiet(), replacing(file, overwrite=overwrite) as temporary:
            program = torch.onnx.export(
                FinalOutput(net).eval(),
                (image,),
                dynamo=True,
                input_names=["image"],
                output_names=["logits"],
                opset_version=OPSET,
                verbose=False,
            )
            program.save(str(temporary), external_data=False)  # type: ignore[union-attr]
    finally:
        net.train(was_training)


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells developers of torch about itself; none of it helps who exports a net."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

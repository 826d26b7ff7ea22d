"""What losses compare logits with: one label per voxel, or overlapping regions; and which voxels count.

Integers   (N, *spatial), classes 0..K-1, for softmax over K outputs. Sigmoid takes them too: a single output is
           compared with 0 and 1, several with "this class or another".
Masks      (N, K, *spatial) of 0 and 1, for sigmoid: one mask per output, free to overlap, none for the background.

In both, `IGNORE` marks voxels that take no part: no loss, no gradient, not counted in any sum or mean.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from attentus.errors import BadInput
from attentus.types import IGNORE

if TYPE_CHECKING:
    from collections.abc import Sequence

Activation = Literal["softmax", "sigmoid"]
ACTIVATIONS: tuple[Activation, ...] = ("softmax", "sigmoid")


def checked(logits: Tensor, target: Tensor, activation: Activation) -> Tensor:
    """The target, if it goes with the logits. Labels beyond the last class are found on CPUs only.

    Raises:
        BadInput: saying what was expected.
    """
    target = _comparable(target)
    integers, masks = [logits.shape[0], *logits.shape[2:]], list(logits.shape)
    if list(target.shape) == integers:
        if activation == "softmax" and logits.shape[1] == 1:
            raise BadInput("Softmax over one output is always 1. Give the net a background output, or take sigmoid.")
        _check_labels(target, max(2, logits.shape[1]))
    elif activation == "softmax":
        hint = " Masks, one per output, need activation 'sigmoid'." if list(target.shape) == masks else ""
        raise BadInput(f"A softmax loss of logits {masks} expects integers {integers}, not {list(target.shape)}.{hint}")
    elif list(target.shape) != masks:
        got = list(target.shape)
        raise BadInput(f"A sigmoid loss of logits {masks} expects masks {masks} or integers {integers}, not {got}.")
    return target


def truth(logits: Tensor, target: Tensor) -> Tensor:
    """Target as booleans (N, K, *spatial), False where ignored; K is that of the logits."""
    if target.ndim == logits.ndim:
        return target == 1
    first = 1 if logits.shape[1] == 1 else 0
    classes = torch.arange(first, first + logits.shape[1], device=target.device)
    return target[:, None] == classes.view(-1, *[1] * (target.ndim - 1))


def kept(logits: Tensor, target: Tensor) -> Tensor:
    """Which voxels count: booleans (N, 1, *spatial) for integers, (N, K, *spatial) for masks."""
    counted = target != IGNORE
    return counted if target.ndim == logits.ndim else counted[:, None]


def precise(logits: Tensor) -> Tensor:
    """Logits as float32, or float64 if they are: 16 bits are too few for sums over voxels."""
    return logits if logits.dtype == torch.float64 else logits.float()


def activate(logits: Tensor, activation: Activation) -> Tensor:
    """Probabilities (N, K, *spatial)."""
    return torch.softmax(logits, dim=1) if activation == "softmax" else torch.sigmoid(logits)


def mean(values: Tensor, share: Tensor) -> Tensor:
    """Mean of values weighted by `share`, which broadcasts to them; 0 where all shares are 0."""
    total = share.expand_as(values).sum(dtype=values.dtype)
    return (values * share).sum() / total.clamp(min=torch.finfo(values.dtype).tiny)


def regions(target: Tensor, table: Tensor) -> Tensor:
    """Labels to the regions they are part of, for example BraTS's whole tumour, core and enhancing tumour.

    target   (N, *spatial), integers
    table    (labels, R), whether a label belongs to a region
    returns  (N, R, *spatial), uint8: 0, 1 or IGNORE

    Raises:
        BadInput: a label beyond the table (found on CPUs only).
    """
    target = _comparable(target)
    _check_labels(target, len(table))
    lookup = torch.zeros(IGNORE + 1, table.shape[1], dtype=torch.uint8, device=target.device)
    lookup[: len(table)] = table.to(target.device, torch.uint8)
    lookup[IGNORE] = IGNORE
    index = target.long()
    return torch.stack([column[index] for column in lookup.unbind(1)], dim=1)


def class_weights(weights: Sequence[float] | None) -> Tensor | None:
    """Weights as a tensor.

    Raises:
        BadInput: a negative weight, or all are 0.
    """
    if weights is None:
        return None
    if not weights or min(weights) < 0 or max(weights) == 0:
        raise BadInput(f"weights are 0 or more, and not all 0; got {list(weights)}.")
    return torch.tensor(weights, dtype=torch.float32)


def weights_of(weights: Tensor | None, logits: Tensor) -> Tensor:
    """One weight per output (K,), all 1 unless given, in the logits' type.

    Raises:
        BadInput: more or fewer weights than outputs.
    """
    if weights is None:
        return logits.new_ones(logits.shape[1])
    if len(weights) != logits.shape[1]:
        raise BadInput(f"The net has {logits.shape[1]} outputs, but the loss has {len(weights)} weights.")
    return weights.to(logits.dtype)


def positive(smooth: float) -> float:
    """The same number.

    Raises:
        BadInput: it is not above 0, so that an empty class would be 0/0.
    """
    if smooth <= 0:
        raise BadInput(f"smooth keeps empty classes from being 0/0 and must be above 0; got {smooth}.")
    return smooth


def _comparable(target: Tensor) -> Tensor:
    return target.int() if target.dtype == torch.uint16 else target  # torch can store uint16, but hardly compute


def _check_labels(target: Tensor, classes: int) -> None:
    if target.device.type != "cpu" or torch.compiler.is_compiling() or target.numel() == 0:
        return
    low, high = (int(bound) for bound in target.aminmax())
    if high == IGNORE:
        high = int(target.where(target != IGNORE, 0).max())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise BadInput(f"The target holds the label {wrong}; expected are 0..{classes - 1}, and {IGNORE} to ignore.")

"""Networks in 8-bit integers, quantised after training with NNCF."""

from __future__ import annotations

import io
import math
from contextlib import redirect_stdout
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.errors import Unusable
from attentus.infer.backends.intel import load
from attentus.infer.backends.signal_stack import signal_stack_kept

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

CALIBRATION_WINDOWS = 32
"""Windows that quantisation looks at, at most."""
ENOUGH_VOXELS = 32 * 64**3
"""Fewer windows do if they hold so many voxels together, but no fewer than a quarter."""
EXACT = {
    "openvino": ["Add", "Concat", "Divide", "Interpolate", "MVN", "Multiply", "ReduceMean", "Sigmoid", "Subtract"],
    "onnx": ["Add", "Concat", "Div", "InstanceNormalization", "Mul", "ReduceMean", "Resize", "Sigmoid", "Sub"],
}
"""Operations that stay in fp32: next to convolutions they cost nothing, and sums of branches and attention that
multiplies features suffer most (RA-UNet lost 0.03 of the anterior hippocampus' Dice with them in 8 bits, 0.001
without)."""


def sample_shape(shape: tuple[int, ...], multiple: int) -> tuple[int, ...]:
    """Windows of `ENOUGH_VOXELS / CALIBRATION_WINDOWS` at most, their longest sides halved: small ones tell as much.

    Args:
        shape: (N, C, *spatial) of a batch.
        multiple: of what the sides have to be.
    """
    sides = list(shape[2:])
    while math.prod(sides) > ENOUGH_VOXELS // CALIBRATION_WINDOWS:
        longest = sides.index(max(sides))
        half = -(-sides[longest] // (2 * multiple)) * multiple
        if half >= sides[longest]:
            break
        sides[longest] = half
    return (*shape[:2], *sides)


def windows_for(shape: tuple[int, ...]) -> int:
    """How many windows quantisation looks at.

    Args:
        shape: (N, C, *spatial) of a batch.
    """
    enough = ENOUGH_VOXELS // math.prod(shape[2:])
    return min(CALIBRATION_WINDOWS, max(CALIBRATION_WINDOWS // 4, enough))


def quantise(
    model: Any, shape: tuple[int, ...], calibration: Iterable[NDArray[np.float32]], name: str | None = None
) -> Any:
    """Quantise a converted network.

    Convolutions and matrix products compute in 8 bits. Weights get a scale per channel and features one per layer,
    chosen such that they hold what the windows make of them; biases are corrected for what the weights lost.

    Args:
        model: of OpenVINO or ONNX.
        shape: (N, C, *spatial) of its input.
        calibration: windows (C, *spatial) as the net sees them; of larger ones the middle is taken.
        name: of the input, for ONNX.

    Raises:
        MissingExtra: NNCF is not installed.
        Unusable: no windows.
    """
    windows = [_middle(window, shape[2:]) for window in islice(calibration, windows_for(shape))]
    if not windows:
        raise Unusable(
            "int8: there are no windows to calibrate with.\n"
            "  Quantise once with training data: attentus export MODEL --to openvino --int8 --data DATA -o OUT."
        )
    nncf = load("nncf")
    windows += windows[: -len(windows) % shape[0]] * shape[0]
    batches = [np.stack(windows[k : k + shape[0]]) for k in range(0, len(windows) - shape[0] + 1, shape[0])]
    dataset = nncf.Dataset([{name: batch} for batch in batches] if name else batches)
    exact = nncf.IgnoredScope(types=EXACT["onnx" if name else "openvino"], validate=False)  # nets have some of them
    preset = nncf.QuantizationPreset.MIXED  # features may lie to one side of zero
    with redirect_stdout(io.StringIO()), signal_stack_kept():  # it draws progress bars
        return nncf.quantize(model, dataset, subset_size=len(batches), ignored_scope=exact, preset=preset)


def _middle(window: NDArray[np.float32], size: Sequence[int]) -> NDArray[np.float32]:
    """The middle of a window (C, *spatial), without the rest in memory."""
    starts = [(n - wanted) // 2 for n, wanted in zip(window.shape[1:], size, strict=True)]
    return np.ascontiguousarray(window[(slice(None), *(slice(s, s + n) for s, n in zip(starts, size, strict=True)))])

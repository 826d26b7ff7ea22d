"""Windows of real scans, as a net sees them: what quantisation measures the range of features on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attentus import io
from attentus.data.patches import window
from attentus.infer.backends.int8 import CALIBRATION_WINDOWS
from attentus.transforms.prepare import prepare

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from attentus.data.dataset import Dataset
    from attentus.infer.model import Model

CASES = 16
"""Cases that windows are taken from, at most, evenly spread."""


def calibration_windows(
    model: Model, dataset: Dataset, count: int = CALIBRATION_WINDOWS
) -> Iterator[NDArray[np.float32]]:
    """Windows (C, *spatial) of several cases, evenly spread over each among those that are not empty.

    Args:
        model: whose preparation and windows are used.
        dataset: its training cases; labels are not needed.
        count: windows, at most.

    Raises:
        BadFile: a scan cannot be read.
    """
    cases = [case for case in dataset if case.images]
    cases = cases[:: -(-len(cases) // CASES)] if cases else []
    for case in cases:
        array = prepare(io.read_case(case).canonical(), model.recipe.prepare).array
        outside = array.reshape(len(array), -1).min(axis=1).tolist()
        starts = model.window.starts(array.shape[1:])
        cut = (window(array, start, model.window.size, outside) for start in starts)
        full = [k for k, one in enumerate(cut) if one.max() > min(outside)]
        for place in np.linspace(0, len(full) - 1, min(-(-count // len(cases)), len(full))).round().astype(int):
            one = window(array, starts[full[place]], model.window.size, outside)
            yield one[:, 0] if model.recipe.net.dims == 2 else one

"""One case: every metric of every structure, from two label volumes on one grid."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.metrics.pair import Pair, metric_named
from attentus.metrics.presets import PRESETS, Preset, check_values
from attentus.metrics.rules import LITS_MISSED
from attentus.metrics.surface import around
from attentus.types import Score

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from attentus.metrics.structures import Values
    from attentus.types import Volume

    Box = tuple[slice, slice, slice]
    Boxes = dict[int, Box]

BURDEN = ("burden", "reference_burden")
"""Share of an organ that its lesions take, lesions included in the organ: in the prediction, in the reference."""


def score_volumes(
    case: str,
    prediction: Volume,
    reference: Volume,
    labels: Mapping[str, Values] | None = None,
    how: Preset = PRESETS["default"],
) -> list[Score]:
    """All metrics of all structures of one case.

    Args:
        case: id for the rows and messages.
        prediction: labels (1, z, y, x).
        reference: labels on the same grid.
        labels: see `score`.
        how: metrics and conventions.

    Raises:
        GridMismatch: they lie on different grids; the message prints both.
        BadInput: values that a preset's own labels do not account for.
    """
    reference.grid.require_match(prediction.grid, case, "reference", "prediction")
    found, truth = prediction.array[0], reference.array[0]
    boxes = boxes_of(found), boxes_of(truth)
    values = sorted({*boxes[0], *boxes[1]})
    if labels is None and how.labels:
        for side in boxes:
            check_values(how.labels, sorted(side))
    names: Mapping[str, Values] = labels or how.labels or {f"label {value}": value for value in values}
    pairs = {}
    for name, wanted in names.items():
        used = [box for side in boxes for value, box in side.items() if _belongs(value, wanted)]
        window = around(used, truth.shape)
        masks = _mask(found[window], wanted), _mask(truth[window], wanted)
        pairs[name] = Pair(*masks, reference.grid.spacing, how.rules_of(name), truth.shape)
    if how.rules.empty == "lits" and how.organ in pairs and not _organ_itself(boxes[0], names[how.organ]):
        pair = pairs[how.organ]
        pairs[how.organ] = Pair(np.zeros_like(pair.prediction), pair.reference, pair.spacing, pair.rules, pair.field)
    rows = [row for name, pair in pairs.items() for row in _rows(case, name, pair, how.metrics_of(name))]
    return rows + [row for lesion in how.lesions for row in _burden(case, lesion, how, pairs)]


def _rows(case: str, structure: str, pair: Pair, metrics: tuple[str, ...]) -> list[Score]:
    note = _note(pair)
    return [Score(case, structure, name, pair.measure(name), metric_named(name).unit, note) for name in metrics]


def _note(pair: Pair) -> str:
    """Which side is empty; "" if neither is."""
    return "" if pair.overlap.situation == "usual" else pair.overlap.situation


def _organ_itself(boxes: Boxes, values: Values) -> bool:
    """Whether the organ's own value (the first of several) occurs; the LiTS scorer calls a liver missed without it."""
    return values == "any" or (values[0] if isinstance(values, tuple) else values) in boxes


def _burden(case: str, lesion: str, how: Preset, pairs: Mapping[str, Pair]) -> list[Score]:
    """Tumour burden of both sides; undefined without an organ, 9001 by LiTS if the prediction lacks it."""
    if how.organ not in pairs or lesion not in pairs:
        return []
    organ, part = pairs[how.organ].overlap, pairs[lesion].overlap
    missed = LITS_MISSED if how.rules.empty == "lits" else math.nan
    sides = (
        part.prediction / organ.prediction if organ.prediction else missed,
        part.reference / organ.reference if organ.reference else math.nan,
    )
    note = _note(pairs[lesion])
    return [Score(case, lesion, name, value, "", note) for name, value in zip(BURDEN, sides, strict=True)]


def boxes_of(labels: NDArray[Any]) -> Boxes:
    """Where each value above 0 lies. Most of a scan is background, so the box of everything is found first."""
    from scipy.ndimage import find_objects

    window = _used(labels)
    if not labels[window].size:
        return {}
    found = {}
    for value, box in enumerate(find_objects(np.asarray(labels[window])), start=1):
        if box is not None:
            z, y, x = (slice(w.start + b.start, w.start + b.stop) for w, b in zip(window, box, strict=True))
            found[value] = (z, y, x)
    return found


def _used(labels: NDArray[Any]) -> Box:
    """Box of the voxels that are not 0; empty if there is none."""
    columns = labels.max(axis=2)
    z, y = _span(columns.max(axis=1)), _span(columns.max(axis=0))
    return z, y, _span(labels[z, y].max(axis=(0, 1), initial=0))


def _span(profile: NDArray[Any]) -> slice:
    used = np.flatnonzero(profile)
    return slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0)


def _belongs(value: int, values: Values) -> bool:
    return value in values if isinstance(values, tuple) else values in ("any", value)


def _mask(labels: NDArray[Any], values: Values) -> NDArray[np.bool_]:
    if isinstance(values, tuple) and len(values) > 1:
        return np.isin(labels, values, kind="table")
    mask: NDArray[np.bool_] = labels > 0 if values == "any" else labels == np.ravel(values)[0]
    return mask

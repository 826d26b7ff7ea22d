"""What another way to compute a net costs in Dice: the same cases with torch and with it, one beside the other."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from attentus import io
from attentus.data.resolve import values_in
from attentus.errors import AttentusError, BadInput, UnknownName
from attentus.infer.clean import among
from attentus.infer.segment import Member, Wish, segment
from attentus.metrics.overlap import Overlap
from attentus.progress import Progress, Silent, track
from attentus.train.evaluate import ignored, reference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from attentus.data.dataset import Dataset
    from attentus.infer.model import Model
    from attentus.infer.sliding import Run


@dataclass(frozen=True)
class Faithful:
    """How the labels of two ways to compute a net agree with the reference, and with each other."""

    cases: int
    exact: Mapping[str, float]
    """Mean Dice of each structure with torch in fp32, over the cases where it is defined."""
    other: Mapping[str, float]
    """The same the other way."""
    agreement: Mapping[str, float]
    """Mean Dice between both."""
    failures: Mapping[str, str]
    """Case to message."""

    @property
    def change(self) -> float:
        """Of the mean Dice over structures; negative is worse."""
        known = [self.other[name] - dice for name, dice in self.exact.items() if math.isfinite(dice)]
        return statistics.fmean(known) if known else math.nan

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        rows = {
            name: {"torch": dice, "exported": self.other[name], "agreement": self.agreement[name]}
            for name, dice in self.exact.items()
        }
        return {"cases": self.cases, "dice": rows, "change": self.change, "failures": dict(self.failures)}


def compare_runs(model: Model, dataset: Dataset, run: Run, progress: Progress | None = None) -> Faithful:
    """Predict labelled cases with a model as it is and with another way to compute its net.

    Args:
        model: whose labels the dataset has, by name.
        dataset: labelled cases the model has not seen.
        run: windows to maps, see `infer.sliding.Run`.
        progress: shows the cases.

    Raises:
        UnknownName: the dataset has no label of a name that the model was trained on.
        BadInput: no case could be predicted.
    """
    for part in (part for structure in model.recipe.labels for part in structure.parts):
        if part not in dataset.labels:
            raise UnknownName("label", part, dataset.labels)
    members = (model.member(), Member(model.recipe, model.window, lambda _scan, _window: run))
    names = values_in(model.recipe)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in names}
    failures: dict[str, str] = {}
    for case in track(progress or Silent(), "measuring", list(dataset.labelled)):
        try:
            volume = io.read_case(case, as_stored=True).canonical()
            truth = reference(case, dataset, model.recipe).array[0]
            counts = ~ignored(case, dataset, model.recipe)[0] if model.recipe.ignore else None
            pair = [segment([member], volume, Wish()).labels.array[0] for member in members]
        except AttentusError as error:
            failures[case.id] = str(error)
            continue
        for name, values in names.items():
            one, two, true = (_mask(labels, values, counts) for labels in (*pair, truth))
            found[name].append((_dice(one, true), _dice(two, true), _dice(one, two)))
    if len(failures) == len(dataset.labelled):
        raise BadInput(f"{dataset.root}: no case could be measured.\n  " + "\n  ".join(failures.values()))
    means = {name: [_mean(column) for column in zip(*rows, strict=True)] for name, rows in found.items()}
    exact, other, agreement = ({name: three[k] for name, three in means.items()} for k in range(3))
    return Faithful(len(dataset.labelled) - len(failures), exact, other, agreement, failures)


def _mask(
    labels: NDArray[np.unsignedinteger], values: Sequence[int], counts: NDArray[np.bool_] | None
) -> NDArray[np.bool_]:
    mask = among(labels, values)
    return mask if counts is None else mask & counts


def _dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Nan where both are empty."""
    return Overlap.of(one, other).dice


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return statistics.fmean(known) if known else math.nan

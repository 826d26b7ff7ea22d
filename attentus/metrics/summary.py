"""From rows to what is printed and stored: statistics that never drop a case silently."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.metrics.pair import STANDARD
from attentus.metrics.pooled import pooled
from attentus.metrics.presets import COUNTS
from attentus.metrics.statistics import bootstrap_interval
from attentus.types import Score, Scores

if TYPE_CHECKING:
    from collections.abc import Mapping

HEADLINE = ("dice", "iou", "precision", "recall", "rvd", "hd95_mm", "assd_mm", "volume_ml", "reference_ml")
"""What is shown of the standard metrics where there is no room for all."""


@dataclass(frozen=True)
class Summary:
    """A metric of a structure over the cases. Mean and quartiles are over the finite values only."""

    structure: str
    metric: str
    unit: str
    n: int
    """Finite values."""
    n_nan: int
    n_inf: int
    mean: float
    sd: float
    """Sample standard deviation (n - 1); nan for a single case."""
    low: float
    """95 % bootstrap interval of the mean, see `statistics.bootstrap_interval`; nan for a single case."""
    high: float
    median: float
    q1: float
    q3: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Detection:
    """How often a structure was there and how often it was found."""

    structure: str
    scored: int
    """In reference and prediction."""
    missed: int
    """In the reference only."""
    false_alarm: int
    """In the prediction only."""
    absent: int
    """In neither."""


def summarise(scores: Scores) -> list[Summary]:
    """One summary per structure and metric, in the order of the rows."""
    groups: dict[tuple[str, str, str], list[float]] = {}
    for row in scores:
        groups.setdefault((row.structure, row.metric, row.unit), []).append(row.value)
    return [_summary(*key, np.array(values)) for key, values in groups.items()]


def detections(scores: Scores) -> list[Detection]:
    """Scored, missed and false-alarm cases per structure."""
    notes: dict[str, dict[str, str]] = {}
    for row in scores:
        notes.setdefault(row.structure, {})[row.case] = row.note
    kinds = ("", "empty_prediction", "empty_reference", "both_empty")
    return [
        Detection(structure, *(list(by_case.values()).count(kind) for kind in kinds))
        for structure, by_case in notes.items()
    ]


def case_means(scores: Scores, metric: str) -> dict[str, float]:
    """Case to the mean of a metric's finite values over its structures; nan where there is none."""
    values: dict[str, list[float]] = {case: [] for case in scores.cases}
    for row in scores.select(metric=metric):
        if math.isfinite(row.value):
            values[row.case].append(row.value)
    return {case: sum(found) / len(found) if found else math.nan for case, found in values.items()}


def unfound(scores: Scores, *, alarms: bool = False) -> dict[str, list[str]]:
    """Structure to the cases in which it was missed or, with `alarms`, found where there is none."""
    note = "empty_reference" if alarms else "empty_prediction"
    found: dict[str, list[str]] = {}
    for structure, case in dict.fromkeys((row.structure, row.case) for row in scores if row.note == note):
        found.setdefault(structure, []).append(case)
    return found


def headline(scores: Scores) -> list[str]:
    """The metrics to show people: of the standard set a choice, of others all; counts of voxels only if asked for."""
    measured = scores.metrics
    if set(STANDARD) <= set(measured):
        return [*HEADLINE, *(metric for metric in measured if metric not in STANDARD)]
    return [metric for metric in measured if metric not in COUNTS] or measured


def to_json(scores: Scores, **facts: Any) -> str:
    """Everything as JSON: rules, failures, counts, what was missed, means over the cases, pooled scores, rows.

    A number that is not finite becomes null; `instead` says which it was and `note` why.

    Args:
        scores: what to write.
        **facts: further entries at the top level, e.g. where the files came from.
    """
    whole = {
        **facts,
        "rules": dict(scores.rules),
        "cases": {"scored": len(scores.cases), "failed": len(scores.failures)},
        "failures": dict(scores.failures),
        "detections": [asdict(detection) for detection in detections(scores)],
        "missed": unfound(scores),
        "false_alarms": unfound(scores, alarms=True),
        "summary": [_nullable(asdict(summary)) for summary in summarise(scores)],
        "pooled": [_nullable(number._asdict()) for number in pooled(scores)],
        "rows": [_row(row) for row in scores],
    }
    return json.dumps(whole, indent=1)


def from_json(text: str) -> Scores:
    """Scores as `to_json` wrote them."""
    stored = json.loads(text)
    return Scores(tuple(_stored(row) for row in stored["rows"]), stored["rules"], stored["failures"])


def to_csv(scores: Scores) -> str:
    """A table with one line per case and structure and one column per metric.

    What is no number is written as nan or inf. A case that could not be scored has a line with nothing but a note.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["case", "structure", *scores.metrics, "note"])
    lines: dict[tuple[str, str], dict[str, Score]] = {}
    for row in scores:
        lines.setdefault((row.case, row.structure), {})[row.metric] = row
    for (case, structure), cells in lines.items():
        values = [f"{cells[metric].value:.6g}" if metric in cells else "" for metric in scores.metrics]
        writer.writerow([case, structure, *values, next(iter(cells.values())).note])
    for case, message in scores.failures.items():
        writer.writerow([case, "", *([""] * len(scores.metrics)), f"failed: {' '.join(message.split())}"])
    return text.getvalue()


def _summary(structure: str, metric: str, unit: str, values: np.ndarray) -> Summary:
    finite = values[np.isfinite(values)]
    counts = (len(finite), int(np.isnan(values).sum()), int(np.isinf(values).sum()))
    if not len(finite):
        return Summary(structure, metric, unit, *counts, *[math.nan] * 9)
    mean, sd = float(finite.mean()), float(finite.std(ddof=1)) if len(finite) > 1 else math.nan
    low, high = bootstrap_interval(finite)[:2]
    least, q1, median, q3, largest = (float(q) for q in np.percentile(finite, [0, 25, 50, 75, 100]))
    return Summary(structure, metric, unit, *counts, mean, sd, low, high, median, q1, q3, least, largest)


def _row(row: Score) -> dict[str, Any]:
    stored = row._asdict()
    return stored if math.isfinite(row.value) else {**stored, "value": None, "instead": str(row.value)}


def _stored(row: dict[str, Any]) -> Score:
    instead = row.pop("instead", None)
    return Score(**row) if instead is None else Score(**{**row, "value": float(instead)})


def _nullable(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in numbers.items()}

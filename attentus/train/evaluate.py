"""The end of a training: the held-back cases predicted on their own grids, scored, and written down for people."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from attentus import io
from attentus.data.resolve import class_table, members, to_classes, values_in
from attentus.errors import AttentusError
from attentus.io.atomic import write_text
from attentus.metrics import PRESETS, summarise, to_csv, to_json
from attentus.metrics.case import score_volumes
from attentus.progress import Progress, Silent, track
from attentus.train.environment import environment, hardware
from attentus.types import IGNORE, Score, Scores, Volume

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from numpy.typing import NDArray

    from attentus.data.dataset import Dataset
    from attentus.recipes import Recipe
    from attentus.types import Case, Prediction


class Judged(Protocol):
    """A model, or several that answer as one."""

    @property
    def recipe(self) -> Recipe:
        """Names channels and labels."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def predict(self, scan: Case) -> Prediction:
        """Segment one scan."""


def evaluate(model: Judged, dataset: Dataset, folder: Path, progress: Progress | None = None) -> Scores:
    """Predict and score every case of a dataset, and write scores.json and scores.csv; see `judge`."""
    scores, timing = judge(model, dataset, folder, progress)
    write_scores(folder, scores, model.recipe, timing=timing)
    return scores


def judge(
    model: Judged, dataset: Dataset, folder: Path, progress: Progress | None = None
) -> tuple[Scores, dict[str, Any]]:
    """Predict and score every case of a dataset.

    Writes `validation/CASE.nii.gz` into the folder; a case that fails is listed in the scores and does not stop the
    others.

    Args:
        model: whose labels the dataset has, by name.
        dataset: labelled cases the model has not seen.
        folder: where the results go.
        progress: shows the cases.

    Returns:
        Scores; and how long each case took from the scan's file to the label file (reading, preparing, all windows,
        writing), and on what hardware.
    """
    how = PRESETS["default"]
    rows: list[Score] = []
    failures: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for case in track(progress or Silent(), "evaluating", list(dataset.labelled)):
        try:
            started = time.perf_counter()
            prediction = model.predict(case)
            io.write(prediction.labels, folder / "validation" / f"{case.id}.nii.gz", overwrite=True)
            seconds[case.id] = round(time.perf_counter() - started, 4)
            truth, found = reference(case, dataset, model.recipe), prediction.labels
            if model.recipe.ignore:
                found = found.like(np.where(ignored(case, dataset, model.recipe), 0, found.array))
            rows += score_volumes(case.id, found, truth, values_in(model.recipe), how)
        except AttentusError as error:
            failures[case.id] = str(error)
    timing = {"hardware": [hardware(model.device)], "seconds": seconds}
    return Scores(tuple(rows), how.describe(), failures), timing


def write_scores(folder: Path, scores: Scores, recipe: Recipe, **facts: Any) -> None:
    """Write scores.json, with further facts about their making, and scores.csv of a model."""
    write_text(folder / "scores.json", to_json(scores, model=recipe.name, **facts))
    write_text(folder / "scores.csv", to_csv(scores))


def reference(case: Case, dataset: Dataset, recipe: Recipe) -> Volume:
    """The labels of a case in the values of a recipe, as a model of it would write them.

    Parts are merged, regions painted over each other, what is not segmented or to be ignored left out.

    Raises:
        BadInput: the labels cannot be read or hold values the dataset does not name.
    """
    labels = io.read_labels(case.label)  # type: ignore[arg-type]
    classes = to_classes(labels.array, class_table(recipe, dataset.labels), dataset.labels)
    painted = np.zeros(labels.array.shape, np.uint16)
    for structure, numbers in zip(recipe.labels, members(recipe).values(), strict=True):
        painted[np.isin(classes, numbers)] = structure.value
    return labels.like(painted)


def ignored(case: Case, dataset: Dataset, recipe: Recipe) -> NDArray[np.bool_]:
    """Voxels of a case that do not count."""
    labels = io.read_labels(case.label).array  # type: ignore[arg-type]
    marked: NDArray[np.bool_] = to_classes(labels, class_table(recipe, dataset.labels), dataset.labels) == IGNORE
    return marked


def write_card(folder: Path, recipe: Recipe, scores: Scores | None, facts: dict[str, str]) -> None:
    """Write card.md and environment.json: what the model is, how it was made, how well it does, what it is not."""
    judged = "Not scored." if scores is None else table(scores)
    structures = ", ".join(f"{structure.name} ({structure.value})" for structure in recipe.labels)
    lines = [
        f"# {recipe.name}",
        "",
        recipe.about,
        "",
        f"- Segments: {structures}",
        f"- Takes: {', '.join(recipe.channels)}",
        f"- Net: {recipe.net.name}, {recipe.net.dims}D, options {recipe.net.options or 'default'}",
        *(f"- {name}: {value}" for name, value in facts.items()),
        "",
        "## On cases held back",
        "",
        judged,
        "",
        "A research model: not a medical device, not for diagnosis. It has seen only the data it was trained on;",
        "test it on scans of your own site, scanner and protocol before you rely on it.",
        "",
    ]
    write_text(folder / "card.md", "\n".join(lines))
    write_text(folder / "environment.json", json.dumps(environment(), indent=1))


def table(scores: Scores) -> str:
    """Dice, HD95 and ASSD of every structure as a Markdown table."""
    lines = ["| structure | metric | mean | SD | 95 % CI | median | n |", "|---|---|---|---|---|---|---|"]
    for s in summarise(scores):
        if s.metric in ("dice", "hd95_mm", "assd_mm"):
            numbers = f"{s.mean:.4f} | {s.sd:.4f} | {s.low:.4f} to {s.high:.4f} | {s.median:.4f}"
            lines.append(f"| {s.structure} | {s.metric} | {numbers} | {s.n} |")
    return "\n".join(lines)

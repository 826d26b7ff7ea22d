"""Doing a run: train it, cut it from a trained one, or try a trained one on other data; then score it as its paper did.

A run has a folder in `runs/`, and is done when its scores are in `scores/`. What is done is not done again; a training
that was interrupted goes on.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attentus import io
from attentus.cascade import Cascade, fit_cascade
from attentus.cascade.model import FILE as CASCADE
from attentus.cascade.model import STAGES
from attentus.data.resolve import values_in
from attentus.errors import AttentusError, BadFile, BadInput
from attentus.infer.model import WEIGHTS, Model
from attentus.io.atomic import write_text
from attentus.metrics import to_json
from attentus.metrics.case import score_volumes
from attentus.metrics.presets import preset_named
from attentus.metrics.summary import from_json
from attentus.progress import Progress, track
from attentus.recipes import CascadeRecipe, Recipe, answer_recipe, dump, load_cascade
from attentus.reproduce.paper import MEAN
from attentus.reproduce.plan import RUNS, labelled_as
from attentus.train.evaluate import ignored, judge, reference, write_scores
from attentus.train.farm import fit_many
from attentus.train.levels import cases_of, write_level
from attentus.train.state import peek_state
from attentus.types import Score, Scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from attentus.data import Dataset
    from attentus.metrics import Preset
    from attentus.reproduce.paper import Applied, Level
    from attentus.reproduce.plan import Plan, Step
    from attentus.train.evaluate import Judged
    from attentus.types import Case, Prediction

SCORES, CACHE = "scores", ".cache"
WARM_UP, REPEATS, LONGEST = 1, 9, 20.0
"""Forward passes before timing, timed ones at most, and seconds after which no further one begins."""


@dataclass(frozen=True)
class Done:
    """A run and its scores."""

    key: str
    folder: Path
    scores: Scores
    forward: float | None
    """Seconds of one forward pass of one window; None of a cascade."""
    window: tuple[int, ...]
    hardware: tuple[str, ...]
    parameters: int | None
    """Of the net that was trained; None of a cascade."""
    steps: tuple[int, ...] = ()
    """Updates of each training; of a cascade stage by stage."""


def do(plan: Plan, step: Step, out: Path, progress: Progress) -> Done:
    """Do a run and score it, or read what it came to before.

    Raises:
        AttentusError: it cannot be done; the message says why.
    """
    file = out / SCORES / f"{step.key}.json"
    if not file.is_file():
        folder = _made(plan, step, out, progress)
        scores, facts = _scored(plan, step, folder, progress)
        write_text(file, to_json(scores, model=step.key, **facts))
    return read(out, step.key)


def read(out: Path, key: str) -> Done:
    """A run that is done.

    Raises:
        BadFile: its scores are damaged.
    """
    file = out / SCORES / f"{key}.json"
    try:
        text = file.read_text(encoding="utf-8")
        scores, facts = from_json(text), json.loads(text)
        timing = facts["timing"]
        return Done(
            key,
            out / RUNS / key,
            scores,
            timing["forward"],
            tuple(timing["window"]),
            tuple(timing["hardware"]),
            facts["parameters"],
            tuple(facts["steps"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(file, f"cannot be read ({error})", "Delete it and run the same command again.") from None


def predictions(folder: Path) -> Iterator[tuple[Recipe, Path]]:
    """What a run said about cases that it had not seen: the recipe of the model that said it, and a file of labels."""
    homes = sorted(folder.glob("fold*/recipe.yaml")) or [folder / "recipe.yaml"]
    for home in [folder / CASCADE] if (folder / CASCADE).is_file() else homes:
        recipe = answer_recipe(load_cascade(home)) if home.name == CASCADE else Recipe.load(home)
        for file in sorted((home.parent / "validation").glob("*.nii.gz")):
            yield recipe, file


def _made(plan: Plan, step: Step, out: Path, progress: Progress) -> Path:
    """The folder of a run, with predictions and their times."""
    folder = out / RUNS / step.key
    if step.run.level:
        return _cut(plan, step, step.run.level, out, progress)
    if step.run.applied:
        return _applied(plan, step, step.run.applied, out, progress)
    dataset = plan.dataset(step)
    failures: Mapping[str, str] = {}
    how: dict[str, Any] = {"max_time": step.seconds, "cache": out / CACHE, "progress": progress}
    if isinstance(step.recipe, CascadeRecipe):
        failures = fit_cascade(step.recipe, dataset, folder, folds=step.folds, **how).failures
    elif step.recipe is not None:
        failures = fit_many(step.recipe, dataset, folder, folds=step.folds, **how).failures
    for name in (f"fold{fold}" for fold in step.folds):
        if name in failures:
            raise BadInput(f"{name}: {failures[name]}")
    return folder


def _cut(plan: Plan, step: Step, level: Level, out: Path, progress: Progress) -> Path:
    """A level of a trained net, as a model of its own, judged on the cases held back from that net."""
    folder = out / RUNS / step.key
    source = Model.load(out / RUNS / level.of / "fold0")
    write_level(source, level.level, folder, overwrite=True)
    dataset = plan.dataset(step)
    model = Model.load(folder)
    scores, timing = judge(model, dataset.subset(_judged(source, dataset)), folder, progress)
    write_scores(folder, scores, model.recipe, timing=timing)
    return folder


def _applied(plan: Plan, step: Step, how: Applied, out: Path, progress: Progress) -> Path:
    """A trained model, or cascade, on cases of another source."""
    folder, source = out / RUNS / step.key, out / RUNS / how.of
    model = Cascade.load(source) if (source / CASCADE).is_file() else Model.load(source / "fold0")
    dataset = plan.dataset(step)
    if how.like:
        like = Model.load(out / RUNS / how.like / "fold0")
        dataset = dataset.subset(_judged(like, dataset))
    recipe = labelled_as(model.recipe, step.published, plan.materials[step.run.data])
    scores, timing = judge(_Relabelled(model, recipe), dataset, folder, progress)
    write_text(folder / "recipe.yaml", dump(recipe))
    write_scores(folder, scores, recipe, timing=timing)
    return folder


def _judged(model: Model, dataset: Dataset) -> list[str]:
    """The cases on which a trained model was judged."""
    return cases_of(model, dataset, "test") or cases_of(model, dataset, "validation")


@dataclass(frozen=True)
class _Relabelled:
    """A model whose structures are made of the labels of other data."""

    model: Judged
    recipe: Recipe

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.model.device

    def predict(self, scan: Case) -> Prediction:
        """Segment one scan."""
        return self.model.predict(scan)


def _scored(plan: Plan, step: Step, folder: Path, progress: Progress) -> tuple[Scores, dict[str, Any]]:
    """A run's predictions scored by the rules of its paper, and what it costs."""
    source = plan.materials[step.run.data].source
    dataset = plan.dataset(step)
    how = _measured(preset_named(source.preset).but(lesions=source.lesions, organ=source.organ))
    rows: list[Score] = []
    failures, hardware = _of_the_run(folder)
    files = list(predictions(folder))
    for recipe, file in track(progress, "scoring", files):
        case = file.name.removesuffix(".nii.gz")
        structures = _structures(source.scores, values_in(recipe))
        mine = replace(how, lesions=tuple(name for name in how.lesions if name in structures))
        try:
            found, truth = io.read_labels(file), reference(dataset[case], dataset, recipe)
            if recipe.ignore:
                found = found.like(np.where(ignored(dataset[case], dataset, recipe), 0, found.array))
            rows += score_volumes(case, found, truth, structures, mine)
        except AttentusError as error:
            failures[case] = str(error)
    scores = Scores((*rows, *_means(rows)), how.describe(), failures)
    forward, window, parameters = _price(folder)
    timing = {"forward": forward, "window": window, "hardware": hardware}
    return scores, {"timing": timing, "parameters": parameters, "steps": _steps(folder)}


def _measured(how: Preset) -> Preset:
    """A preset without what this installation cannot measure."""
    if find_spec("skimage") is None:  # meshes need the extra
        return replace(how, metrics=tuple(metric for metric in how.metrics if metric != "s2s_mm"))
    return how


def _structures(
    scores: Mapping[str, tuple[str, ...]], values: Mapping[str, tuple[int, ...]]
) -> dict[str, int | tuple[int, ...]]:
    """What is scored to the label values that form it; what the run does not segment is left out."""
    wanted = scores or {name: (name,) for name in values}
    each = {name: [v for one in own if one in values for v in values[one]] for name, own in wanted.items()}
    return {name: tuple(dict.fromkeys(own)) for name, own in each.items() if own}


def _means(rows: list[Score]) -> list[Score]:
    """For every case and metric the mean over the structures, where there are several."""
    groups: dict[tuple[str, str], list[Score]] = {}
    for row in rows:
        groups.setdefault((row.case, row.metric), []).append(row)
    return [
        Score(case, MEAN, metric, statistics.fmean(row.value for row in group), group[0].unit)
        for (case, metric), group in groups.items()
        if len(group) > 1 and metric == "dice"
    ]


def _of_the_run(folder: Path) -> tuple[dict[str, str], list[str]]:
    """Cases that could not be predicted, and on what the others were."""
    facts = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    return dict(facts.get("failures") or {}), list(facts.get("timing", {}).get("hardware", ()))


def _steps(folder: Path) -> list[int]:
    """Updates of every training in a folder, in the order in which they were done."""
    plan = load_cascade(folder / CASCADE).stages if (folder / CASCADE).is_file() else ()
    homes = [folder / STAGES / name for name in plan] or [folder]
    files = [file for home in homes for file in sorted(home.glob(f"fold*/{WEIGHTS['last']}"))]
    states = [peek_state(file) for file in files]
    return [state.step for state in states if state is not None]


def _price(folder: Path) -> tuple[float | None, list[int], int | None]:
    """Seconds of a forward pass, its window, and parameters; None of a cascade."""
    home = next((file.parent for file in sorted(folder.glob("fold*/recipe.yaml"))), folder)
    if not (home / WEIGHTS["best"]).is_file():
        return None, [], None
    model = Model.load(home)
    return forward_seconds(model), list(model.window.size), sum(p.numel() for p in model.net.parameters())


def forward_seconds(model: Model) -> float:
    """Seconds of a forward pass of one window in evaluation: the fastest of some, since other work only adds to it."""
    dims = model.recipe.net.dims
    x = torch.zeros(1, len(model.recipe.channels), *model.window.size[-dims:], device=model.device)
    took: list[float] = []
    began = time.perf_counter()
    with torch.inference_mode():
        for number in range(WARM_UP + REPEATS):
            started = time.perf_counter()
            model.net(x)
            if x.is_cuda:
                torch.cuda.synchronize(x.device)
            if number >= WARM_UP:
                took.append(time.perf_counter() - started)
            if took and time.perf_counter() - began > LONGEST:
                break
    return min(took)

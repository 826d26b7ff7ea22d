"""Is attention worth its place from the start? The same recipe trained anew with it, without it, and without but wider.

A net that was trained with attention has got used to it; that it cannot do without says nothing about one trained
without. Here every arm gets the same data, patches, budget and seeds.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus import nets
from attentus.errors import BadInput
from attentus.explain.matching import NEAR, matched, parameters
from attentus.explain.verdict import Change, change, corrected, verdict
from attentus.infer.model import WEIGHTS
from attentus.metrics.summary import case_means, from_json
from attentus.progress import Progress, Silent
from attentus.recipes import Recipe, build
from attentus.train.farm import fit_many
from attentus.train.fitting import CACHE
from attentus.train.state import peek_state

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from attentus.data.dataset import Dataset
    from attentus.infer.model import Model

WITH, WITHOUT, WIDER = "with attention", "without", "without, wider"
"""Arms."""
METRICS = ("dice", "hd95_mm")
SURE = ("essential", "helpful", "harmful")
"""Verdicts that need every seed to agree on who is ahead."""


@dataclass(frozen=True)
class Arm:
    """A way to train."""

    name: str
    recipe: Recipe
    parameters: int
    factor: float = 1.0
    """What the widths were multiplied by."""


@dataclass(frozen=True)
class Result:
    """An arm after its trainings, over seeds that all arms finished."""

    arm: Arm
    dice: tuple[float, ...]
    """Mean over the cases, seed by seed."""
    steps: tuple[int, ...]
    """Weight updates, seed by seed."""
    changes: Mapping[str, Change]
    """Metric to this arm minus that with attention, paired by case, seeds averaged first; empty for that arm."""
    by_seed: tuple[float, ...]
    """The same difference in Dice, seed by seed."""
    verdict: str
    """On attention, measured against this arm; "" for the arm with attention."""

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "arm": self.arm.name,
            "parameters": self.arm.parameters,
            "width_factor": self.arm.factor,
            "options": self.arm.recipe.net.options,
            "steps": list(self.steps),
            "dice": list(self.dice),
            "difference_by_seed": list(self.by_seed),
            "changes": {metric: one.facts() for metric, one in self.changes.items()},
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Retrained:
    """What attention is worth where the net may learn to do without."""

    seeds: tuple[int, ...]
    budget: str
    cases: tuple[str, ...]
    results: tuple[Result, ...]
    """The arm with attention first."""
    margin: float
    failures: Mapping[str, str]
    """Arm and run to message."""

    @property
    def notes(self) -> list[str]:
        """What must be known to read it."""
        seeds = ", ".join(map(str, self.seeds))
        notes = [
            f"Every arm was trained anew with the same data, patches and seeds ({seeds}), {self.budget} each."
            " Differences are the arm minus that with attention, seeds averaged in each case first; their intervals are"
            " over the cases and do not hold the chance of another seed. A verdict that attention matters either way is"
            " withheld where the seeds do not agree on who is ahead."
        ]
        if len(self.seeds) < 3:
            notes.append(f"With {len(self.seeds)} seed(s) chance cannot be told from the arm: take three or more.")
        target = self.results[0].arm.parameters
        for result in self.results[1:]:
            off = result.arm.parameters / target - 1
            if result.arm.name == WIDER and abs(off) > NEAR:
                notes.append(f"Widths are whole numbers: the wider net comes only within {100 * off:+.1f} %.")
        if not any(result.arm.name == WIDER for result in self.results):
            off = self.results[1].arm.parameters / target - 1
            notes.append(
                f"No width brings the net without attention nearer to {target:,} parameters than its own"
                f" ({100 * off:+.1f} %), so that there is no third arm."
            )
        return notes

    def facts(self) -> dict[str, Any]:
        """Plain values for audit.json."""
        return {
            "seeds": list(self.seeds),
            "budget": self.budget,
            "cases": list(self.cases),
            "arms": [result.facts() for result in self.results],
            "notes": self.notes,
            "failures": dict(self.failures),
        }


def arms_of(model: Model, *, minutes: float | None = None, steps: int | None = None) -> list[Arm]:
    """What is to be trained: as the model was, without attention, and that as wide as the parameters allow.

    The third is left out where no width of the net comes nearer than the second one.

    Args:
        model: with attention.
        minutes: of each training; None leaves the recipe's own end.
        steps: of each training, instead of that.
    """
    tree = model.recipe.model_dump()
    tree["train"] |= {"snapshots": {}}
    tree["start"] = {}
    if minutes is not None:
        tree["train"]["minutes"] = minutes
    if steps is not None:
        tree["train"] |= {"minutes": None, "epochs": None, "steps": steps}
    without = (*nets.left_out(model.net), *nets.taps(model.net))

    def arm(name: str, net: str, options: dict[str, Any], factor: float = 1.0) -> Arm:
        called = f"{tree['name']}, {name}"
        recipe = build({**tree, "name": called, "net": {**tree["net"], "name": net, "options": options}}, called)
        return Arm(name, recipe, parameters(recipe), factor)

    how = model.recipe.net
    whole = arm(WITH, how.name, how.options)
    bare = arm(WITHOUT, how.name, {**how.options, "without": list(without)})
    found = matched(model.recipe, without, whole.parameters)
    wider = arm(WIDER, found.name, found.options, found.factor)
    return [whole, bare, *([wider] if wider.parameters != bare.parameters else [])]


def retrain(
    model: Model,
    dataset: Dataset,
    out: str | PathLike[str],
    *,
    seeds: Sequence[int] = (0,),
    minutes: float | None = None,
    steps: int | None = None,
    margin: float,
    progress: Progress | None = None,
) -> Retrained:
    """Train every arm with every seed and compare them on the cases held back.

    Called again, finished trainings are not repeated and an unfinished one goes on.

    Args:
        model: whose recipe is taken; fine-tuned ones start from chance here, too.
        dataset: what it was trained on.
        out: folder of the runs, `ARM/foldN-seedS`.
        seeds: several, for chance has a say.
        minutes: of each training; None leaves the recipe's own end.
        steps: of each training, instead of that.
        margin: smallest change in mean Dice that matters.
        progress: shows every training.

    Raises:
        BadInput: a model without attention, or no seed that all arms finished; the message has the reasons, such as
            runs of another recipe or budget in the folder.
    """
    if not nets.taps(model.net):
        raise BadInput(f"The net '{model.recipe.net.name}' of {model.recipe.name} has no attention to train without.")
    place, progress = Path(out), progress or Silent()
    arms = arms_of(model, minutes=minutes, steps=steps)
    runs: dict[str, dict[int, Path]] = {}
    failures: dict[str, str] = {}
    for arm in arms:
        progress.say(f"training {arm.name}: {arm.parameters:,} parameters")
        folder = place / arm.name.replace(", ", "-").replace(" ", "-")
        done = fit_many(arm.recipe, dataset, folder, seeds=seeds, cache=_cache(model, place), progress=progress)
        runs[arm.name] = {Recipe.load(one / "recipe.yaml").seed: one for one in done.runs.values()}
        failures |= {f"{arm.name}, {name}": message for name, message in done.failures.items()}
    common = tuple(seed for seed in dict.fromkeys(seeds) if all(seed in each for each in runs.values()))
    if not common:
        reasons = "\n  ".join(f"{name}: {message}" for name, message in failures.items())
        raise BadInput(f"{place}: no seed was trained to its end in all arms.\n  {reasons}")
    return _compared(
        arms, {name: [each[seed] for seed in common] for name, each in runs.items()}, common, margin, failures
    )


def _cache(model: Model, place: Path) -> Path:
    """Prepared cases of the model's own training, if they are still there; else a folder beside the runs."""
    own = model.folder.parent / CACHE if model.folder else None
    return own if own is not None and own.is_dir() else place / CACHE


def _compared(
    arms: Sequence[Arm],
    runs: Mapping[str, Sequence[Path]],
    seeds: tuple[int, ...],
    margin: float,
    failures: Mapping[str, str],
) -> Retrained:
    measured = {arm.name: [_measured(folder) for folder in runs[arm.name]] for arm in arms}
    cases = [
        case for case in measured[WITH][0]["dice"] if all(case in run["dice"] for r in measured.values() for run in r)
    ]
    flat = [
        (arm.name, change(metric, *(_over_seeds(measured[name], metric, cases) for name in (arm.name, WITH))))
        for arm in arms[1:]
        for metric in METRICS
    ]
    changes: dict[str, dict[str, Change]] = {arm.name: {} for arm in arms}
    for (name, _), one in zip(flat, corrected([one for _, one in flat]), strict=True):
        changes[name][one.metric] = one
    results = []
    for arm in arms:
        dice = tuple(_mean([run["dice"][case] for case in cases]) for run in measured[arm.name])
        by_seed = () if arm.name == WITH else tuple(_differences(measured[arm.name], measured[WITH], cases))
        found = _judged(changes[arm.name]["dice"], by_seed, margin) if by_seed else ""
        results.append(Result(arm, dice, tuple(map(_steps, runs[arm.name])), changes[arm.name], by_seed, found))
    how = arms[0].recipe.train
    end = [
        f"{how.minutes:g} minutes" if how.minutes else "",
        f"{how.epochs} epochs" if how.epochs else f"{how.steps:,} steps",
    ]
    return Retrained(seeds, " or ".join(filter(None, end)), tuple(cases), tuple(results), margin, failures)


def _measured(folder: Path) -> dict[str, dict[str, float]]:
    """Metric to case to value, structures averaged."""
    scores = from_json((folder / "scores.json").read_text(encoding="utf-8"))
    return {metric: case_means(scores, metric) for metric in METRICS}


def _over_seeds(runs: Sequence[Mapping[str, Mapping[str, float]]], metric: str, cases: Sequence[str]) -> list[float]:
    """A value per case, averaged over the seeds that have one."""
    return [_mean([run[metric].get(case, math.nan) for run in runs]) for case in cases]


def _differences(
    mine: Sequence[Mapping[str, Mapping[str, float]]],
    theirs: Sequence[Mapping[str, Mapping[str, float]]],
    cases: Sequence[str],
) -> list[float]:
    """Mean difference in Dice over the cases, seed by seed."""
    pairs = zip(mine, theirs, strict=True)
    return [_mean([one["dice"][case] - other["dice"][case] for case in cases]) for one, other in pairs]


def _judged(dice: Change, by_seed: Sequence[float], margin: float) -> str:
    """The rule of the audit; what says that attention matters needs the seeds to agree."""
    found = verdict(dice, margin)
    return "undecided" if found in SURE and min(by_seed) < 0 < max(by_seed) else found


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if math.isfinite(value)]
    return statistics.fmean(known) if known else math.nan


def _steps(folder: Path) -> int:
    state = peek_state(folder / WEIGHTS["last"])
    return state.step if state else 0

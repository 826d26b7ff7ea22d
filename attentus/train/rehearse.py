"""A rehearsal: two cases learnt by heart in minutes, to see whether data, labels, loss and net fit together."""

from __future__ import annotations

import math
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from attentus.data.cache import prepare_cases
from attentus.data.resolve import members, resolve
from attentus.errors import BadInput
from attentus.progress import Progress, Silent
from attentus.recipes import Augment, Schedule
from attentus.train import loop
from attentus.train.devices import launch
from attentus.train.fitting import CACHE, Run, check_buildable, set_up
from attentus.train.log import read_log
from attentus.train.schedule import total_steps
from attentus.train.updates import trainable

if TYPE_CHECKING:
    from os import PathLike

    from attentus.data.cache import CachedCase
    from attentus.data.dataset import Dataset
    from attentus.recipes import Recipe

CASES = 2
GOOD, FAIR = 0.9, 0.6
"""Mean Dice on cases learnt by heart that shows that everything fits, or that it begins to."""
SLOW_LOADER = 0.2
"""Share of the time waiting for patches from which more threads are worth it."""


@dataclass(frozen=True)
class Rehearsal:
    """What a rehearsal found."""

    cases: tuple[str, ...]
    dice: dict[str, float]
    """Of each structure on these cases; nan where neither has it."""
    share: dict[str, float]
    """Of the voxels of these cases that belong to each structure."""
    losses: tuple[float, float]
    """At the beginning and at the end: means over a tenth of the steps."""
    steps: int
    seconds_per_step: float
    waiting: float
    """Share of the time spent waiting for patches."""
    peak_mib: float
    """Largest memory of the process so far."""
    parameters: int
    hours: float
    """What the whole training would take at this speed."""
    verdict: str
    """"fits", "learns" or "does not learn"."""
    advice: tuple[str, ...]


def rehearse(
    recipe: Recipe,
    dataset: Dataset,
    *,
    minutes: float = 3.0,
    steps: int = 400,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Rehearsal:
    """Learn two cases by heart with a recipe's net, loss and patches, without augmentation, and judge the result.

    Args:
        recipe: what is to be trained.
        dataset: its data.
        minutes: end after so long.
        steps: end after so many.
        cache: where prepared cases are kept; None keeps nothing.
        progress: shows what happens.

    Raises:
        RecipeError: the recipe does not fit the data.
        BadInput: no case can be used.
    """
    progress, whole = progress or Silent(), resolve(recipe, dataset)
    check_buildable(whole)
    with TemporaryDirectory(prefix="attentus-rehearsal-") as scratch:
        folder = Path(scratch)
        cases = _choose(whole, dataset, Path(cache or folder / CACHE), progress)
        short = _shortened(whole, minutes, steps)
        run = Run(launch(short.train), short, folder, progress)
        job, state = set_up(run, cases, cases)
        job.max_seconds, job.enough = 60 * minutes, GOOD
        with job.log:
            state = loop.run(job, state)
        table = loop.validate(job.best_net.eval(), cases, short, run.fabric.device)
        lines = [line for line in read_log(folder / "metrics.jsonl") if line["kind"] == "step"]
        planned = total_steps(whole, len(dataset.parts(whole.split)[0]))
        return _judge(job, cases, table, lines, planned)


def _choose(recipe: Recipe, dataset: Dataset, cache: Path, progress: Progress) -> list[CachedCase]:
    """The first usable training cases that hold a structure."""
    train, _, _ = dataset.parts(recipe.split)
    chosen: list[CachedCase] = []
    failures: dict[str, str] = {}
    for case in train:
        ready, failed = prepare_cases(dataset.subset([case.id]), recipe, cache, progress)
        failures |= failed
        chosen += [one for one in ready if len(one.points)]
        if len(chosen) == CASES:
            return chosen
    if not chosen:
        reasons = "\n  ".join(f"{case}: {message}" for case, message in failures.items())
        raise BadInput(f"{dataset.root}: no training case holds any of the structures.\n  {reasons}".rstrip())
    return chosen


def _shortened(recipe: Recipe, minutes: float, steps: int) -> Recipe:
    """The same net, loss and patches without what makes learning by heart harder or longer."""
    train = recipe.train.model_copy(
        update={
            "steps": steps,
            "epochs": None,
            "minutes": minutes,
            "patience": None,
            "schedule": Schedule(name="cosine", warm_up=0.05),
            "ema": 0.0,
            "validate_every": max(steps // 8, 1),
            "checkpoint_every": 86_400.0,
        }
    )
    sampling = recipe.sampling.model_copy(update={"only_with": (), "foreground": max(recipe.sampling.foreground, 0.5)})
    return recipe.model_copy(update={"train": train, "augment": Augment(), "sampling": sampling})


def _judge(
    job: loop.Job, cases: list[CachedCase], table: np.ndarray, lines: list[dict[str, float]], planned: int
) -> Rehearsal:
    tenth = max(len(lines) // 10, 1)
    losses = tuple(float(np.mean([line["loss"] for line in part])) for part in (lines[:tenth], lines[-tenth:]))
    usual = lines[len(lines) // 4 :]  # the first steps are slower
    seconds = float(np.median([line["seconds"] for line in usual]))
    waiting = sum(line["wait"] for line in usual) / max(sum(line["seconds"] for line in usual), 1e-9)
    counts = [(~np.isnan(column)).sum() for column in table.T]
    dice = {
        structure.name: float(np.nansum(column) / count) if count else math.nan
        for structure, column, count in zip(job.recipe.labels, table.T, counts, strict=True)
    }
    known = [value for value in dice.values() if not math.isnan(value)]
    mean = sum(known) / len(known) if known else 0.0
    share = _shares(job, cases)
    verdict = "fits" if mean >= GOOD else "learns" if mean >= FAIR or losses[1] < 0.5 * losses[0] else "does not learn"
    return Rehearsal(
        cases=tuple(case.id for case in cases),
        dice=dice,
        share=share,
        losses=(losses[0], losses[1]),
        steps=len(lines),
        seconds_per_step=seconds,
        waiting=waiting,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10),
        parameters=trainable(job.bare),
        hours=planned * seconds / 3600,
        verdict=verdict,
        advice=tuple(_advice(job, dice, share, waiting, verdict)),
    )


def _shares(job: loop.Job, cases: list[CachedCase]) -> dict[str, float]:
    voxels = sum(case.labels.size for case in cases)
    return {
        name: sum(int(np.isin(case.labels, numbers).sum()) for case in cases) / voxels
        for name, numbers in members(job.recipe).items()
    }


def _advice(job: loop.Job, dice: dict[str, float], share: dict[str, float], waiting: float, verdict: str) -> list[str]:
    advice = [f"{name} is in neither case, so nothing can be said about it." for name, s in share.items() if not s]
    advice += [
        f"{name} fills {s:.0%} of the voxels: is it a structure, or is the background labelled?"
        for name, s in share.items()
        if s > 0.5
    ]
    low = [name for name, value in dice.items() if value < FAIR]
    if verdict == "does not learn":
        advice.append(
            "The net did not learn two cases by heart: look at images and labels (attentus data show), at"
            " prepare.intensity and prepare.spacing, and try another train.learning_rate."
        )
    elif low and verdict == "learns":
        advice.append(f"{', '.join(low)} came slowly: more steps may do; small structures want sampling.foreground.")
    if waiting > SLOW_LOADER:
        advice.append(f"{waiting:.0%} of the time was spent waiting for patches: raise train.workers.")
    smallest = min(min(case.grid.shape[-job.recipe.net.dims :]) for case in job.sampler.cases)
    if smallest < min(job.recipe.train.patch):
        advice.append(f"Patches reach beyond the smallest scan ({smallest} voxels along one side); they are filled up.")
    return advice

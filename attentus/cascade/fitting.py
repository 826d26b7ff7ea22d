"""`fit_cascade`: stage after stage, each trained where the one before it looked; then all of them judged as one."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.cascade.card import write_card
from attentus.cascade.model import FILE, Cascade
from attentus.cascade.views import Training, view
from attentus.data.resolve import resolve
from attentus.data.splits import part
from attentus.errors import BadFile, BadInput, RecipeError
from attentus.io.atomic import write_text
from attentus.progress import Progress, Silent
from attentus.recipes import CascadeRecipe, Split, answer_recipe, build_cascade, differences, dump, load_cascade
from attentus.train.evaluate import judge, write_scores
from attentus.train.farm import every_fold, fit_many
from attentus.train.farm.results import join, join_timing
from attentus.train.fitting import CACHE, check_buildable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from attentus.data import Dataset
    from attentus.types import Scores

SPLITS = "splits.json"


@dataclass(frozen=True)
class CascadeRun:
    """What came out of training a cascade."""

    folder: Path
    scores: Scores
    """Held-back cases through all stages, by models that had not seen them."""
    failures: Mapping[str, str]
    """Case, or STAGE/RUN, to message."""


def fit_cascade(
    plan: CascadeRecipe,
    dataset: Dataset,
    out: str | PathLike[str],
    *,
    folds: Sequence[int] | None = None,
    cluster: str | None = None,
    workers: int | None = None,
    max_time: float | None = None,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CascadeRun:
    """Train the stages of a cascade, and score all cases held back.

    Every stage is trained on several folds (`fit_many`), which vote when it predicts. A case held back from a fold is
    held back from it in all stages. Later stages see boxes around what an earlier one found in cases that it had not
    seen (`learn_from`). Called again on an unfinished folder, it goes on.

    Args:
        plan: what to do.
        dataset: cases with labels.
        out: folder of the cascade.
        folds: folds to hold back in turn; None takes all.
        cluster: see `fit_many`.
        workers: see `fit_many`.
        max_time: seconds of training and validation per run, at most.
        cache: where prepared cases are kept; None takes a folder beside `out`.
        progress: shows every run.

    Raises:
        RecipeError: a recipe does not fit the data or the other stages, or the folder holds another cascade.
        BadInput: no usable case, or a cluster that cannot be used.
        BadFile: `out` holds something else.
    """
    folder = Path(out)
    resolved = settle(plan, dataset)
    job = Training(resolved, dataset, folder, progress or Silent())
    _begin(folder, resolved)
    chosen = list(every_fold(answer_recipe(resolved), dataset) if folds is None else folds)
    parts = {
        fold: part(dataset.labelled, _of_fold(resolved.split, fold), dataset.splits) for fold in range(max(chosen) + 1)
    }
    failures: dict[str, str] = {}
    kept = Path(cache or folder.parent / CACHE)
    for number, (name, stage) in enumerate(resolved.stages.items(), start=1):
        job.progress.say(f"stage {number} of {len(resolved.stages)}: {name} ({stage.recipe.name})")
        seen, left_out = view(job, name)
        failures |= left_out
        splits = job.place(name).parent / f"{name}-{SPLITS}"
        known = {case.id for case in seen.labelled}
        sides = [{k: [c for c in ids if c in known] for k, ids in _named(p).items()} for p in parts.values()]
        write_text(splits, json.dumps(sides))
        split = Split(file=splits.absolute(), fold=chosen[0])
        done = fit_many(
            stage.recipe.model_copy(update={"split": split}),
            *(seen, job.place(name)),
            folds=chosen,
            cluster=cluster,
            workers=workers,
            max_time=max_time,
            cache=kept,
            progress=progress,
        )
        failures |= {f"{name}/{run}" if run.startswith("fold") else run: text for run, text in done.failures.items()}
        if len(done.runs) < len(chosen):
            failed = "\n  ".join(f"{run}: {text}" for run, text in done.failures.items())
            raise BadInput(f"stage '{name}' is not complete, so the next one cannot begin.\n  {failed}")
    scores = _judge(job, {fold: parts[fold].test or parts[fold].validation for fold in chosen})
    return CascadeRun(folder, scores, failures)


def settle(plan: CascadeRecipe, dataset: Dataset) -> CascadeRecipe:
    """The cascade with everything that depends on the data written out, after a look at whatever could go wrong later.

    Raises:
        RecipeError: a recipe does not fit the data, a stage finds no such structure, or the answer is contradictory.
    """
    tree = plan.model_dump()
    for name, stage in plan.stages.items():
        try:
            tree["stages"][name]["recipe"] = ready = resolve(stage.recipe, dataset)
            check_buildable(ready)
        except RecipeError as error:
            raise RecipeError(f"stage '{name}': {error}") from error
    resolved = build_cascade(tree, plan.name)
    answer = resolve(answer_recipe(resolved), dataset)
    values = {structure.name: structure.value for structure in answer.labels}
    if len(set(values.values())) < len(values):
        raise RecipeError(f"answer: two structures would be written as the same integer ({values}). Set `values`.")
    return resolved.model_copy(update={"values": values})


def _begin(folder: Path, plan: CascadeRecipe) -> None:
    """Write the cascade into a new folder, or make sure that an existing one is the same."""
    file = folder / FILE
    if file.is_file():
        changed = differences(load_cascade(file), plan)
        if changed:
            text = "\n  ".join(changed)
            raise RecipeError(f"{folder} holds another cascade:\n  {text}\n  Choose another folder.")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise BadFile(folder, "is not empty and holds no cascade", "Choose an empty or a new folder.")
    write_text(file, dump(plan))


def _judge(job: Training, held_back: Mapping[int, Sequence[str]]) -> Scores:
    """Every held-back case through all stages, by the models of its fold."""
    each, timings = {}, {}
    for fold, cases in held_back.items():
        cascade = Cascade.load(job.folder, fold=fold)
        name = f"fold{fold}"
        each[name], timings[name] = judge(cascade, job.dataset.subset(cases), job.folder, job.progress)
    scores = join(each)
    timing = join_timing(timings, each)
    write_scores(job.folder, scores, answer_recipe(job.plan), timing=timing, runs=list(each))
    facts = {
        "dataset": job.dataset.name,
        "root": str(job.dataset.root.resolve()),
        "labels": dict(job.dataset.labels),
        "validation": {case: "" for cases in held_back.values() for case in cases},
        "folds": {f"fold{fold}": list(cases) for fold, cases in held_back.items()},
        "left out": dict(scores.failures),
    }
    write_text(job.folder / "data.json", json.dumps(facts, indent=1))
    write_card(job, scores)
    return scores


def _of_fold(split: Split, fold: int) -> Split:
    return Split.model_validate({**split.model_dump(), "fold": fold})


def _named(parts: Any) -> dict[str, list[str]]:
    return {"train": parts.train, "val": parts.validation, "test": parts.test}

"""What the command in charge does: plan the runs, prepare the cases, have the runs done, and keep the books."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.cluster import connect, examine, holding_token
from attentus.data.cache import prepare_cases
from attentus.data.dataset import Dataset
from attentus.data.resolve import resolve
from attentus.data.splits import entries
from attentus.errors import BadFile, BadInput
from attentus.io.atomic import unwritable, write_text
from attentus.progress import Progress, Silent
from attentus.recipes import build
from attentus.train.farm.cluster import spread
from attentus.train.farm.results import conclude
from attentus.train.farm.worker import PRIVATE, Job, Outcome, work
from attentus.train.fitting import CACHE, check_buildable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from os import PathLike

    from attentus.recipes import Recipe
    from attentus.types import Scores


@dataclass(frozen=True)
class CrossRun:
    """What came out of several trainings of one recipe."""

    folder: Path
    runs: Mapping[str, Path]
    """Name to model folder of the runs that are finished."""
    scores: Scores
    """All held-back cases of these runs. Where several runs held back a case, its id has the run's name behind it."""
    failures: Mapping[str, str]
    """Run, or case that could not be used, to message."""


def fit_many(
    recipe: Recipe,
    dataset: Dataset | str | PathLike[str],
    out: str | PathLike[str],
    *,
    folds: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    cluster: str | None = None,
    workers: int | None = None,
    max_time: float | None = None,
    cache: str | PathLike[str] | None = None,
    progress: Progress | None = None,
) -> CrossRun:
    """Train a recipe on several folds and with several seeds, and score all held-back cases together.

    Each run is a model folder in `out`: `fold0`, or `fold0-seed1` where the seed is not the recipe's own. Beside them:
    scores.json and scores.csv over all runs, card.md, and runs.json, which says what ran where. Called again, finished
    runs are not repeated and unfinished ones go on. A run that fails is listed and does not stop the others.

    Args:
        recipe: what to do.
        dataset: cases with labels, or where they are.
        out: folder of the runs.
        folds: folds to hold back in turn, see `every_fold`; None takes the recipe's own.
        seeds: None takes the recipe's own.
        cluster: address of a Dask scheduler (tcp://host:port) or its scheduler file; its workers must see dataset,
            cache and `out` under the same paths. None stays on this machine.
        workers: processes on this machine; None or 1 does one run after another in this process.
        max_time: seconds of training and validation per run, at most.
        cache: where prepared cases are kept; None takes a folder beside `out`.
        progress: shows every run.

    Raises:
        RecipeError: the recipe does not fit the data, or has no such fold.
        BadInput: nothing to do, or a cluster that cannot be reached or used; the message says why.
        BadFile: `out` holds something else.
        MissingExtra: the extra `cluster` is not installed.
    """
    place, progress = Path(out).absolute(), progress or Silent()
    if cluster is not None and workers is not None:
        raise BadInput("A cluster brings its own workers: give cluster or workers, not both.")
    data = absolute(dataset if isinstance(dataset, Dataset) else Dataset.open(dataset))
    recipes = plan(recipe, folds, seeds)
    resolved = resolve(next(iter(recipes.values())), data)
    if cluster is None:
        check_buildable(resolved)  # a cluster may have GPUs where this machine has none
    with connect(cluster, min(workers or 1, len(recipes))) as client:
        begin(place)
        prepared = Path(cache or place.parent / CACHE).absolute()
        _, left_out = prepare_cases(data, resolved, prepared, progress)
        for case, message in left_out.items():
            progress.say(f"left out: {case}: {message}")
        with in_charge(place) as token:
            jobs = [Job(name, each, data, place, prepared, token, max_time) for name, each in recipes.items()]
            outcomes = _run(jobs, client, progress, Book(place, jobs, cluster))
    failed = {name: outcome.message for name, outcome in outcomes.items() if outcome.message}
    runs = {job.name: job.folder for job in jobs if job.name not in failed}
    return CrossRun(place, runs, conclude(place, recipe, jobs, runs, failed), {**left_out, **failed})


def every_fold(recipe: Recipe, dataset: Dataset) -> range:
    """All folds a recipe's split has, or the dataset's own where the recipe takes these.

    Raises:
        BadFile: its split file cannot be read or is no list of splits.
    """
    how = recipe.split
    if how.sizes:
        return range(1)
    if how.given:
        return range(len(dataset.splits))
    if how.file is None:
        return range(how.folds)
    return range(len(entries(how.file)))


def plan(recipe: Recipe, folds: Sequence[int] | None, seeds: Sequence[int] | None) -> dict[str, Recipe]:
    """Name to recipe of each run. Paths become absolute: workers may have another working directory.

    Raises:
        RecipeError: a fold that the split does not have.
        BadInput: no fold or no seed.
    """
    tree = recipe.model_dump()
    for section, field in (("split", "file"), ("start", "model")):
        if tree[section][field] is not None:
            tree[section][field] = Path(tree[section][field]).absolute()
    recipes = {}
    for seed in dict.fromkeys([recipe.seed] if seeds is None else seeds):
        for fold in dict.fromkeys([recipe.split.fold] if folds is None else folds):
            name = f"fold{fold}" if seed == recipe.seed else f"fold{fold}-seed{seed}"
            recipes[name] = build({**tree, "seed": seed, "split": {**tree["split"], "fold": fold}}, recipe.name)
    if not recipes:
        raise BadInput("There is nothing to train: give at least one fold and one seed.")
    return recipes


class Book:
    """runs.json: what was run, and where. Kept up to date while runs end; earlier sittings are remembered."""

    def __init__(self, out: Path, jobs: Sequence[Job], cluster: str | None) -> None:
        self.file = out / "runs.json"
        before: dict[str, Any] = {}
        with suppress(OSError, ValueError, KeyError):
            before = json.loads(self.file.read_text(encoding="utf-8"))["runs"]
        self.facts = {"recipe": jobs[0].recipe.name, "dataset": str(jobs[0].dataset.root), "cluster": cluster}
        self.runs: dict[str, dict[str, Any]] = {
            job.name: {
                **before.get(job.name, {}),
                "fold": job.recipe.split.fold,
                "seed": job.recipe.seed,
                "state": "waiting",
            }
            for job in jobs
        }
        self.write()

    def enter(self, outcome: Outcome) -> None:
        """Note how a run ended."""
        run = self.runs[outcome.name]
        run["state"] = "failed" if outcome.message else "finished"
        if not outcome.repeated:
            run |= {"host": outcome.host, "pid": outcome.pid, "seconds": round(outcome.seconds, 1)}
        for key, text in (("message", outcome.message), ("trace", outcome.trace)):
            run.pop(key, None)
            run |= {key: text} if text else {}
        self.write()

    def write(self) -> None:
        """Write the file."""
        write_text(self.file, json.dumps({**self.facts, "runs": self.runs}, indent=1))


def _run(jobs: list[Job], client: Any, progress: Progress, book: Book) -> dict[str, Outcome]:
    """Do all jobs, on a cluster or, without a client, here; name to outcome."""
    outcomes: dict[str, Outcome] = {}

    def end(outcome: Outcome) -> None:
        outcomes[outcome.name] = outcome
        book.enter(outcome)
        progress.say(f"{outcome.name}: {'failed: ' + outcome.message if outcome.message else 'finished'}")

    if client is not None:
        threads = examine(client, jobs[0].token)
        spread([replace(job, threads=threads) for job in jobs], client, progress, end)
        return outcomes
    with progress.task("runs", len(jobs)) as whole:
        for job in jobs:
            progress.say(f"{job.name}: fold {job.recipe.split.fold}, seed {job.recipe.seed}")
            end(work(job, progress))
            whole.advance(1)
    return outcomes


def absolute(dataset: Dataset) -> Dataset:
    """The same dataset with paths that mean the same everywhere."""
    cases = tuple(
        replace(
            case,
            images=tuple(Path(image).absolute() for image in case.images),
            label=None if case.label is None else case.label.absolute(),
        )
        for case in dataset.cases
    )
    return replace(dataset, root=dataset.root.absolute(), cases=cases)


def begin(out: Path) -> None:
    """Make the folder, or make sure that it is one of runs.

    Raises:
        BadFile: it holds something else, or cannot be written to.
    """
    if (out / "recipe.yaml").is_file():
        raise BadFile(out, "is the folder of a single run", "Choose another folder for several folds or seeds.")
    if out.is_dir() and not (out / "runs.json").is_file():
        strange = [p.name for p in out.iterdir() if not re.fullmatch(r"\..*|fold\d+(-seed-?\d+)?", p.name)]
        if strange:
            raise BadFile(out, f"is not empty and holds no runs ({strange[0]})", "Choose an empty or a new folder.")
    try:
        (out / PRIVATE).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritable(out, error) from error


@contextmanager
def in_charge(out: Path) -> Iterator[Path]:
    """The token of this command. Those of earlier ones go away, and with them the runs that somebody left behind."""
    for old in (out / PRIVATE).glob("*.token"):
        old.unlink(missing_ok=True)
    with holding_token(out / PRIVATE) as token:
        yield token

"""Many trainings of one recipe: folds and seeds, one after another here or side by side on a Dask cluster.

Every run is `fit` in a folder of its own, so whatever ends a worker, the run goes on elsewhere from its checkpoint.
What the runs need of each other lies in the hidden folder `.farm` beside them: a lock per run, so that two processes
never write the same run, and a token of the command in charge; a run whose token is gone saves itself and stops.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import re
import signal
import socket
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import yaml

from attentus.data.cache import prepare_cases
from attentus.data.dataset import Dataset
from attentus.data.resolve import resolve
from attentus.errors import AttentusError, BadFile, BadInput, MissingExtra
from attentus.infer.model import WEIGHTS
from attentus.io.atomic import unwritable, write_text
from attentus.metrics import Rules, summarise, to_csv, to_json
from attentus.metrics.summary import from_json
from attentus.progress import Progress, Silent, Task
from attentus.recipes import build
from attentus.train.fitting import CACHE, check_buildable, fit
from attentus.train.state import peek_state
from attentus.types import Scores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from os import PathLike

    from attentus.metrics import Summary
    from attentus.recipes import Recipe

PRIVATE = ".farm"
"""Locks and tokens lie in this folder beside the runs."""
PATIENCE = 15.0
"""Seconds to wait for a scheduler, for its first worker, and for a worker to see a new file."""
PARTING = 60.0
"""Seconds that runs get to save themselves when the command is stopped."""
LOOK = 1.0
"""Seconds between two looks at the runs and at the token."""
SHOWN = ("dice", "hd95_mm", "assd_mm")
"""Metrics on the card."""
RECALLED = "stopped at a checkpoint, because the same command was started elsewhere or ended; run it again to go on"


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


@dataclass(frozen=True)
class Job:
    """One training, as it travels to a worker."""

    name: str
    recipe: Recipe
    dataset: Dataset
    out: Path
    """Folder of all runs; absolute."""
    cache: Path
    token: Path
    max_time: float | None = None
    threads: Mapping[str, int] | None = None
    """Host to the threads torch may take there; None leaves them as they are."""

    @property
    def folder(self) -> Path:
        """The model folder."""
        return self.out / self.name

    @property
    def finished(self) -> bool:
        """Whether the run is trained and evaluated."""
        state = peek_state(self.folder / WEIGHTS["last"])
        return state is not None and state.finished and (self.folder / "scores.json").is_file()


@dataclass(frozen=True)
class Outcome:
    """How a job ended, and where it ran."""

    name: str
    host: str = ""
    pid: int = 0
    seconds: float = 0.0
    """Time in this sitting."""
    message: str = ""
    """Why it failed; empty if it did not."""
    trace: str = ""
    """Where an unforeseen error arose."""
    repeated: bool = False
    """It was finished already."""


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
    data = _absolute(dataset if isinstance(dataset, Dataset) else Dataset.open(dataset))
    recipes = plan(recipe, folds, seeds)
    resolved = resolve(next(iter(recipes.values())), data)
    if cluster is None:
        check_buildable(resolved)  # a cluster may have GPUs where this machine has none
    with _connect(cluster, min(workers or 1, len(recipes))) as client:
        _begin(place)
        prepared = Path(cache or place.parent / CACHE).absolute()
        _, left_out = prepare_cases(data, resolved, prepared, progress)
        for case, message in left_out.items():
            progress.say(f"left out: {case}: {message}")
        with _in_charge(place) as token:
            jobs = [Job(name, each, data, place, prepared, token, max_time) for name, each in recipes.items()]
            outcomes = _run(jobs, client, progress, Book(place, jobs, cluster))
    failed = {name: outcome.message for name, outcome in outcomes.items() if outcome.message}
    runs = {job.name: job.folder for job in jobs if job.name not in failed}
    return CrossRun(place, runs, _conclude(place, recipe, jobs, runs, failed), {**left_out, **failed})


def every_fold(recipe: Recipe) -> range:
    """All folds a recipe's split has.

    Raises:
        BadFile: its split file cannot be read.
    """
    how = recipe.split
    if how.sizes:
        return range(1)
    if how.file is None:
        return range(how.folds)
    try:
        listed = yaml.safe_load(how.file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadFile(how.file, f"cannot be read as JSON or YAML ({error})", "Check split.file.") from None
    return range(len(listed) if isinstance(listed, list) else 1)


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


# What a worker does -------------------------------------------------------------------------------------------------


def work(job: Job, progress: Progress | None = None) -> Outcome:
    """Do one job, in whatever process this is; errors become part of the outcome."""
    host, began = socket.gethostname(), time.time()
    leash = Leash(job.token, progress or Silent())
    message = trace = ""
    repeated = False
    try:
        _limit_threads(job.threads, host)
        with _alone(job.out / PRIVATE / f"{job.name}.lock", leash):
            repeated = job.finished
            fit(job.recipe, job.dataset, job.folder, max_time=job.max_time, cache=job.cache, progress=leash)
    except Recalled:
        message = RECALLED
    except AttentusError as error:
        message = str(error)
    except Exception as error:
        message, trace = f"{type(error).__name__}: {error}", traceback.format_exc()
    return Outcome(job.name, host, os.getpid(), time.time() - began, message, trace, repeated)


class Recalled(KeyboardInterrupt):
    """The command in charge is gone. To `fit` this is Ctrl-C: it saves a checkpoint first."""


class Leash:
    """A progress that ends the work when the token is gone: nobody waits for it, or another command took over."""

    def __init__(self, token: Path, inner: Progress) -> None:
        self._token, self._inner, self._looked = token, inner, 0.0

    @contextmanager
    def task(self, what: str, total: int, done: int = 0) -> Iterator[Task]:
        """Open a task; each of its steps looks at the token."""
        with self._inner.task(what, total, done) as task:
            yield _LeashedTask(task, self)

    def say(self, message: str) -> None:
        """Pass it on."""
        self._inner.say(message)

    def look(self) -> None:
        """Stop the work if the token is gone; it is looked for once a second at most."""
        if time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            if not self._token.is_file():
                raise Recalled


class _LeashedTask:
    def __init__(self, inner: Task, leash: Leash) -> None:
        self._inner, self._leash = inner, leash

    def advance(self, steps: int = 1, note: str = "", total: int | None = None) -> None:
        self._inner.advance(steps, note, total)
        self._leash.look()


@contextmanager
def _alone(file: Path, leash: Leash) -> Iterator[None]:
    """Hold a lock that ends with the process, however that ends; wait while another process holds it."""
    import fcntl

    told = False
    with file.open("a+", encoding="utf-8") as stream:
        while True:
            leash.look()
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    leash.say(f"{file.stem}: waits for {file.read_text(encoding='utf-8')}, which is at work on it")
                told = True
                time.sleep(LOOK / 4)
            except OSError as error:
                fix = "Choose a folder on a file system with locks, or one run after another without --cluster."
                raise BadFile(file, f"cannot be locked ({error.strerror})", fix) from error
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}")
        stream.flush()
        yield


def _limit_threads(threads: Mapping[str, int] | None, host: str) -> None:
    if threads is not None:
        import torch

        torch.set_num_threads(threads.get(host, 1))


# What the command in charge does ------------------------------------------------------------------------------------


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
        threads = _examine(client, jobs[0].token)
        _farm([replace(job, threads=threads) for job in jobs], client, progress, end)
        return outcomes
    with progress.task("runs", len(jobs)) as whole:
        for job in jobs:
            progress.say(f"{job.name}: fold {job.recipe.split.fold}, seed {job.recipe.seed}")
            end(work(job, progress))
            whole.advance(1)
    return outcomes


def _farm(jobs: list[Job], client: Any, progress: Progress, end: Callable[[Outcome], None]) -> None:
    """Hand jobs to a cluster and watch the runs until all have ended."""
    watched = {job.name: Watched(job, progress) for job in jobs}
    with progress.task("runs", len(jobs)) as whole:
        try:
            for run in watched.values():
                run.submit(client)
            while watched:
                time.sleep(LOOK / 4)
                for name, run in list(watched.items()):
                    run.look()
                    outcome = run.outcome(client) if run.future.done() else None
                    if outcome:
                        watched.pop(name).bar.close()
                        end(outcome)
                        whole.advance(1)
        except KeyboardInterrupt:
            jobs[0].token.unlink(missing_ok=True)
            limit = time.monotonic() + PARTING
            while not all(run.future.done() for run in watched.values()) and time.monotonic() < limit:
                time.sleep(LOOK / 4)
            raise
        finally:
            for run in watched.values():
                run.bar.close()


class Watched:
    """A job on the cluster, seen through what its run leaves on disk."""

    future: Any

    def __init__(self, job: Job, progress: Progress) -> None:
        self.job, self.progress = job, progress
        self.bar = ExitStack()
        self.task: Task | None = None
        self.shown = self.begun_at = 0
        self.looked = 0.0

    def submit(self, client: Any) -> None:
        """Hand it to the cluster, for the first time or again."""
        self.begun_at = self._saved()
        self.future = client.submit(work, self.job, key=f"{self.job.name}-{uuid4().hex[:8]}", pure=False)

    def look(self) -> None:
        """Show how far the run is; once a second at most."""
        if time.monotonic() - self.looked < LOOK:
            return
        self.looked = time.monotonic()
        step, note = _standing(self.job)
        if step and self.task is None:
            self.task = self.bar.enter_context(self.progress.task(self.job.name, _steps(self.job), step))
        elif self.task:
            self.task.advance(step - self.shown, note, max(_steps(self.job), step))
        self.shown = step

    def outcome(self, client: Any) -> Outcome | None:
        """How it ended; None if it goes on, because workers died under it but left it further than it was."""
        if self.future.status == "finished":
            outcome: Outcome = self.future.result()
            return outcome
        if self.future.status != "error":
            return Outcome(self.job.name, message="the connection to the cluster was lost; run the command again")
        error = self.future.exception()
        if not isinstance(error, _dask().KilledWorker):
            return Outcome(self.job.name, message=f"{type(error).__name__}: {error}")
        if self._saved() > self.begun_at:
            self.submit(client)
            return None
        why = "several workers in a row died while they were at it, without coming any further: too little memory?"
        return Outcome(self.job.name, message=why)

    def _saved(self) -> int:
        """The step from which the run would go on."""
        with suppress(AttentusError):
            state = peek_state(self.job.folder / WEIGHTS["last"])
            return state.step if state else 0
        return 0


def _standing(job: Job) -> tuple[int, str]:
    """Last step known of a run, and a few words on it."""
    step, words = 0, []
    for line in _tail(job.folder / "metrics.jsonl"):
        step = max(step, int(line.get("step", 0)))
        if "loss" in line:
            words = [f"loss {line['loss']:.4f}"]
    with suppress(AttentusError):
        state = peek_state(job.folder / WEIGHTS["last"])
        if state:
            step = max(step, state.step)
            words += [f"best Dice {state.best:.4f}"] if state.best >= 0 else []
    return step, "  ".join(words)


def _tail(file: Path, size: int = 8192) -> list[dict[str, Any]]:
    """The last lines of a metrics.jsonl."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - size))
            texts = stream.read().splitlines()
    except OSError:
        return []
    lines = []
    for text in texts:
        with suppress(ValueError):
            line = json.loads(text)
            lines += [line] if isinstance(line, dict) else []
    return lines


def _steps(job: Job) -> int:
    """Steps of a run; where the recipe counts epochs, 1 until the run has written which cases it trains on."""
    how = job.recipe.train
    if not how.epochs:
        return how.steps
    try:
        cases = len(json.loads((job.folder / "data.json").read_text(encoding="utf-8"))["train"])
    except (OSError, ValueError, KeyError):
        return 1
    return how.epochs * -(-cases * job.recipe.sampling.per_case // (how.batch * how.accumulate))


# The cluster --------------------------------------------------------------------------------------------------------


@contextmanager
def _connect(cluster: str | None, workers: int) -> Iterator[Any]:
    """A client of a running cluster, or of a new one on this machine; None where this process can do it all.

    Raises:
        MissingExtra: Dask is not installed.
        BadInput: the scheduler does not answer.
    """
    if cluster is None and workers == 1:
        yield None
        return
    dask = _dask()
    if cluster is None:
        # No memory limit: Dask would count memory maps and kill workers. Any free port: others may have clusters, too.
        options: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": None}
        options["dashboard_address"] = "127.0.0.1:0"
        options["silence_logs"] = logging.ERROR  # a worker that dies is no news: its run goes on elsewhere
        with dask.LocalCluster(**options) as local, dask.Client(local, set_as_default=False) as client:
            client.register_worker_callbacks(_ignore_ctrl_c)
            yield client
        return
    address = _address(cluster)
    try:
        client = dask.Client(address, timeout=PATIENCE, set_as_default=False)
    except (OSError, ValueError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"No Dask scheduler answers at {cluster} ({first}).\n"
            "  Start one with `dask scheduler`, workers with `dask worker ADDRESS --nthreads 1`, and check the address."
        ) from None
    with client:
        yield client


def _ignore_ctrl_c() -> None:
    """A terminal sends Ctrl-C to all its processes. Workers go on until the command tells their runs to save."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _dask() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        raise MissingExtra("distributed", "cluster", "Training in several processes or on a cluster") from error


def _address(cluster: str) -> str:
    """The scheduler's address: as given, or out of its file.

    Raises:
        BadInput: neither.
    """
    file = Path(cluster)
    if "://" in cluster or (re.fullmatch(r"[\w.-]+:\d+", cluster) and not file.exists()):
        return cluster
    if not file.is_file():
        raise BadInput(f"'{cluster}' is no address such as tcp://host:8786, and no scheduler file of that name exists.")
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        fix = "Take the file that `dask scheduler --scheduler-file FILE` writes."
        raise BadFile(file, "is no scheduler file", fix) from None


def _examine(client: Any, token: Path) -> dict[str, int]:
    """Make sure that all workers can do the work; host to the threads each worker there may take.

    Raises:
        BadInput: there is no worker, or one with other versions, with several threads, or without access to the folder.
    """
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except _dask().TimeoutError:
        raise BadInput("The cluster has no worker. Start some: dask worker ADDRESS --nthreads 1") from None
    mine = _probe(str(token), 0.0)()
    found = client.run(_probe(str(token), PATIENCE), on_error="return")
    threads = client.nthreads()
    problems = [f"  {where}: {text}" for where, theirs in found.items() if (text := _differs(mine, theirs))]
    problems += [
        f"  {where}: has {count} threads, but one process can do only one training: start it with --nthreads 1"
        for where, count in threads.items()
        if count != 1
    ]
    if problems:
        raise BadInput("Workers of the cluster cannot do this work:\n" + "\n".join(problems))
    hosts = [theirs["host"] for theirs in found.values()]
    return {theirs["host"]: max(1, theirs["cpus"] // hosts.count(theirs["host"])) for theirs in found.values()}


def _probe(token: str, patience: float) -> Callable[[], dict[str, Any]]:
    """A function that says what a worker has. It travels as code, so that it runs where Attentus is not installed."""

    def look() -> dict[str, Any]:
        import os
        import platform
        import socket
        import time
        from importlib.metadata import PackageNotFoundError, version

        versions = {"python": ".".join(platform.python_version_tuple()[:2])}
        for package in ("torch", "distributed"):
            try:
                versions[package] = version(package).split("+")[0]
            except PackageNotFoundError:
                versions[package] = "missing"
        try:
            import attentus

            versions["attentus"] = attentus.__version__
        except ImportError:
            versions["attentus"] = "missing"
        limit = time.monotonic() + patience
        while not os.path.isfile(token) and time.monotonic() < limit:  # noqa: PTH113 - network drives take a moment
            time.sleep(0.2)
        affinity = getattr(os, "sched_getaffinity", None)
        cpus = len(affinity(0)) if affinity else os.cpu_count() or 1
        return {"versions": versions, "sees": os.path.isfile(token), "host": socket.gethostname(), "cpus": cpus}  # noqa: PTH113

    return look


def _differs(mine: dict[str, Any], theirs: dict[str, Any] | BaseException) -> str:
    """Why a worker cannot do the work; empty if it can."""
    if isinstance(theirs, BaseException):
        return f"cannot run code from here (Python {platform.python_version()}): {type(theirs).__name__}: {theirs}"
    apart = [
        f"{name} {theirs['versions'][name]} (here {version})"
        for name, version in mine["versions"].items()
        if theirs["versions"][name] != version
    ]
    if apart:
        return "has " + ", ".join(apart) + "; install the same versions"
    return "" if theirs["sees"] else "does not see the folder of the runs; put it on a drive that all machines share"


# Folders and results ------------------------------------------------------------------------------------------------


def _absolute(dataset: Dataset) -> Dataset:
    """The same dataset with paths that mean the same everywhere."""
    cases = tuple(
        replace(
            case,
            images=tuple(Path(image).absolute() for image in case.images),
            label=None if case.label is None else Path(case.label).absolute(),
        )
        for case in dataset.cases
    )
    return replace(dataset, root=dataset.root.absolute(), cases=cases)


def _begin(out: Path) -> None:
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
def _in_charge(out: Path) -> Iterator[Path]:
    """The token of this command. Those of earlier ones go away, and with them the runs that somebody left behind."""
    for old in (out / PRIVATE).glob("*.token"):
        old.unlink(missing_ok=True)
    token = out / PRIVATE / f"{uuid4().hex}.token"
    write_text(token, f"process {os.getpid()} on {socket.gethostname()}\n")
    try:
        yield token
    finally:
        token.unlink(missing_ok=True)


def _conclude(
    out: Path, recipe: Recipe, jobs: Sequence[Job], runs: Mapping[str, Path], failed: Mapping[str, str]
) -> Scores:
    """Write scores.json, scores.csv and card.md over the runs that are finished."""
    each = {name: from_json((folder / "scores.json").read_text(encoding="utf-8")) for name, folder in runs.items()}
    scores = join(each)
    write_text(out / "scores.json", to_json(scores, model=recipe.name, runs=list(runs)))
    write_text(out / "scores.csv", to_csv(scores))
    seeds: dict[int, dict[str, Scores]] = {}
    for job in jobs:
        if job.name in each:
            seeds.setdefault(job.recipe.seed, {})[job.name] = each[job.name]
    rows = [line for name, found in each.items() for line in _rows(name, found)]
    if len(seeds) > 1:
        by_seed = {seed: join(found) for seed, found in seeds.items()}
        rows += [line for seed, found in by_seed.items() for line in _rows(f"seed {seed}", found)]
        rows += _between(list(by_seed.values()))
    rows += _rows("all", scores)
    lines = [
        *(f"# {recipe.name}: {len(runs)} of {len(jobs)} runs", "", recipe.about, ""),
        "Every case is scored by models that have not seen it. Mean ± SD over cases, finite values only; the row",
        "`between seeds` gives mean ± SD of the seeds' means.",
        "",
        *("| run | structure | " + " | ".join(SHOWN) + " |", "|---|---|" + "---|" * len(SHOWN), *rows, ""),
        *(f"- {name} failed: {' '.join(message.split())}" for name, message in failed.items()),
        *([""] if failed else []),
        "Research models: no medical device, not for diagnosis.",
        "",
    ]
    write_text(out / "card.md", "\n".join(lines))
    return scores


def join(scores: Mapping[str, Scores]) -> Scores:
    """Scores of several runs as one. A case that several runs scored appears once for each, as "case (run)"."""
    owners: dict[str, list[str]] = {}
    for name, found in scores.items():
        for case in {*found.cases, *found.failures}:
            owners.setdefault(case, []).append(name)

    def known_as(case: str, run: str) -> str:
        return f"{case} ({run})" if len(owners[case]) > 1 else case

    rules = next((found.rules for found in scores.values()), Rules().describe())
    rows = tuple(row._replace(case=known_as(row.case, name)) for name, found in scores.items() for row in found)
    failures = {known_as(case, name): text for name, found in scores.items() for case, text in found.failures.items()}
    return Scores(rows, rules, failures)


def _rows(label: str, scores: Scores) -> list[str]:
    """Lines of the card's table, one per structure."""
    found = {(s.structure, s.metric): s for s in summarise(scores)}
    return [
        f"| {label} | {structure} | " + " | ".join(_cell(found.get((structure, metric))) for metric in SHOWN) + " |"
        for structure in scores.structures
    ]


def _cell(summary: Summary | None) -> str:
    if summary is None:
        return ""
    text = f"{summary.mean:.4f} ± {summary.sd:.4f}" if summary.n > 1 else f"{summary.mean:.4f}"
    everyone = summary.n + summary.n_nan + summary.n_inf
    return text + (f" ({summary.n} of {everyone})" if summary.n < everyone else f" ({everyone})")


def _between(by_seed: Sequence[Scores]) -> list[str]:
    """How far the means of seeds lie apart."""
    from statistics import mean, stdev

    lines = []
    for structure in by_seed[0].structures:
        means = [[scores.mean(metric, structure) for scores in by_seed] for metric in SHOWN]
        cells = [f"{mean(values):.4f} ± {stdev(values):.4f} ({len(values)})" for values in means]
        lines.append(f"| between seeds | {structure} | " + " | ".join(cells) + " |")
    return lines

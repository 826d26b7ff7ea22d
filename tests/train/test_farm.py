"""Folds and seeds: one after another, side by side, with a worker killed, and with a cluster that is not there."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import make
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from attentus import Dataset, cluster
from attentus.errors import BadFile, BadInput, MissingExtra, RecipeError
from attentus.metrics.summary import from_json
from attentus.progress import Silent
from attentus.recipes import dump
from attentus.train.farm import every_fold, fit_many, worker
from attentus.train.farm.command import plan
from attentus.train.farm.results import join
from attentus.train.state import peek_state

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset.open(make.dataset(tmp_path_factory.mktemp("data"), cases=6))


def recipe(**changes):
    return make.recipe(**{"net__options": {"preset": "tiny"}, **changes})


def times(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def same(a: Path, b: Path) -> bool:
    """Whether two safetensors files hold the same tensors, bit for bit."""
    left, right = load_file(a), load_file(b)
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


class Told(Silent):
    """Remembers what was said and which tasks were shown."""

    def __init__(self):
        self.said, self.tasks = [], []

    def say(self, message):
        self.said.append(message)

    def task(self, what, total, done=0):
        self.tasks.append(what)
        return nullcontext(self)


@pytest.fixture(scope="module")
def crossed(dataset, tmp_path_factory):
    """Two folds, two seeds, one after another."""
    return fit_many(recipe(), dataset, tmp_path_factory.mktemp("runs") / "cv", folds=[0, 1], seeds=[0, 1])


def test_every_case_is_scored_once_per_seed(crossed, dataset):
    assert list(crossed.runs) == ["fold0", "fold1", "fold0-seed1", "fold1-seed1"]
    assert not crossed.failures
    held_back = {name: json.loads((f / "data.json").read_text())["validation"] for name, f in crossed.runs.items()}
    assert not set(held_back["fold0"]) & set(held_back["fold1"])
    assert held_back["fold0"].keys() == held_back["fold0-seed1"].keys()
    expected = {f"{case} ({name})" for name, cases in held_back.items() for case in cases}
    assert len(expected) == 8
    assert set(crossed.scores.cases) == expected
    stored = from_json((crossed.folder / "scores.json").read_text())
    assert stored.cases == crossed.scores.cases
    assert len((crossed.folder / "scores.csv").read_text().splitlines()) == 1 + 8 * 2
    value = from_json((crossed.runs["fold1"] / "scores.json").read_text())
    case = value.cases[0]
    assert crossed.scores.value(f"{case} (fold1)", "core", "dice") == value.value(case, "core", "dice")
    whole, part = (
        json.loads((f / "scores.json").read_text())["timing"] for f in (crossed.folder, crossed.runs["fold1"])
    )
    assert whole["seconds"].keys() == expected
    assert whole["seconds"][f"{case} (fold1)"] == part["seconds"][case]
    assert whole["hardware"] == part["hardware"]


def test_seeds_differ_and_folds_of_one_seed_do_not_mark_cases(crossed, dataset, tmp_path):
    weights = [load_file(f / "weights.safetensors") for f in crossed.runs.values()]
    assert not all(np.array_equal(weights[0][k], weights[2][k]) for k in weights[0])
    parts = {name: from_json((crossed.runs[name] / "scores.json").read_text()) for name in ("fold0", "fold1")}
    assert all("(" not in case for case in join(parts).cases)


def test_the_card_and_runs_json_say_what_was_done(crossed):
    card = (crossed.folder / "card.md").read_text()
    dice = [row.value for row in crossed.scores.select(structure="core", metric="dice")]
    assert f"| all | core | {np.mean(dice):.4f} ± {np.std(dice, ddof=1):.4f} (8) |" in card
    assert "| seed 1 | shell |" in card
    assert "| between seeds | core |" in card
    runs = json.loads((crossed.folder / "runs.json").read_text())["runs"]
    assert {name: (run["fold"], run["seed"], run["state"]) for name, run in runs.items()} == {
        "fold0": (0, 0, "finished"),
        "fold1": (1, 0, "finished"),
        "fold0-seed1": (0, 1, "finished"),
        "fold1-seed1": (1, 1, "finished"),
    }
    assert {run["pid"] for run in runs.values()} == {os.getpid()}


def test_called_again_nothing_is_repeated_and_more_seeds_are_added(crossed, dataset):
    before = {name: times(folder) for name, folder in crossed.runs.items()}
    where = json.loads((crossed.folder / "runs.json").read_text())["runs"]
    again = fit_many(recipe(), dataset.root, crossed.folder, folds=[0, 1], seeds=[0, 1])
    assert {name: times(folder) for name, folder in again.runs.items()} == before
    assert again.scores.rows == crossed.scores.rows
    assert json.loads((crossed.folder / "runs.json").read_text())["runs"] == where
    assert not list((crossed.folder / worker.PRIVATE).glob("*.token"))


def test_a_failing_run_is_listed_and_the_others_are_done(dataset, tmp_path):
    (tmp_path / "cv" / "fold1").mkdir(parents=True)
    (tmp_path / "cv" / "fold1" / "thesis.tex").write_text("important")
    told = Told()
    crossed = fit_many(recipe(train__steps=2), dataset, tmp_path / "cv", folds=[0, 1, 2], progress=told)
    assert list(crossed.runs) == ["fold0", "fold2"]
    assert list(crossed.failures) == ["fold1"]
    assert "is not empty and holds no run" in crossed.failures["fold1"]
    assert len(crossed.scores.cases) == 4
    assert any(line.startswith("fold1: failed:") for line in told.said)
    run = json.loads((tmp_path / "cv" / "runs.json").read_text())["runs"]["fold1"]
    assert run["state"] == "failed"
    assert "fold1 failed" in (tmp_path / "cv" / "card.md").read_text()
    (tmp_path / "cv" / "fold1" / "thesis.tex").unlink()
    crossed = fit_many(recipe(train__steps=2), dataset, tmp_path / "cv", folds=[0, 1, 2])
    assert not crossed.failures
    assert sorted(crossed.scores.cases) == sorted(case.id for case in dataset)
    assert "message" not in json.loads((tmp_path / "cv" / "runs.json").read_text())["runs"]["fold1"]


def test_an_unforeseen_error_keeps_its_trace(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(worker, "fit", lambda *_, **__: 1 / 0)
    crossed = fit_many(recipe(), dataset, tmp_path / "cv")
    assert crossed.failures == {"fold0": "ZeroDivisionError: division by zero"}
    assert "1 / 0" in json.loads((tmp_path / "cv" / "runs.json").read_text())["runs"]["fold0"]["trace"]
    assert not crossed.scores.rows


def test_folds_and_names(dataset, tmp_path):
    assert list(every_fold(recipe(split__folds=4), dataset)) == [0, 1, 2, 3]
    assert list(every_fold(recipe(split__sizes=[4, 2]), dataset)) == [0]
    given = replace(dataset, splits=({"train": ["a"], "val": ["b"]},) * 2)
    assert list(every_fold(recipe(split__given=True), given)) == [0, 1]
    splits = tmp_path / "splits_final.json"
    splits.write_text(json.dumps([{"train": ["a"], "val": ["b"]}] * 3))
    assert list(every_fold(recipe(split__file=str(splits)), dataset)) == [0, 1, 2]
    assert list(plan(recipe(seed=3), [1, 1], [3, 4])) == ["fold1", "fold1-seed4"]
    with pytest.raises(RecipeError, match="fold 3 does not exist"):
        plan(recipe(), [0, 3], None)
    with pytest.raises(BadInput, match="at least one fold"):
        plan(recipe(), [], None)
    splits.write_text("[")
    with pytest.raises(BadFile, match="cannot be read as JSON or YAML"):
        every_fold(recipe(split__file=str(splits)), dataset)


def test_folders_of_something_else_are_refused(crossed, dataset, tmp_path):
    with pytest.raises(BadFile, match="folder of a single run"):
        fit_many(recipe(), dataset, crossed.runs["fold0"])
    (tmp_path / "thesis.tex").write_text("important")
    with pytest.raises(BadFile, match=r"holds no runs \(thesis\.tex\)"):
        fit_many(recipe(), dataset, tmp_path)


def test_two_processes_never_write_one_run(dataset, tmp_path):
    """A job waits while another process holds its run, and goes on when that dies."""
    job = _job(dataset, tmp_path)
    holder = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, fcntl.LOCK_EX);"
            " print('process 7 on mars', file=f, end='', flush=True); print('held', flush=True); time.sleep(600)",
            str(tmp_path / worker.PRIVATE / "fold0.lock"),
        ],
        stdout=subprocess.PIPE,
    )
    with holder:
        holder.stdout.readline()
        told, outcomes = Told(), []
        thread = threading.Thread(target=lambda: outcomes.append(worker.work(job, told)))
        thread.start()
        time.sleep(1)
        assert told.said == ["fold0: waits for process 7 on mars, which is at work on it"]
        assert not job.folder.exists()
        holder.kill()
    thread.join(60)
    assert outcomes[0].message == ""
    assert job.finished


def test_a_run_whose_command_is_gone_stops(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "LOOK", 0.0)
    job = _job(dataset, tmp_path, train__steps=50, train__validate_every=50)

    class Taker(Silent):
        """Another command takes over at step 3."""

        done = 0

        @contextmanager
        def task(self, what, total, done=0):
            self.what = what
            yield self

        def advance(self, steps=1, note="", total=None):
            self.done += self.what == "training"
            if self.done == 3:
                job.token.unlink(missing_ok=True)

    outcome = worker.work(job, Taker())
    assert outcome.message == worker.RECALLED
    state = peek_state(job.folder / "last.safetensors")
    assert state.step in {2, 3}  # a checkpoint after every step
    assert not state.finished


def _job(dataset, folder, **changes):
    token = folder / worker.PRIVATE / "a.token"
    token.parent.mkdir()
    token.touch()
    return worker.Job("fold0", recipe(**{"train__steps": 2, **changes}), dataset, folder, folder / "cache", token)


# On a cluster -------------------------------------------------------------------------------------------------------


class Killer(Told):
    """Kills, once, the worker process that trains a run, as soon as that run has come to a given step."""

    def __init__(self, out, name, step):
        super().__init__()
        self.out, self.name, self.step, self.killed = out, name, step, None
        self.over = threading.Event()

    def task(self, what, total, done=0):
        self.what = what
        return nullcontext(self)

    def watch(self):
        """In a thread of its own: the parent looks too rarely."""
        while not self.over.is_set():
            state = peek_state(self.out / self.name / "last.safetensors")
            if state and state.step >= self.step:
                assert not state.finished
                holder = (self.out / worker.PRIVATE / f"{self.name}.lock").read_text()
                self.killed = int(holder.split()[1])
                assert self.killed != os.getpid()
                os.kill(self.killed, signal.SIGKILL)
                return
            time.sleep(0.002)


@pytest.fixture(scope="module")
def long(dataset, tmp_path_factory):
    """A recipe long enough to be killed within, and its runs when nothing happens."""
    chosen = recipe(train__steps=24, train__validate_every=12)
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // 2))  # as each of two workers gets; bits depend on it
    try:
        return chosen, fit_many(chosen, dataset, tmp_path_factory.mktemp("calm") / "cv", folds=[0, 1, 2])
    finally:
        torch.set_num_threads(before)


def killed_and_equal(chosen, calm, dataset, folder):
    told = Killer(folder / "cv", "fold1", 5)
    thread = threading.Thread(target=told.watch)
    thread.start()
    where = {"cache": folder / "cache", "progress": told}
    try:
        crossed = fit_many(chosen, dataset, folder / "cv", folds=[0, 1, 2], workers=2, **where)
    finally:
        told.over.set()
        thread.join()
    assert told.killed
    assert not crossed.failures
    assert crossed.runs.keys() == calm.runs.keys()
    for name, run in crossed.runs.items():
        for file in ("weights.safetensors", "last.safetensors"):
            assert same(run / file, calm.runs[name] / file), (name, file)
    assert crossed.scores.rows == calm.scores.rows
    runs = json.loads((folder / "cv" / "runs.json").read_text())["runs"]
    assert all(run["state"] == "finished" for run in runs.values())
    assert os.getpid() not in {run["pid"] for run in runs.values()}
    assert runs["fold1"]["pid"] != told.killed
    steps = [json.loads(line)["step"] for line in (crossed.runs["fold1"] / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 24


@pytest.mark.slow
def test_a_worker_is_killed_and_nothing_is_lost(long, dataset, tmp_path):
    """Two workers, three runs, one worker killed in the middle: the same weights as if nothing had happened."""
    killed_and_equal(*long, dataset, tmp_path)


@pytest.mark.slow
def test_a_scheduler_that_gives_up_too_early_is_asked_again(long, dataset, tmp_path):
    """Dask calls a task bad after its workers died; as long as the run got further, it is handed in again."""
    import dask

    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        killed_and_equal(*long, dataset, tmp_path)


@pytest.mark.slow
def test_a_failure_on_a_worker_is_listed(dataset, tmp_path):
    (tmp_path / "cv" / "fold1").mkdir(parents=True)
    (tmp_path / "cv" / "fold1" / "thesis.tex").write_text("important")
    told = Told()
    crossed = fit_many(recipe(train__steps=30), dataset, tmp_path / "cv", folds=[0, 1], workers=2, progress=told)
    assert "is not empty and holds no run" in crossed.failures["fold1"]
    assert list(crossed.runs) == ["fold0"]
    assert {"runs", "fold0"} <= set(told.tasks)


@pytest.mark.slow
def test_ctrl_c_stops_the_runs_at_a_checkpoint(dataset, tmp_path):
    """A terminal sends it to every process of the command."""
    (tmp_path / "r.yaml").write_text(dump(recipe(train__steps=5000, train__validate_every=5000)))
    (tmp_path / "go.py").write_text(
        "import attentus as at\nfrom attentus.train.farm import fit_many\nif __name__ == '__main__':\n"
        f"    fit_many(at.Recipe.load('r.yaml'), {str(dataset.root)!r}, 'cv', folds=[0, 1], workers=2)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "go.py"], cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    files = [tmp_path / "cv" / name / "last.safetensors" for name in ("fold0", "fold1")]
    try:
        limit = time.monotonic() + 300
        while not all(file.is_file() for file in files) and time.monotonic() < limit:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=300)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    assert told.count("Traceback") == 1
    assert told.rstrip().endswith("KeyboardInterrupt")
    assert all(not peek_state(file).finished for file in files)
    assert not list((tmp_path / "cv" / worker.PRIVATE).glob("*.token"))


def test_a_cluster_that_is_not_there_is_one_clear_message(dataset, tmp_path, monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr(cluster, "PATIENCE", 1.0)
    with pytest.raises(BadInput, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"):
        fit_many(recipe(), dataset, tmp_path / "a", cluster="tcp://127.0.0.1:9")
    with pytest.raises(BadInput, match="is no address such as tcp://host:8786, and no scheduler file"):
        fit_many(recipe(), dataset, tmp_path / "a", cluster="scheduler.json")
    (tmp_path / "scheduler.json").write_text(json.dumps({"address": "tcp://127.0.0.1:10"}))
    with pytest.raises(BadInput, match=r"No Dask scheduler answers at .*scheduler\.json"):
        fit_many(recipe(), dataset, tmp_path / "a", cluster=str(tmp_path / "scheduler.json"))
    (tmp_path / "scheduler.json").write_text("{}")
    with pytest.raises(BadFile, match="is no scheduler file"):
        fit_many(recipe(), dataset, tmp_path / "a", cluster=str(tmp_path / "scheduler.json"))
    with pytest.raises(BadInput, match="cluster or workers, not both"):
        fit_many(recipe(), dataset, tmp_path / "a", cluster="tcp://127.0.0.1:9", workers=2)
    assert not (tmp_path / "a").exists()


def test_without_dask_the_message_says_how_to_get_it(dataset, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"pip install 'attentus\[cluster\]'"):
        fit_many(recipe(), dataset, tmp_path / "cv", folds=[0, 1], workers=2)


def test_workers_that_cannot_do_the_work_are_told_apart(tmp_path):
    cloudpickle = pytest.importorskip("cloudpickle")
    token = tmp_path / "token"
    token.touch()
    mine = cluster.probe(str(token), 0.0)()
    assert cluster.differs(mine, mine) == ""
    older = {**mine, "versions": {**mine["versions"], "torch": "1.0"}}
    assert cluster.differs(mine, older).startswith("has torch 1.0 (here ")
    assert "does not see the folder" in cluster.differs(mine, cluster.probe(str(tmp_path / "no"), 0.0)())
    assert "cannot run code from here" in cluster.differs(mine, ModuleNotFoundError("No module named 'x'"))
    # The probe runs where attentus cannot be imported.
    (tmp_path / "probe").write_bytes(cloudpickle.dumps(cluster.probe(str(token), 0.0)))
    code = (
        "import sys, pickle; sys.modules['attentus'] = None; print(pickle.load(open(sys.argv[1], 'rb'))()['versions'])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "probe"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert "'attentus': 'missing'" in ran.stdout


def test_jobs_travel(dataset, tmp_path):
    job = _job(dataset, tmp_path)
    assert pickle.loads(pickle.dumps(job)) == job

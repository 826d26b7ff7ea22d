"""Cohorts: read, predicted and written side by side; interrupted and gone on with; spread over workers; what fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial

import make
import numpy as np
import pytest
import torch

from attentus import Dataset, Model, io
from attentus.data.resolve import resolve
from attentus.errors import BadFile, BadInput, MissingExtra
from attentus.infer.cohort import Crew, crew, find_scans, predict_cohort, stages
from attentus.infer.cohort.stages import Order, Wanted
from attentus.infer.model import create_net
from attentus.infer.segment import check_channels, modality
from attentus.io.atomic import sweep
from attentus.io.names import folder_names
from attentus.progress import Silent
from attentus.types import Prediction, Volume

CASES = 6
SLOWEST = 20.0
"""Seconds to wait for what must come."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make.dataset(tmp_path_factory.mktemp("data"), cases=CASES)


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    """A model that has learned nothing."""
    recipe = resolve(make.recipe(), Dataset.open(data))
    torch.manual_seed(0)
    place = tmp_path_factory.mktemp("model")
    Model(recipe, create_net(recipe)).save(place)
    return place


@pytest.fixture(scope="module")
def expected(folder, data, tmp_path_factory):
    """What comes out one by one: name of the file to its bytes."""
    model, out = Model.load(folder), tmp_path_factory.mktemp("expected")
    for scan in find_scans(data / "imagesTr", out):
        io.write(model.predict(scan.path).labels, scan.result)
    return results(out)


def results(out):
    return {file.name: file.read_bytes() for file in out.glob("*.nii.gz")}


def leftovers(out):
    return [file.name for file in out.iterdir() if file.name.startswith(".")]


def book(out):
    return json.loads((out / "labels.json").read_text())["results"]


@dataclass
class Bright:
    """Answers at once: what is bright is core. Does something before the answer, if told to."""

    recipe: object
    before: object = lambda _: None
    fingerprint: str = "bright"
    asked: list = field(default_factory=list)

    @property
    def names(self):
        return {s.name: s.value for s in self.recipe.labels}

    def predict(self, scan, *, clean=True, probabilities=False, attention=False, max_ram=None, progress=None):
        self.asked.append(scan.source.path.name.split(".")[0])
        self.before(self.asked[-1])
        return Prediction(scan.like((scan.array > 50).astype(np.uint8)), self.names, model="bright", seconds=0.1)


@pytest.fixture
def bright(folder):
    return Bright(Model.load(folder).recipe)


# Side by side ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_flight", [0, 1 << 30])
def test_the_same_comes_out_as_one_by_one(folder, data, expected, tmp_path, in_flight):
    done = predict_cohort(Model.load(folder), find_scans(data / "imagesTr", tmp_path), in_flight=in_flight)
    assert list(done) == [f"case_{k:02d}" for k in range(CASES)]
    assert all(result.seconds > 0 and not result.repeated for result in done.values())
    assert results(tmp_path) == expected
    assert folder_names(tmp_path) == {"core": (1,), "shell": (2,)}
    assert not leftovers(tmp_path)


class Watched(Silent):
    """Remembers the tasks it is told of, and how far each came."""

    def __init__(self):
        self.tasks = []

    @contextmanager
    def task(self, what, total, done=0):
        mine = [what, total, done]
        self.tasks.append(mine)

        class Task:
            def advance(self, steps=1, note="", total=None):
                mine[2] += steps

        yield Task()


def test_scans_and_their_windows_are_shown(folder, data, tmp_path):
    watched, model = Watched(), Model.load(folder)
    scans = find_scans(data / "imagesTr", tmp_path / "out")[:2]
    predict_cohort(model, scans, progress=watched)
    windows = len(model.window.starts(io.read_grid(scans[0].path).shape))
    assert windows > 1
    assert watched.tasks == [["predicting", 2, 2], ["windows", windows, windows], ["windows", windows, windows]]


def test_reading_predicting_and_writing_overlap(bright, data, tmp_path, monkeypatch):
    """The net answers only when the next scan has been read; a file is written only while the net has the next."""
    read = {f"case_{k:02d}": threading.Event() for k in range(CASES)}
    asked = {name: threading.Event() for name in read}
    following = dict(zip(list(read)[:-1], list(read)[1:], strict=True))
    real_read, real_write = io.read, io.write

    def reading(path, **options):
        volume = real_read(path, **options)
        read[path.name.split(".")[0]].set()
        return volume

    def writing(volume, path, **options):
        name = path.name.split(".")[0]
        assert name not in following or asked[following[name]].wait(SLOWEST)
        real_write(volume, path, **options)

    def before(name):
        asked[name].set()
        assert name not in following or read[following[name]].wait(SLOWEST)

    monkeypatch.setattr(stages.io, "read", reading)
    monkeypatch.setattr(stages.io, "write", writing)
    bright.before = before
    done = predict_cohort(bright, find_scans(data / "imagesTr", tmp_path))
    assert not [result for result in done.values() if isinstance(result, str)]
    assert len(results(tmp_path)) == CASES


@pytest.mark.parametrize("bound", [(0, 1), (1, 1), (2.5, 2), (100, CASES)])
def test_what_waits_is_bounded_by_bytes(bright, data, tmp_path, monkeypatch, bound):
    scans, most = bound
    size = io.bytes_of(data / "imagesTr" / "case_00.nii.gz")
    lock, waiting, highest, real = threading.Lock(), [0], [0], io.read

    def reading(path, **options):
        with lock:
            waiting[0] += 1
            highest[0] = max(highest[0], waiting[0])
        return real(path, **options)

    def before(_):
        time.sleep(0.05)
        with lock:
            waiting[0] -= 1

    monkeypatch.setattr(stages.io, "read", reading)
    bright.before = before
    predict_cohort(bright, find_scans(data / "imagesTr", tmp_path), in_flight=int(scans * size))
    assert highest[0] == most


def test_the_net_waits_for_a_slow_disk(bright, data, tmp_path, monkeypatch):
    labels = io.read(data / "imagesTr" / "case_00.nii.gz").array[0].size  # bytes of a result
    unwritten, highest, real = [0], [0], io.write

    def writing(volume, path, **options):
        time.sleep(0.05)
        real(volume, path, **options)
        unwritten[0] -= 1

    def before(_):
        unwritten[0] += 1
        highest[0] = max(highest[0], unwritten[0])

    monkeypatch.setattr(stages.io, "write", writing)
    bright.before = before
    predict_cohort(bright, find_scans(data / "imagesTr", tmp_path), in_flight=2 * labels)
    assert 2 <= highest[0] <= 3  # two wait, and one is with the net


# What fails -----------------------------------------------------------------------------------------------------------


def test_every_failure_is_named_and_the_rest_is_done(bright, data, expected, tmp_path, monkeypatch):
    scans, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(data / "imagesTr", scans)
    (scans / "empty.nii.gz").write_bytes(b"")
    (scans / "half.nii.gz").write_bytes((scans / "case_00.nii.gz").read_bytes()[:-3000])
    (scans / "text.nii.gz").write_text("not an image")
    io.write(make.case(4, channels=2)[0], scans / "two.nii.gz")
    shutil.copy(scans / "case_01.nii.gz", scans / "odd.nii.gz")
    shutil.copy(scans / "case_01.nii.gz", scans / "full.nii.gz")
    real = io._WRITERS[".nii.gz"]

    def writer(volume, path):
        if "full" in path.name:
            path.write_bytes(b"some of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(volume, path)

    monkeypatch.setitem(io._WRITERS, ".nii.gz", writer)
    bright.before = lambda name: 1 / 0 if name == "odd" else None
    done = predict_cohort(bright, find_scans(scans, out))
    failed = {name: result for name, result in done.items() if isinstance(result, str)}
    assert failed.keys() == {"empty", "half", "text", "two", "odd", "full"}
    assert "empty (0 bytes)" in failed["empty"]
    assert "end too early" in failed["half"]
    assert "is no image format" in failed["text"]
    assert "two.nii.gz: the image has 2 channel(s)" in failed["two"]
    assert failed["odd"] == "ZeroDivisionError: division by zero"
    assert "full.nii.gz: the disk is full" in failed["full"]
    assert results(out).keys() == expected.keys()
    assert not leftovers(out)
    assert {name for name, entry in book(out).items() if "failed" in entry} == {f"{name}.nii.gz" for name in failed}
    # The disk has room again.
    monkeypatch.setitem(io._WRITERS, ".nii.gz", real)
    bright.asked.clear()
    again = predict_cohort(bright, find_scans(scans, out), resume=True)
    assert bright.asked == ["full", "odd"]
    assert not isinstance(again["full"], str)
    assert "failed" not in book(out)["full.nii.gz"]


def test_a_disk_too_full_for_the_book_is_a_failure_of_the_scan(bright, data, tmp_path, monkeypatch):
    from attentus.infer.cohort import book as module

    real, calls = module.write_text, []

    def full(path, text):
        calls.append(path)
        if len(calls) == 3:
            raise BadFile(path, "the disk is full; nothing was written", "Free some space.")
        real(path, text)

    monkeypatch.setattr(module, "write_text", full)
    scans = find_scans(data / "imagesTr", tmp_path)
    done = predict_cohort(bright, scans)
    assert [name for name, result in done.items() if isinstance(result, str)] == ["case_01"]
    assert "labels.json: the disk is full" in done["case_01"]
    bright.asked.clear()
    predict_cohort(bright, scans, resume=True)
    assert bright.asked == ["case_01"]


def test_a_cohort_of_failures_writes_nothing(bright, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.nii.gz").write_bytes(b"")
    assert "0 bytes" in predict_cohort(bright, find_scans(tmp_path / "in", tmp_path / "out"))["a"]
    assert not (tmp_path / "out").exists()


def test_scans_of_another_modality_are_refused(folder, tmp_path):
    recipe = Model.load(folder).recipe
    make.dicom_series(tmp_path / "mr", make.case(1)[0])
    scan = io.read(tmp_path / "mr")
    check_channels(scan, recipe)  # "channel 0" may be anything
    check_channels(scan, recipe.model_copy(update={"channels": ("T1w",)}))
    with pytest.raises(BadInput, match=r"mr: the image is MR; this model takes CT \(CT\)"):
        check_channels(scan, recipe.model_copy(update={"channels": ("CT",)}))
    found = [modality(name) for name in ("CT", "late CT phase", "T1w", "t1gd", "FLAIR", "PET", "contact", "image", "0")]
    assert found == ["CT", "CT", "MR", "MR", "MR", "PT", None, None, None]


def test_two_files_of_one_name_have_two_results(bright, tmp_path):
    volume, _ = make.case(1)
    for name in ("a.nii.gz", "a.nrrd", "b.nrrd"):
        io.write(volume, tmp_path / "in" / name)
    done = predict_cohort(bright, find_scans(tmp_path / "in", tmp_path / "out"))
    assert list(done) == ["a.nii.gz", "a.nrrd", "b"]
    assert results(tmp_path / "out").keys() == {"a.nii.gz.nii.gz", "a.nrrd.nii.gz", "b.nii.gz"}


# Interrupted and gone on with -----------------------------------------------------------------------------------------


def test_an_interrupted_cohort_goes_on(bright, data, tmp_path):
    def before(name):
        if name == "case_03":
            raise KeyboardInterrupt

    scans = find_scans(data / "imagesTr", tmp_path / "a")
    bright.before = before
    with pytest.raises(KeyboardInterrupt):
        predict_cohort(bright, scans)
    assert sorted(results(tmp_path / "a")) == [f"case_{k:02d}.nii.gz" for k in range(3)]
    assert not leftovers(tmp_path / "a")
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "write"))]
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "a").glob("*.nii.gz")}
    bright.before = lambda _: None
    bright.asked.clear()
    done = predict_cohort(bright, scans, resume=True)
    assert bright.asked == ["case_03", "case_04", "case_05"]
    assert [result.repeated for result in done.values()] == [True] * 3 + [False] * 3
    assert all(file.stat().st_mtime_ns == time for file, time in times.items())
    fresh = predict_cohort(bright, find_scans(data / "imagesTr", tmp_path / "b"))
    assert results(tmp_path / "a") == results(tmp_path / "b")
    for name, result in done.items():
        assert replace(result, file=fresh[name].file, repeated=False) == fresh[name]
    assert json.loads((tmp_path / "a" / "labels.json").read_text())["labels"] == {"core": 1, "shell": 2}


def test_after_an_interruption_nothing_more_is_read(bright, data, tmp_path, monkeypatch):
    real, read = io.read, []

    def reading(path, **options):
        read.append(path)
        time.sleep(0.1)
        return real(path, **options)

    def before(_):
        raise KeyboardInterrupt

    monkeypatch.setattr(stages.io, "read", reading)
    bright.before = before
    with pytest.raises(KeyboardInterrupt):
        predict_cohort(bright, find_scans(data / "imagesTr", tmp_path))
    assert len(read) < CASES


def test_a_result_that_was_not_noted_any_more_is_ours(bright, data, tmp_path, monkeypatch):
    """As a power failure leaves it, between a result and its entry."""
    from attentus.infer.cohort.book import Book

    real, out, left = Book.enter, tmp_path / "out", tmp_path / "left"

    def enter(self, scan, done):
        if scan.name == "case_01" and not left.exists():
            shutil.copytree(out, left)
        real(self, scan, done)

    monkeypatch.setattr(Book, "enter", enter)
    predict_cohort(bright, find_scans(data / "imagesTr", out))
    assert results(left).keys() == {"case_00.nii.gz", "case_01.nii.gz"}
    bright.asked.clear()
    done = predict_cohort(bright, find_scans(data / "imagesTr", left), resume=True)
    assert bright.asked == [f"case_{k:02d}" for k in range(1, CASES)]
    assert not [result for result in done.values() if isinstance(result, str)]


def _damage(name):
    """A change, made to a cohort that is done, after which case_02 has to be done again."""
    return {
        "truncated": lambda file, _: file.write_bytes(file.read_bytes()[:-5]),
        "changed": lambda file, _: file.write_bytes(file.read_bytes()[:-9] + b"x" + file.read_bytes()[-8:]),
        "gone": lambda file, _: file.unlink(),
        "other scan": lambda _, scan: os.utime(scan, ns=(0, 0)),
    }[name]


@pytest.mark.parametrize("change", ["truncated", "changed", "gone", "other scan"])
def test_what_changed_since_is_done_again(bright, data, tmp_path, change):
    shutil.copytree(data / "imagesTr", tmp_path / "in")
    scans = find_scans(tmp_path / "in", tmp_path / "out")
    predict_cohort(bright, scans)
    before = results(tmp_path / "out")
    _damage(change)(scans[2].result, scans[2].path)
    bright.asked.clear()
    done = predict_cohort(bright, scans, resume=True)
    assert bright.asked == ["case_02"]
    assert not isinstance(done["case_02"], str)
    assert results(tmp_path / "out") == before
    bright.asked.clear()
    predict_cohort(bright, scans, resume=True)
    assert not bright.asked


@pytest.mark.parametrize("change", [{"fingerprint": "other"}, {"clean": False}])
def test_results_of_another_model_or_other_options_are_done_again(bright, data, tmp_path, change):
    scans = find_scans(data / "imagesTr", tmp_path)
    predict_cohort(bright, scans)
    bright.asked.clear()
    options = dict(change)
    bright.fingerprint = options.pop("fingerprint", "bright")
    predict_cohort(bright, scans, resume=True, **options)
    assert len(bright.asked) == CASES


def test_files_that_are_not_ours_are_not_replaced(bright, data, tmp_path):
    scans = find_scans(data / "imagesTr", tmp_path)
    predict_cohort(bright, scans[:2])
    scans[2].result.write_text("drawn by hand")
    done = predict_cohort(bright, scans, resume=True)
    assert "exists already, and labels.json does not list it" in done["case_02"]
    assert scans[2].result.read_text() == "drawn by hand"
    bright.asked.clear()
    done = predict_cohort(bright, scans, resume=True, overwrite=True)
    assert bright.asked == ["case_02"]
    assert io.read_labels(scans[2].result)
    refused = predict_cohort(bright, scans).values()
    assert all("exists already" in text and "(--resume)" in text for text in refused)


@pytest.mark.parametrize("text", ["{", "[]", '{"results": []}', '{"results": {"case_00.nii.gz": {"files": 3}}}'])
def test_a_book_that_cannot_be_read_knows_nothing(bright, data, tmp_path, text):
    scans = find_scans(data / "imagesTr", tmp_path)
    (tmp_path / "labels.json").write_text(text)
    predict_cohort(bright, scans, resume=True)
    assert len(bright.asked) == CASES
    assert len(book(tmp_path)) == CASES


def test_all_files_of_a_scan_count(folder, data, tmp_path):
    model, scans = Model.load(folder), find_scans(data / "imagesTr" / "case_00.nii.gz", tmp_path)
    options = {"probabilities": True, "attention": True}
    done = predict_cohort(model, scans, **options)["case_00"]
    assert len(done.others) == 7
    assert predict_cohort(model, scans, **options, resume=True)["case_00"] == replace(done, repeated=True)
    (tmp_path / "case_00_probabilities.nii.gz").unlink()
    assert not predict_cohort(model, scans, **options, resume=True)["case_00"].repeated
    assert (tmp_path / "case_00_probabilities.nii.gz").is_file()


def test_fingerprints_tell_models_apart(folder):
    model = Model.load(folder)
    assert Model.load(folder).fingerprint == model.fingerprint
    other = Model.load(folder, infer={"overlap": 0.25})
    assert other.fingerprint != model.fingerprint
    with torch.no_grad():
        next(model.net.parameters()).view(-1)[0] += 1e-3
    assert Model.load(folder).fingerprint != model.fingerprint


def test_files_of_killed_processes_are_swept(bright, data, tmp_path):
    scans = find_scans(data / "imagesTr", tmp_path)
    mine = [tmp_path / f".0123abcd.part.{name}" for name in ("case_00.nii.gz", "case_01_probabilities.nii.gz")]
    fresh, foreign = tmp_path / ".0123abcd.part.case_02.nii.gz", tmp_path / ".0123abcd.part.thesis.tex"
    for file in (*mine, fresh, foreign):
        file.write_text("half")
        if file != fresh:
            os.utime(file, (0, 0))
    predict_cohort(bright, scans)
    assert sorted(leftovers(tmp_path)) == sorted([fresh.name, foreign.name])  # somebody may be at work on the fresh one
    sweep([scan.result for scan in scans])
    assert leftovers(tmp_path) == [foreign.name]


SCRIPT = """
import sys, time
from pathlib import Path
from attentus.infer import Model
from attentus.infer.cohort import find_scans, predict_cohort

class Slow(Model):
    def predict(self, *scan, **options):
        time.sleep(1)
        return super().predict(*scan, **options)

predict_cohort(Slow.load(sys.argv[1]), find_scans(Path(sys.argv[2]), Path(sys.argv[3])))
"""


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_process_is_ended_in_the_middle(folder, data, expected, tmp_path, number):
    out = tmp_path / "out"
    command = [sys.executable, "-c", SCRIPT, folder, data / "imagesTr", out]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 300
    while len(list(out.glob("case*"))) < 2 and time.monotonic() < limit:
        time.sleep(0.01)
    process.send_signal(number)
    process.communicate(timeout=300)
    assert process.returncode != 0
    left = results(out)
    assert 2 <= len(left) < CASES
    if number == signal.SIGINT:
        assert not leftovers(out)
    done = predict_cohort(Model.load(folder), find_scans(data / "imagesTr", out), resume=True)
    assert sum(result.repeated for result in done.values()) >= len(left) - 1  # the last may not have been noted
    assert results(out) == expected


# On workers -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """A Dask cluster of two workers within this process, which works in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(crew, "_loaded", {})
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None}
    with distributed.LocalCluster(**options) as local:
        yield local.scheduler_address


def test_a_cluster_does_the_same(folder, data, expected, tmp_path, cluster):
    scans, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(data / "imagesTr", scans)
    (scans / "empty.nii.gz").write_bytes(b"")
    io.write(make.case(4, channels=2)[0], scans / "two.nii.gz")
    found = find_scans(scans.relative_to(tmp_path), out.relative_to(tmp_path))
    who = Crew(partial(Model.load, folder), cluster)
    done = predict_cohort(Model.load(folder), found, crew=who)
    assert list(done) == [scan.name for scan in found]
    assert "empty (0 bytes)" in done["empty"]
    assert "2 channel(s)" in done["two"]
    assert results(out) == expected
    assert all(not result.file.is_absolute() for result in done.values() if not isinstance(result, str))
    assert not list(out.glob("*.token"))
    assert not leftovers(out)
    (out / "case_01.nii.gz").unlink()
    again = predict_cohort(Model.load(folder), found, crew=who, resume=True)
    assert not again["case_01"].repeated
    assert sum(not isinstance(result, str) and result.repeated for result in again.values()) == CASES - 1
    assert results(out) == expected


def piece(folder, data, tmp_path, **changes):
    model, scan = Model.load(folder), find_scans(data / "imagesTr", tmp_path)[0]
    token = tmp_path / "a.token"
    token.touch()
    made = crew.Piece(
        Order(scan), Wanted(), partial(Model.load, folder), model.fingerprint, token, token.with_suffix(".begun"), {}
    )
    return replace(made, **changes)


def test_a_worker_loads_the_model_once_and_only_the_commands(folder, data, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "_loaded", {})
    loads = []

    def load():
        loads.append(1)
        return Model.load(folder)

    wanted = piece(folder, data, tmp_path, load=load)
    assert crew.work(wanted).file == wanted.order.scan.result
    assert crew.work(wanted).file.is_file(), "a worker died that had written it"
    wanted.begun.unlink()
    assert "exists already" in crew.work(wanted)
    wanted.begun.unlink()
    assert crew.work(replace(wanted, order=replace(wanted.order, overwrite=True))).file.is_file()
    assert len(loads) == 1
    assert "is another than the command's" in crew.work(replace(wanted, fingerprint="other"))


def test_a_worker_whose_command_is_gone_writes_nothing(folder, data, tmp_path, monkeypatch):
    monkeypatch.setattr(crew, "_loaded", {})
    wanted = piece(folder, data, tmp_path)
    wanted.token.unlink()
    assert "the command that asked for it ended" in crew.work(wanted)
    assert not crew._loaded
    assert not wanted.order.scan.result.exists()


def test_crews_that_cannot_be(folder, data, tmp_path, monkeypatch):
    load = partial(Model.load, folder)
    with pytest.raises(BadInput, match="cluster or workers, not both"):
        Crew(load, "tcp://127.0.0.1:9", 2)
    assert Crew(load, workers=1).alone
    monkeypatch.setitem(sys.modules, "distributed", None)
    scans = find_scans(data / "imagesTr", tmp_path / "out")
    with pytest.raises(MissingExtra, match=r"pip install 'attentus\[cluster\]'"):
        predict_cohort(Model.load(folder), scans, crew=Crew(load, workers=2))
    assert not (tmp_path / "out").exists()


class Mortal(Model):
    """Kills its process: once, or whenever it is given a scan of 24 slices."""

    def predict(self, scan: Volume, **options):
        flag = self.folder / "died"
        if scan.grid.shape[0] == 24 or not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().predict(scan, **options)


@pytest.mark.slow
@pytest.mark.parametrize(("deadly", "look"), [("z_deadly", crew.LOOK), ("a_deadly", 40.0)])
def test_workers_die_and_nothing_is_lost(folder, data, expected, tmp_path, *, monkeypatch, deadly, look):
    """One worker dies at its first scan; and a scan that kills every worker is given up alone.

    Where the command looks rarely, workers die that hold what others gave.
    """
    monkeypatch.setattr(crew, "LOOK", look)
    cloudpickle = pytest.importorskip("cloudpickle")
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    scans, out = tmp_path / "in", tmp_path / "out"
    shutil.copytree(data / "imagesTr", scans)
    shutil.copytree(folder, tmp_path / "model")
    io.write(make.case(4, shape=(24, 20, 18))[0], scans / f"{deadly}.nii.gz")
    model, who = Model.load(folder), Crew(partial(Mortal.load, tmp_path / "model"), workers=2)
    try:
        done = predict_cohort(model, find_scans(scans, out), crew=who)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert (tmp_path / "model" / "died").exists()
    assert [name for name, result in done.items() if isinstance(result, str)] == [deadly]
    assert done[deadly] == crew.DIED
    assert results(out) == expected
    assert not leftovers(out)

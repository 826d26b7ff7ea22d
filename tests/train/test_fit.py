"""Training from beginning to end, interrupted or not."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import make
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file

from attentus import Dataset, Model, Recipe, fit, io, nets
from attentus.errors import BadFile, BadInput, RecipeError, TrainingStopped
from attentus.metrics.summary import from_json
from attentus.recipes import dump
from attentus.train import loop
from attentus.train.environment import hardware
from attentus.train.log import read_log
from attentus.train.state import peek_state

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset.open(make.dataset(tmp_path_factory.mktemp("data"), cases=6))


def same(a: Path, b: Path) -> bool:
    """Whether two safetensors files hold the same tensors, bit for bit."""
    left, right = load_file(a), load_file(b)
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


@pytest.fixture(scope="module")
def finished(dataset, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    return fit(make.recipe(), dataset, folder, cache=folder.parent / "cache")


def test_a_run_leaves_a_complete_model(finished, dataset):
    folder = finished.folder
    written = {p.name for p in folder.iterdir()}
    assert written >= {
        *("recipe.yaml", "weights.safetensors", "last.safetensors", "card.md", "scores.json", "scores.csv"),
        *("metrics.jsonl", "data.json", "environment.json", "validation"),
    }
    data = json.loads((folder / "data.json").read_text())
    assert len(data["train"]) == 4
    assert len(data["validation"]) == 2
    scores = from_json((folder / "scores.json").read_text())
    assert sorted(scores.cases) == sorted(data["validation"])
    assert scores.structures == ["core", "shell"]
    for case in scores.cases:
        predicted, truth = io.read_labels(folder / "validation" / f"{case}.nii.gz"), io.read_labels(dataset[case].label)
        assert predicted.grid == truth.grid
    lines = read_log(folder / "metrics.jsonl")
    steps = [line for line in lines if line["kind"] == "step"]
    assert [line["step"] for line in steps] == list(range(1, 13))
    assert {"loss", "lr", "wait", "seconds"} <= steps[0].keys()
    assert [line["step"] for line in lines if line["kind"] == "validation"] == [6, 12]
    assert "dice core" in lines[6]
    assert "core (1), shell (2)" in (folder / "card.md").read_text()
    timing = json.loads((folder / "scores.json").read_text())["timing"]
    assert timing["seconds"].keys() == set(scores.cases)
    assert all(0 < took < 60 for took in timing["seconds"].values())
    assert timing["hardware"] == [hardware(next(finished.net.parameters()).device)]


def test_a_finished_run_is_loaded_not_repeated(finished, dataset):
    before = {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")}
    again = fit(make.recipe(), dataset, finished.folder, cache=finished.folder.parent / "cache")
    assert {p: p.stat().st_mtime_ns for p in finished.folder.rglob("*")} == before
    assert again.recipe == finished.recipe


def test_learning_works(dataset, tmp_path):
    recipe = make.recipe(train__steps=90, train__validate_every=90, train__learning_rate=5e-3, net__name="unet")
    model = fit(recipe, dataset, tmp_path / "run")
    scores = from_json((tmp_path / "run" / "scores.json").read_text())
    assert scores.mean("dice", "core") > 0.8
    scan, truth = make.case(77)
    found = model.predict(scan).labels.array
    assert 2 * ((found == 1) & (truth.array == 1)).sum() / ((found == 1).sum() + (truth.array == 1).sum()) > 0.8


@pytest.mark.parametrize("name", nets.names())
def test_every_net_trains_and_predicts_with_its_own_supervision(dataset, tmp_path, name):
    recipe = make.recipe(
        net={"name": name, "dims": 2, "options": {"preset": "tiny"}}, train__patch=[32, 32], train__steps=2
    )
    model = fit(recipe, dataset, tmp_path / "run")
    scan, _ = make.case(77)
    prediction = model.predict(scan, attention=True)
    assert prediction.labels.array.shape == (1, 12, 20, 18)
    assert len(prediction.attention) == len(nets.taps(model.net))


def test_two_dimensions_and_several_channels(tmp_path):
    dataset = Dataset.open(make.dataset(tmp_path / "data", cases=4, channels=2))
    recipe = make.recipe(
        net__dims=2,
        train__patch=[16, 16],
        split__folds=2,
        prepare__intensity=[{"normalise": "zscore"}, {"normalise": "range"}],
        train__steps=3,
    )
    model = fit(recipe, dataset, tmp_path / "run")
    assert model.predict(dataset.cases[0]).labels.array.shape[1:] == (12, 20, 18)


def test_stopping_and_going_on_ends_with_the_same_weights(finished, dataset, tmp_path):
    cache = finished.folder.parent / "cache"
    for stop in (2, 7, 11):
        watcher = make.Watcher(stop)
        with pytest.raises(KeyboardInterrupt):
            fit(make.recipe(), dataset, tmp_path / "b", cache=cache, progress=watcher)
        assert any("run the same command again" in line for line in watcher.said)
        assert not peek_state(tmp_path / "b" / "last.safetensors").finished
    watcher = make.Watcher()
    fit(make.recipe(), dataset, tmp_path / "b", cache=cache, progress=watcher)
    assert any("going on from step" in line for line in watcher.said)
    for file in ("weights.safetensors", "last.safetensors"):
        assert same(finished.folder / file, tmp_path / "b" / file)
    losses = [
        [line["loss"] for line in read_log(f / "metrics.jsonl") if line["kind"] == "step"]
        for f in (finished.folder, tmp_path / "b")
    ]
    assert losses[0] == losses[1]
    assert (finished.folder / "scores.csv").read_text() == (tmp_path / "b" / "scores.csv").read_text()


def test_killed_at_any_moment_and_run_again(finished, dataset, tmp_path):
    """Kill -9 in the middle of things, several times; the weights are those of the run that was left alone."""
    (tmp_path / "r.yaml").write_text(dump(make.recipe()))
    cache = finished.folder.parent / "cache"
    code = (
        f"import attentus as at, torch; torch.set_num_threads(1); at.fit(at.Recipe.load(r'{tmp_path / 'r.yaml'}'),"
        f" at.Dataset.open(r'{dataset.root}'), r'{tmp_path / 'k'}', cache=r'{cache}')"
    )
    for least in (1, 5, 9):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
        limit = time.monotonic() + 300
        while process.poll() is None and time.monotonic() < limit:
            if len(read_log(tmp_path / "k" / "metrics.jsonl")) >= least or _step(tmp_path / "k") >= least:
                os.kill(process.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        process.wait()
    subprocess.run([sys.executable, "-c", code], check=True)
    for file in ("weights.safetensors", "last.safetensors"):
        assert same(finished.folder / file, tmp_path / "k" / file)


def _step(folder):
    state = peek_state(folder / "last.safetensors")
    return state.step if state else 0


def test_a_run_cut_off_before_its_evaluation_is_evaluated(finished, dataset):
    scores = finished.folder / "scores.json"
    before = json.loads(scores.read_text())
    scores.unlink()
    fit(make.recipe(), dataset, finished.folder, cache=finished.folder.parent / "cache")
    after = json.loads(scores.read_text())
    assert after.pop("timing").keys() == before.pop("timing").keys()  # how long it took may differ
    assert after == before


def test_time_is_kept(dataset, tmp_path, monkeypatch):
    ticks = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: 0.03 * next(ticks)))  # 30 ms a look
    recipe = make.recipe(train__steps=100_000, train__validate_every=100_000)
    fit(recipe, dataset, tmp_path / "run", max_time=2)
    state = peek_state(tmp_path / "run" / "last.safetensors")
    assert state.finished
    assert 2 <= state.seconds < 2.2
    rates = [line["lr"] for line in read_log(tmp_path / "run" / "metrics.jsonl") if line["kind"] == "step"]
    assert len(rates) == state.step
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.2 * rates[0]  # the schedule followed the clock


def test_a_folder_of_another_recipe_or_data_is_refused(finished, dataset, tmp_path):
    cache = finished.folder.parent / "cache"
    with pytest.raises(RecipeError, match=r"another recipe:\n  train\.batch: 2 -> 3"):
        fit(make.recipe(train__batch=3), dataset, finished.folder, cache=cache)
    other = Dataset.open(make.dataset(tmp_path / "other", cases=6, first_seed=50))
    with pytest.raises(BadInput, match="run on other data"):
        fit(make.recipe(), other, finished.folder, cache=cache)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("important")
    with pytest.raises(BadFile, match="is not empty and holds no run"):
        fit(make.recipe(), dataset, tmp_path / "full", cache=cache)


def test_one_bad_case_is_left_out_and_told(tmp_path):
    dataset = Dataset.open(make.dataset(tmp_path / "data", cases=6))
    dataset["case_02"].images[0].write_bytes(b"")
    watcher = make.Watcher()
    fit(make.recipe(train__steps=2), dataset, tmp_path / "run", progress=watcher)
    assert any("left out: case_02" in line and "empty" in line for line in watcher.said)
    assert list(json.loads((tmp_path / "run" / "data.json").read_text())["left out"]) == ["case_02"]


def test_no_usable_case_is_said_with_the_reasons(tmp_path):
    dataset = Dataset.open(make.dataset(tmp_path / "data", cases=3))
    for case in dataset:
        case.label.write_bytes(b"")
    with pytest.raises(BadInput, match=r"no usable case to train on(?s:.*)empty \(0 bytes\)"):
        fit(make.recipe(), dataset, tmp_path / "run")


def test_an_infinite_loss_stops_and_names_the_batch(dataset, tmp_path):
    recipe = make.recipe(
        train__learning_rate=1e30, train__clip=None, train__steps=50, net__name="unet", loss__name="cross-entropy"
    )
    with pytest.raises(TrainingStopped, match=r"The loss became (nan|inf).* at step \d+ \(patches: case_0\d at"):
        fit(recipe, dataset, tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train__patch": [16, 16, 20]}, r"multiples of 16; \[16, 16, 20\] is not\. Take \[16, 16, 32\]"),
        ({"train__precision": "fp16"}, "fp16 needs a GPU"),
    ],
)
def test_recipes_that_cannot_run_here_end_before_the_work(dataset, tmp_path, changes, message):
    with pytest.raises(RecipeError, match=message):
        fit(make.recipe(**changes), dataset, tmp_path / "run")


def test_bf16_trains(dataset, tmp_path):
    fit(make.recipe(train__precision="bf16", train__steps=2), dataset, tmp_path / "run")  # maps get two slices deep
    assert np.isfinite([line["loss"] for line in read_log(tmp_path / "run" / "metrics.jsonl") if "loss" in line]).all()


@pytest.mark.parametrize("optimiser", ["adam", "adamw", "sgd"])
def test_every_optimiser_goes_on_from_its_state(dataset, tmp_path, optimiser):
    recipe = make.recipe(train__optimiser=optimiser, train__steps=4, train__validate_every=4, train__learning_rate=1e-3)
    cache = tmp_path / "cache"
    fit(recipe, dataset, tmp_path / "a", cache=cache)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, dataset, tmp_path / "b", cache=cache, progress=make.Watcher(2))
    fit(recipe, dataset, tmp_path / "b", cache=cache)
    assert same(tmp_path / "a" / "last.safetensors", tmp_path / "b" / "last.safetensors")


def test_the_stored_recipe_is_resolved(finished):
    stored = yaml.safe_load((finished.folder / "recipe.yaml").read_text())
    assert [structure["name"] for structure in stored["labels"]] == ["core", "shell"]
    assert stored["channels"] == ["channel 0"]
    assert Recipe.load(finished.folder / "recipe.yaml") == finished.recipe
    assert Model.load(finished.folder, weights="last").recipe == finished.recipe

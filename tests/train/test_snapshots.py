"""Snapshots of attention: nothing of them reaches the training, and what they show is what the net did."""

from __future__ import annotations

import json
import shutil
from itertools import count
from types import SimpleNamespace

import make
import numpy as np
import pytest
import torch
from netting import small
from safetensors.numpy import load_file
from torch import nn

from attentus import Dataset, Model, fit
from attentus.data.cache import CachedCase
from attentus.errors import BadFile, RecipeError, UnknownName
from attentus.explain import attention
from attentus.nets.parts import AttentionTap
from attentus.train import loop
from attentus.train.log import read_log
from attentus.train.snapshots import FOLDER, LARGEST, Looks, read_snapshots
from attentus.train.speed import eager
from attentus.train.state import peek_state
from attentus.types import IGNORE, Grid

SHARES = {"cases": 2, "shares": [0, 0.25, 0.5, 1]}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset.open(make.dataset(tmp_path_factory.mktemp("data"), cases=6))


@pytest.fixture(scope="module")
def runs(dataset, tmp_path_factory):
    """The same training without and with snapshots; "mean" is what validation looks at."""
    folder = tmp_path_factory.mktemp("runs")
    for name, snapshots in (("without", {}), ("with", SHARES)):
        fit(make.recipe(train__ema=0.5, train__snapshots=snapshots), dataset, folder / name, cache=folder / "cache")
    return folder


def same(a, b):
    left, right = load_file(a), load_file(b)
    return left.keys() == right.keys() and all(np.array_equal(left[k], right[k]) for k in left)


def contents(folder):
    return {file.name: file.read_bytes() for file in sorted((folder / FOLDER).iterdir())}


def test_the_training_does_not_notice(runs):
    for file in ("weights.safetensors", "last.safetensors"):
        assert same(runs / "without" / file, runs / "with" / file)
    losses = [
        [line.get("loss", line.get("mean")) for line in read_log(runs / name / "metrics.jsonl")]
        for name in ("without", "with")
    ]
    assert losses[0] == losses[1]
    assert not (runs / "without" / FOLDER).exists()


def test_each_moment_is_kept_once_with_its_scores(runs):
    pictures, seen = read_snapshots(runs / "with")
    held_back = json.loads((runs / "with" / "data.json").read_text())["validation"]
    assert [picture.case for picture in pictures] == list(held_back)
    assert [(s.step, s.share, s.epoch, s.moments) for s in seen] == [
        (0, 0, 0, ("0 %",)),
        (3, 0.25, 1.5, ("25 %",)),
        (6, 0.5, 3, ("50 %",)),
        (12, 1, 6, ("100 %",)),
    ]
    for one in seen:
        for case in held_back:
            assert len(one.maps[case]) == len(one.scores[case]) == 6
            for name, numbers in one.scores[case].items():
                assert set(numbers["targets"]) == {"core", "shell"}
                assert 0 < numbers["entropy"] <= 1
                assert one.maps[case][name].min() >= numbers["lowest"] - 1e-3
                assert one.maps[case][name].max() <= numbers["highest"] + 1e-3
    sizes = {name: one.shape for name, one in seen[0].maps[pictures[0].case].items()}
    assert sizes["gates.level2.each.0"] == (10, 9)  # half of the scan's 20 x 18
    assert sizes["gates.level4.each.0"] == (2, 2)
    assert sum(file.stat().st_size for file in (runs / "with" / FOLDER).iterdir()) < 60_000


def test_what_is_kept_is_what_explain_sees_of_the_same_weights(runs, dataset):
    """At the last validation the kept weights are the running mean, which the last snapshot looked at."""
    state = peek_state(runs / "with" / "last.safetensors")
    model = Model.load(runs / "with")
    pictures, seen = read_snapshots(runs / "with")
    [of_best] = [one for one in seen if one.step == state.best_step]
    case = pictures[0].case
    found = attention(model, dataset[case], label=dataset[case].label, flips=False)
    for name, numbers in of_best.scores[case].items():
        theirs = found.scores[name]  # the scans have the recipe's spacing, so both are on one grid
        assert numbers["mean"] == pytest.approx(theirs["mean"], abs=2e-3)
        for structure in ("core", "shell"):
            mine, other = numbers["targets"][structure], theirs["targets"][structure]
            assert mine["expected"] == other["expected"]
            assert mine["mass_inside"] == pytest.approx(other["mass_inside"], rel=0.02)
            assert mine["best_dice"] == pytest.approx(other["best_dice"], abs=0.03)


@pytest.mark.parametrize("stop", [3, 5, 8])
def test_an_interrupted_run_neither_loses_nor_repeats_one(runs, dataset, tmp_path, stop):
    recipe = make.recipe(train__ema=0.5, train__snapshots=SHARES)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe, dataset, tmp_path / "cut", cache=runs / "cache", progress=make.Watcher(stop))
    before = contents(tmp_path / "cut")
    fit(recipe, dataset, tmp_path / "cut", cache=runs / "cache")
    after = contents(tmp_path / "cut")
    assert after == contents(runs / "with")
    assert all(after[name] == old for name, old in before.items())


def test_what_was_seen_after_the_last_checkpoint_is_seen_again(runs, dataset, tmp_path, monkeypatch):
    """Killed between a snapshot and the checkpoint that follows, and with one half written."""
    recipe = make.recipe(train__ema=0.5, train__snapshots=SHARES)
    real = loop.save

    def killed(job, state):
        if state.step == 6:
            raise MemoryError
        real(job, state)

    monkeypatch.setattr(loop, "save", killed)
    with pytest.raises(MemoryError):
        fit(recipe, dataset, tmp_path / "cut", cache=runs / "cache")
    place = tmp_path / "cut" / FOLDER
    assert (place / "step-00000006.json").is_file()
    (place / "step-00000009.npz").write_bytes(b"half")
    monkeypatch.setattr(loop, "save", real)
    fit(recipe, dataset, tmp_path / "cut", cache=runs / "cache")
    assert contents(tmp_path / "cut") == contents(runs / "with")
    assert same(runs / "with" / "last.safetensors", tmp_path / "cut" / "last.safetensors")


def test_epochs_names_modules_and_what_cannot_be_reached(runs, dataset, tmp_path):
    name = next(iter(json.loads((runs / "with" / "data.json").read_text())["validation"]))
    chosen = {"cases": [name], "shares": [], "epochs": [1, 1.2, 1.4, 150], "modules": ["gates.level2.each.1"]}
    watcher = make.Watcher()
    recipe = make.recipe(train__steps=4, train__snapshots=chosen)
    fit(recipe, dataset, tmp_path / "run", cache=runs / "cache", progress=watcher)
    pictures, seen = read_snapshots(tmp_path / "run")
    assert [picture.case for picture in pictures] == [name]
    assert [(s.step, s.moments) for s in seen] == [(2, ("epoch 1",)), (3, ("epoch 1.2", "epoch 1.4"))]
    assert all(set(one.maps[name]) == {"gates.level2.each.1"} for one in seen)
    assert any("epoch 150 lies beyond the 2 epochs" in line for line in watcher.said)


def test_the_clock_stands_still_meanwhile(dataset, tmp_path, monkeypatch):
    ticks = count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: 0.03 * next(ticks)))
    real = Looks.take

    def slow(*args, **options):
        for _ in range(1000):
            next(ticks)
        real(*args, **options)

    monkeypatch.setattr(Looks, "take", slow)
    snapshots = {"cases": 1, "shares": [0.3, 1]}
    recipe = make.recipe(train__steps=100_000, train__validate_every=100_000, train__snapshots=snapshots)
    fit(recipe, dataset, tmp_path / "run", max_time=2)
    state = peek_state(tmp_path / "run" / "last.safetensors")
    assert 2 <= state.seconds < 2.3
    _, (first, last) = read_snapshots(tmp_path / "run")
    assert 0.3 <= first.share < 0.4
    assert (last.share, last.step) == (1, state.step)


def test_a_training_that_ends_early_keeps_its_end(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "validate", lambda _net, cases, *_: np.full((len(cases), 2), 0.5))
    how = {"train__patience": 1, "train__validate_every": 2, "train__steps": 99}
    fit(make.recipe(**how, train__snapshots={"cases": 1, "shares": [0.9, 1]}), dataset, tmp_path / "run")
    _, seen = read_snapshots(tmp_path / "run")
    assert [(one.step, one.moments) for one in seen] == [(4, ("90 %", "100 %"))]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"net__name": "plain-unet", "net__options": {"preset": "tiny"}}, RecipeError, "has no attention to look at"),
        ({"train__snapshots": {"cases": 1, "modules": ["gates.level2"]}}, UnknownName, "gates.level2.each.0"),
        ({"train__snapshots": {"cases": ["case_99"]}}, UnknownName, "case that is held back is called 'case_99'"),
    ],
)
def test_what_cannot_be_looked_at_is_refused_before_anything_is_written(dataset, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        fit(make.recipe(**{"train__snapshots": {"cases": 1}, **changes}), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_cases_without_moments_are_refused():
    with pytest.raises(RecipeError, match="but never: name shares or epochs"):
        make.recipe(train__snapshots={"cases": 1, "shares": []})


class Bright(nn.Module):
    """Its gate is open where the scan is bright, at half the resolution of a slice."""

    multiple = 2

    def __init__(self):
        super().__init__()
        self.gate, self.weight = AttentionTap(), nn.Parameter(torch.ones(1))

    def forward(self, x):
        half = nn.functional.avg_pool3d(x, (1, 2, 2))
        opened = nn.functional.interpolate(self.gate(half.clamp(0, 1), half), x.shape[2:]) * self.weight
        return (torch.cat([-opened, opened], 1),)


def prepared(folder, labels, image, grid):
    folder.mkdir(parents=True)
    np.save(folder / "image.npy", image[None].astype(np.float32))
    np.save(folder / "labels.npy", labels)
    return CachedCase("made", folder, grid, (0.0,))


def test_the_slice_is_the_fullest_and_lies_where_the_scan_has_it(tmp_path):
    """A box in an oblique scan of unequal voxels; larger than what is kept, so that picture and map are shrunk."""
    shape, z, y, x = (6, 20, 3 * LARGEST), 3, slice(4, 12), slice(90, 180)
    labels, image = np.zeros(shape, np.uint8), np.zeros(shape)
    labels[z, y, x] = labels[1, 5:8, 100:150] = 1
    image[labels == 1] = 1.0
    labels[0] = IGNORE
    grid = Grid(shape, (3.0, 0.9, 0.5), (10.0, -20.0, 5.0), tuple(map(tuple, make.rotation(3))))
    recipe = make.recipe(
        labels=["box"], channels=["made"], train__patch=[6, 20, 64], train__snapshots={"cases": 1}, infer__overlap=0
    )
    looks = Looks(tmp_path / "run", recipe, [prepared(tmp_path / "case", labels, image, grid)], {"made": True})
    looks.take(Bright().eval(), ["5 %"], step=7, done=0.05, epochs=1.0)
    [picture], [seen] = read_snapshots(tmp_path / "run")
    assert (picture.place, picture.slices, picture.geometry) == (z, 6, True)
    assert picture.image.shape == (20, 2 * LARGEST)
    one = seen.maps["made"]["gate"]
    assert one.shape == (10, LARGEST)
    expected = grid.world((z, (y.start + y.stop - 1) / 2, (x.start + x.stop - 1) / 2))
    for array in (picture.image, picture.labels, one):
        inside = np.argwhere(array > 0.5 * array.max()).mean(axis=0)
        ratio = np.array(picture.image.shape) / array.shape  # a map covers what the picture covers
        found = picture.grid.world((0, *((inside + 0.5) * ratio - 0.5)))
        np.testing.assert_allclose(found, expected, atol=0.5)  # a third of a map's pixel
    numbers = seen.scores["made"]["gate"]["targets"]["box"]
    assert numbers["mass_inside"] > 0.85
    assert numbers["pointing"] > 0.9  # the edge of a pixel of the map may lie outside


def test_channel_factors_are_numbers_without_pictures(dataset, tmp_path):
    net = {"name": "dpc-net", "dims": 2, "options": {"preset": "tiny"}}
    modules = ["spacor.level1", "semcor.level1"]
    recipe = make.recipe(
        net=net, train__patch=[32, 32], train__steps=1, train__snapshots={"cases": 1, "shares": [1], "modules": modules}
    )
    fit(recipe, dataset, tmp_path / "run")
    [picture], [seen] = read_snapshots(tmp_path / "run")
    assert set(seen.maps[picture.case]) == {"spacor.level1"}
    assert seen.scores[picture.case]["semcor.level1"]["channels"] > 1


def test_damaged_snapshots_are_named(runs, tmp_path):
    shutil.copytree(runs / "with", tmp_path / "run")
    assert read_snapshots(runs / "without") == ([], [])
    (tmp_path / "run" / FOLDER / "step-00000006.npz").write_bytes(b"PK broken")
    with pytest.raises(BadFile, match=r"step-00000006\.json: cannot be read"):
        read_snapshots(tmp_path / "run")


def test_a_compiled_net_runs_uncompiled_inside():
    net, calls = small("attention-unet"), []
    net._compiled_call_impl = lambda *_: calls.append(1)
    x = torch.zeros(1, 1, 32, 32)
    with torch.no_grad():
        net(x)
        with eager(net):
            assert len(net(x)) == 1
        net(x)
    assert len(calls) == 2

"""Levels of speed: what they change in a recipe, and what their backend is made with."""

from __future__ import annotations

from dataclasses import replace

import make
import numpy as np
import pytest
import torch

from attentus import Dataset, Model
from attentus.data.resolve import resolve
from attentus.errors import UnknownName
from attentus.infer import backends, speed
from attentus.infer.model import create_net
from attentus.types import Grid, Volume

PATCH = (16, 64, 64)


@pytest.fixture
def model(tmp_path):
    recipe = resolve(make.recipe(), Dataset.open(make.dataset(tmp_path / "data", cases=3)))
    infer = recipe.infer.model_copy(update={"overlap": 0.5, "mirror": ("x",), "batch": 1})
    prepare = recipe.prepare.model_copy(update={"spacing": (1.0, 1.0, 1.0)})
    train = recipe.train.model_copy(update={"patch": PATCH})
    recipe = recipe.model_copy(update={"infer": infer, "train": train, "prepare": prepare})
    torch.manual_seed(0)
    Model(recipe, create_net(recipe)).save(tmp_path / "model")
    return Model.load(tmp_path / "model", device="cpu")


def scan(shape):
    array = np.random.default_rng(sum(shape)).normal(size=(1, *shape)).astype(np.float32)
    return Volume(array, Grid(shape, (1.0, 1.0, 1.0)))


@pytest.fixture
def forced(monkeypatch, request):
    """A backend that is taken without asking what it is worth, and the shapes it was made for."""
    if reason := backends.missing(request.param):
        pytest.skip(reason)
    shapes, right = [], backends.create

    def create(name, net, shape, **options):
        shapes.append(shape)
        return right(name, net, shape, **options)

    def choose(net, shape, windows, *, precision, **options):
        return create(request.param, net, shape, **options)

    monkeypatch.setattr(backends, "create", create)
    monkeypatch.setattr(backends, "choose", choose)
    return shapes


@pytest.fixture
def seen(model, monkeypatch):
    """Windows that a net is to be quantised with."""
    windows = []

    def choose(_net, _shape, _windows, *, calibration, **_):
        windows.extend(calibration)
        return backends.create("torch", model.net, (1, 1, *PATCH))

    monkeypatch.setattr(backends, "choose", choose)
    return windows


def test_levels_give_up_flips_and_overlap(model):
    best, balanced, fast = (model.at_speed(name).recipe.infer for name in ("best", "balanced", "fast"))
    assert best == model.recipe.infer
    assert (balanced.mirror, balanced.overlap) == ((), 0.5)
    assert (fast.mirror, fast.overlap) == ((), 0.25)
    with pytest.raises(UnknownName, match="Did you mean 'balanced'"):
        model.at_speed("balancd")


@pytest.mark.parametrize("forced", ["openvino-bf16"], indirect=True)
def test_a_scan_of_one_window_does_not_make_batches_smaller(model, forced):
    infer = model.recipe.infer.model_copy(update={"batch": 3})
    model.recipe = model.recipe.model_copy(update={"infer": infer})
    balanced = model.at_speed("balanced")
    for shape in (PATCH, (16, 120, 64)):
        found = balanced.predict(scan(shape), probabilities=True).probabilities.array
        plain = replace(balanced, engine=None).predict(scan(shape), probabilities=True).probabilities.array
        assert np.abs(found.astype(np.float32) - plain).max() < 0.05
    assert forced == [(3, 1, *PATCH)]


def test_windows_to_quantise_with_are_spread_over_the_scan(model, seen, monkeypatch):
    monkeypatch.setattr(speed, "windows_for", lambda _: 9)
    volume = scan((160, 120, 64))
    volume.array[:, 96:] = volume.array.min()  # nothing there
    model.at_speed("fast").predict(volume)
    assert len(seen) == 9
    assert all(np.ptp(window) > 0 for window in seen)
    assert len({window.tobytes() for window in seen}) == 9


def test_small_scans_are_quantised_with_flipped_windows_too(model, seen, monkeypatch):
    monkeypatch.setattr(speed, "windows_for", lambda _: 5)
    model.at_speed("fast").predict(scan(PATCH))
    assert len(seen) == 5
    assert all(
        np.array_equal(np.flip(seen[k], flipped), seen[0]) for k, flipped in enumerate([(), -3, -2, -1, (-3, -2)])
    )


@pytest.mark.parametrize(("level", "rough"), [("best", False), ("balanced", True), ("fast", True)])
def test_kernels_for_large_windows_are_compiled_while_a_scan_is_read(model, monkeypatch, level, rough):
    begun = []
    monkeypatch.setattr(speed.winograd, "begin", lambda *, bf16: begun.append(bf16))
    model.at_speed(level)
    assert begun == []
    train = model.recipe.train.model_copy(update={"patch": (96, 96, 96)})
    replace(model, recipe=model.recipe.model_copy(update={"train": train})).at_speed(level)
    assert begun == [rough and backends.missing("winograd-bf16") == ""]

"""Segmenting slab by slab: the same result however a scan is walked through, and several models as one."""

from __future__ import annotations

import threading
import time
from functools import partial

import make
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import attentus as at
from attentus.errors import BadFile, BadInput
from attentus.infer import segment as segmenting
from attentus.infer.ensemble import Ensemble
from attentus.infer.forecast import Forecast
from attentus.infer.model import Model
from attentus.infer.sliding import Options, Walk, Window, runner, sliding_window
from attentus.transforms import prepare as preparing
from attentus.types import Volume

sizes = st.tuples(*[st.integers(1, 12)] * 3)


class Blur(nn.Module):
    """Something that depends on its surroundings, so that windows disagree where they overlap."""

    def __init__(self, seed=0, dims=3):
        super().__init__()
        torch.manual_seed(seed)
        self.conv = (nn.Conv3d if dims == 3 else nn.Conv2d)(1, 3, 3, padding=1)

    def forward(self, x):
        return (self.conv(x),)


def scan(shape=(9, 12, 14), spacing=(2.0, 1.0, 1.0), seed=0):
    array = np.random.default_rng(seed).normal(0, 100, (1, *shape)).astype(np.int16)
    return Volume(array, make.grid(shape=shape, spacing=spacing))


def model(seed=0, dims=3, **infer):
    spacing = [1.5, 1.3, 1.2]
    recipe = make.recipe(
        labels=[{"name": "liver", "value": 1}, {"name": "tumour", "value": 2}],
        channels=["CT"],
        prepare={"spacing": spacing, "intensity": [{"window": [-100, 100], "normalise": "range"}]},
        net={"name": "plain-unet", "dims": dims},
        train={"patch": [4, 8, 8] if dims == 3 else [8, 8]},
        infer=infer,
    )
    return Model(recipe, Blur(seed, dims).eval())


@settings(max_examples=40)
@given(sizes, sizes, st.sampled_from([0.0, 0.5, 0.75]), st.integers(1, 4), st.integers(1, 5), st.booleans())
def test_rows_do_not_depend_on_how_many_are_taken(shape, size, overlap, batch, step, on_disk):  # noqa: PLR0917
    array = np.random.default_rng(1).normal(size=(1, *shape)).astype(np.float32)
    how, net = Window(size, overlap, batch=batch), Blur().eval()
    whole = sliding_window(net, array, how)["logits"]
    outside = array.reshape(1, -1).min(axis=1).tolist()
    walk = Walk(runner(net, 3), lambda a, b: array[:, a:b], shape, outside, how, ahead=step, on_disk=on_disk)
    parts = [walk.logits(z, min(z + step, shape[0])) for z in range(0, shape[0], step)]
    np.testing.assert_array_equal(np.concatenate(parts, axis=1), whole)
    assert walk.capacity <= shape[0]


@pytest.mark.parametrize("dims", [2, 3])
def test_labels_are_the_same_bits_whatever_the_slab_the_memory_and_the_batch(monkeypatch, dims):
    expected = model(dims=dims).predict(scan(), probabilities=True)
    assert len(np.unique(expected.labels.array)) > 1
    for voxels, on_disk in ((1, False), (500, True), (10**9, True)):
        monkeypatch.setattr(preparing, "SLAB_VOXELS", voxels)
        monkeypatch.setattr(segmenting, "Walk", partial(Walk, on_disk=on_disk))
        found = model(dims=dims).predict(scan(), probabilities=True)
        np.testing.assert_array_equal(found.labels.array, expected.labels.array)
        np.testing.assert_array_equal(found.probabilities.array, expected.probabilities.array)


def test_slabs_come_back_beside_each_other_but_never_beside_windows(monkeypatch):
    bringing, most, lock = 0, 0, threading.Lock()
    decide, advance = segmenting.decide, Walk._advance

    def slow(*arguments, **options):
        nonlocal bringing, most
        with lock:
            bringing += 1
            most = max(most, bringing)
        time.sleep(0.005)
        with lock:
            bringing -= 1
        return decide(*arguments, **options)

    def alone(walk):
        assert bringing == 0
        advance(walk)

    monkeypatch.setattr(preparing, "SLAB_VOXELS", 1)
    expected = model().predict(scan()).labels.array
    monkeypatch.setattr(segmenting, "decide", slow)
    monkeypatch.setattr(Walk, "_advance", alone)
    np.testing.assert_array_equal(model().predict(scan()).labels.array, expected)
    assert most == 2


def test_what_goes_wrong_on_the_way_back_is_told(monkeypatch):
    def full(*_, **__):
        raise MemoryError("no room")

    monkeypatch.setattr(segmenting, "decide", full)
    with pytest.raises(MemoryError, match="no room"):
        model().predict(scan())


def test_the_limit_is_kept_by_sums_on_disk_or_refused_with_what_it_takes(monkeypatch):
    """The forecast is made up: what a process holds depends on the machine."""
    seen = []
    plain = Walk.rows
    monkeypatch.setattr(Walk, "rows", lambda self, a, b: seen.append(self.on_disk) or plain(self, a, b))
    made_up = Forecast(windows=1, seconds=1, loaded=2**30, net=0, sums=2**30, rows=0, labels=0)
    monkeypatch.setattr(segmenting, "expect", lambda *_: made_up)
    expected = model().predict(scan()).labels.array
    for limit, on_disk in ((2**31, False), (2**31 - 1, True)):
        seen.clear()
        np.testing.assert_array_equal(model().predict(scan(), max_ram=limit).labels.array, expected)
        assert set(seen) == {on_disk}
    with pytest.raises(BadInput, match=r"at least 1\.0 GiB; the limit is 0\.5 GiB"):
        model().predict(scan(), max_ram=2**29)


def test_the_forecast_counts_windows_and_bytes():
    one = model()
    found = one.forecast(scan())
    assert found.windows == len(one.window.starts((12, 9, 12)))
    assert found.labels == 9 * 12 * 14
    assert found.seconds > 0
    assert found.most == found.least + found.sums
    assert found.sums >= 4 * 3 * 9 * 12 * 4  # three maps, at least the four rows of a window
    twice = Ensemble((one, one)).forecast(scan())
    assert (twice.windows, twice.sums) == (2 * found.windows, 2 * found.sums)


@settings(max_examples=20)
@given(st.sampled_from([(), ("z",), ("y", "x"), ("z", "y", "x")]))
def test_mirroring_is_the_mean_over_all_flips(axes):
    array = np.random.default_rng(2).normal(size=(1, 5, 6, 7)).astype(np.float32)
    net, how = Blur().eval(), Window((5, 6, 7))
    options = Options(tuple(2 + "zyx".index(axis) for axis in axes))
    found = Walk(runner(net, 3), lambda a, b: array[:, a:b], (5, 6, 7), [0.0], how, options, ahead=5).logits(0, 5)
    places = [1 + "zyx".index(axis) for axis in axes]
    flips = [[a for k, a in enumerate(places) if bits >> k & 1] for bits in range(2 ** len(places))]
    each = [np.flip(sliding_window(net, np.flip(array, f).copy(), how)["logits"], f) for f in flips]
    np.testing.assert_allclose(found, np.mean(each, axis=0), atol=1e-5)


def test_air_is_not_looked_at():
    array = np.full((1, 4, 32, 32), -1000, np.int16)
    array[:, :, :6, :6] = 50
    volume = Volume(array, make.grid(shape=(4, 32, 32), spacing=(1.5, 1.3, 1.2)))
    seeing, skipping = model(), model(skip_below=-500)
    calls = []
    skipping.net.register_forward_hook(lambda *_: calls.append(1))
    labels = skipping.predict(volume).labels.array
    assert 0 < len(calls) < len(seeing.window.starts((4, 32, 32)))
    np.testing.assert_array_equal(labels[..., :5, :5], seeing.predict(volume).labels.array[..., :5, :5])
    assert not labels[..., 16:, 16:].any()
    nothing = Volume(np.full_like(array, -1000), volume.grid)
    assert not skipping.predict(nothing).labels.array.any()


def test_temperature_changes_how_sure_but_not_what():
    sharp, soft = (
        model().predict(scan(), probabilities=True),
        model(temperature=5.0).predict(scan(), probabilities=True),
    )
    assert soft.probabilities.array.max(axis=0).mean() < sharp.probabilities.array.max(axis=0).mean()
    assert (soft.labels.array == sharp.labels.array).mean() > 0.999


def test_an_ensemble_takes_the_mean_of_probabilities():
    models = [model(seed) for seed in range(3)]
    found = Ensemble(tuple(models)).predict(scan(), probabilities=True)
    each = [m.predict(scan(), probabilities=True).probabilities.array.astype(np.float32) for m in models]
    np.testing.assert_allclose(found.probabilities.array, np.mean(each, axis=0), atol=2e-3)
    alone = Ensemble((models[0],)).predict(scan())
    np.testing.assert_array_equal(alone.labels.array, models[0].predict(scan()).labels.array)


def test_a_majority_counts_heads():
    models = [model(seed) for seed in range(3)]
    found = Ensemble(tuple(models), "majority").predict(scan()).labels.array
    votes = np.stack([m.predict(scan()).labels.array for m in models])
    counts = np.stack([(votes == value).sum(axis=0) for value in range(3)])
    np.testing.assert_array_equal(found, counts.argmax(axis=0))
    assert (found != votes[0]).any()


def test_folds_are_loaded_as_one_and_strangers_refused(tmp_path):
    for seed in range(2):
        made = Model(model().recipe, at.nets.create("plain-unet", 3, 1, 3))
        made.save(tmp_path / f"fold{seed}")
    together = at.load(tmp_path)
    assert isinstance(together, Ensemble)
    assert together.names == {"liver": 1, "tumour": 2}
    assert isinstance(at.load(tmp_path / "fold0"), Model)
    with pytest.raises(BadFile, match="no model folder"):
        at.load(tmp_path / "fold7")
    other = model()
    other.recipe = other.recipe.model_copy(update={"labels": other.recipe.labels[:1]})
    with pytest.raises(BadInput, match="ensemble"):
        Ensemble((model(), other)).predict(scan())

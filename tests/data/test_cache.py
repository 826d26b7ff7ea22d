from __future__ import annotations

import json

import make
import numpy as np
import pytest

from attentus import Dataset, io
from attentus.data import cache
from attentus.data.cache import prepare_cases
from attentus.data.patches import PatchSampler, ahead, window
from attentus.data.resolve import class_table, resolve, to_classes
from attentus.errors import BadInput, RecipeError
from attentus.recipes import Sampling
from attentus.types import Volume


@pytest.fixture
def dataset(tmp_path):
    return Dataset.open(make.dataset(tmp_path / "data", cases=4))


def prepared(dataset, folder, **changes):
    recipe = resolve(make.recipe(**changes), dataset)
    return prepare_cases(dataset, recipe, folder)


def count(folder):
    return len([p for p in folder.iterdir() if not p.name.startswith(".")])


def test_prepared_cases_hold_image_labels_and_places(dataset, tmp_path):
    ready, failures = prepared(dataset, tmp_path / "c")
    assert failures == {}
    assert [case.id for case in ready] == [case.id for case in dataset]
    case = ready[1]
    assert isinstance(case.image, np.memmap)
    assert case.image.dtype == np.float32
    assert case.image.shape[1:] == case.labels.shape == case.grid.shape
    assert case.outside == (case.image.min(),)
    number, *place = case.points[-1]
    assert case.labels[tuple(place)] == number == 2
    truth = io.read_labels(dataset["case_01"].label).array[0]
    np.testing.assert_array_equal(case.labels, truth)


def test_what_is_there_is_used_and_what_changed_is_not(dataset, tmp_path, monkeypatch):
    prepared(dataset, tmp_path / "c")
    computed = []
    real = cache.prepare
    monkeypatch.setattr(cache, "prepare", lambda *a: computed.append(1) or real(*a))
    prepared(dataset, tmp_path / "c")
    assert computed == []
    prepared(dataset, tmp_path / "c", train__batch=7, name="other")  # nothing that shapes the voxels
    assert computed == []
    ready, _ = prepared(dataset, tmp_path / "c", prepare__spacing=[2.0, 2.0, 2.0])
    assert len(computed) == 4
    assert ready[0].grid.spacing == (2.0, 2.0, 2.0)
    prepared(dataset, tmp_path / "c", labels={"all": ["core", "shell"]})
    assert len(computed) == 8
    image = dataset.cases[2].images[0]
    volume = io.read(image)
    io.write(volume.like(volume.array + 1), image, overwrite=True)
    prepared(dataset, tmp_path / "c")
    assert len(computed) == 9
    assert count(tmp_path / "c") == 13


def test_one_bad_case_is_listed_and_the_rest_prepared(dataset, tmp_path):
    dataset["case_01"].images[0].write_bytes(b"")
    dataset["case_02"].label.unlink()
    ready, failures = prepared(dataset, tmp_path / "c")
    assert [case.id for case in ready] == ["case_00", "case_03"]
    assert "empty (0 bytes)" in failures["case_01"]
    assert "does not exist" in failures["case_02"]


def test_an_interrupted_case_leaves_nothing(dataset, tmp_path, monkeypatch):
    def crash(file, *_, real=np.save):
        real(file, np.zeros(1))
        raise KeyboardInterrupt

    monkeypatch.setattr(cache.np, "save", crash)
    with pytest.raises(KeyboardInterrupt):
        prepared(dataset, tmp_path / "c")
    assert list((tmp_path / "c").iterdir()) == []


def test_a_full_disk_is_said(dataset, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.np, "save", full)
    with pytest.raises(BadInput, match="the disk is full"):
        prepared(dataset, tmp_path / "c")


def test_a_damaged_entry_is_named(dataset, tmp_path):
    ready, _ = prepared(dataset, tmp_path / "c")
    (ready[0].folder / "image.npy").write_bytes(b"nonsense")
    with pytest.raises(BadInput, match=r"image\.npy: the prepared case is damaged(?s:.*)Delete"):
        _ = ready[0].image


def test_structures_merge_parts_by_name(dataset):
    recipe = resolve(make.recipe(labels={"both": ["shell", "core"]}), dataset)
    (both,) = recipe.labels
    assert (both.parts, both.value) == (("shell", "core"), 1)
    table = class_table(recipe, dataset.labels)
    assert to_classes(np.array([0, 1, 2]), table, dataset.labels).tolist() == [0, 1, 1]
    only = resolve(make.recipe(labels=["shell"]), dataset)
    table_of_one = class_table(only, dataset.labels)
    assert to_classes(np.array([0, 1, 2]), table_of_one, dataset.labels).tolist() == [0, 0, 1]
    assert only.labels[0].value == 2
    with pytest.raises(BadInput, match=r"unknown label value\(s\) \[3\]"):
        to_classes(np.array([0, 3]), table, dataset.labels)


def test_resolving_writes_out_what_the_data_decides(dataset):
    recipe = resolve(make.recipe(prepare__spacing="median"), dataset)
    assert [s.name for s in recipe.labels] == ["core", "shell"]
    assert recipe.channels == ("channel 0",)
    assert recipe.prepare.spacing == (2.0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": ["kore"]}, "no label 'kore'. Did you mean 'core'"),
        ({"labels": {"a": ["core"], "b": ["core", "shell"]}}, "belongs to both 'a' and 'b'"),
        ({"channels": ["T1", "T2"]}, r"the recipe wants \['T1', 'T2'\]"),
    ],
)
def test_recipes_that_do_not_fit_the_data(dataset, changes, message):
    with pytest.raises(RecipeError, match=message):
        resolve(make.recipe(**changes), dataset)


def sampler(ready, *, size=(16, 16, 16), dims=3, batch=4, seed=3, **how):
    members = {"core": (1,), "shell": (2,)}
    return PatchSampler(ready, size, dims, batch, seed, Sampling(**{"foreground": 0.5, **how}), members)


def test_a_batch_depends_on_its_number_only(dataset, tmp_path):
    ready, _ = prepared(dataset, tmp_path / "c")
    one, two = sampler(ready), sampler(ready)
    for _ in range(3):
        one.cut(0)
    a, b = one.cut(17), two.cut(17)
    np.testing.assert_array_equal(a.images, b.images)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert a.origin == b.origin
    assert one.cut(18).origin != a.origin
    assert sampler(ready, seed=4).cut(17).origin != a.origin


def test_the_foreground_share_is_kept(dataset, tmp_path):
    ready, _ = prepared(dataset, tmp_path / "c")
    for share in (0.0, 0.3, 1.0):
        cutter = sampler(ready, size=(2, 2, 2), batch=10, foreground=share)
        hits = np.mean([(patch > 0).any() for n in range(30) for patch in cutter.cut(n).labels])
        background = np.mean(
            [
                (patch > 0).any()
                for n in range(30)
                for patch in sampler(ready, size=(2, 2, 2), batch=10, foreground=0.0).cut(n).labels
            ]
        )
        assert hits == pytest.approx(share + (1 - share) * background, abs=0.12)


def test_two_dimensional_patches_are_slices(dataset, tmp_path):
    ready, _ = prepared(dataset, tmp_path / "c")
    batch = sampler(ready, size=(1, 24, 8), dims=2).cut(0)
    assert batch.images.shape == (4, 1, 24, 8)
    assert batch.labels.shape == (4, 24, 8)


def test_patches_show_what_lies_where_they_say(dataset, tmp_path):
    ready, _ = prepared(dataset, tmp_path / "c")
    batch = sampler(ready, size=(4, 5, 6), batch=8).cut(2)
    by_id = {case.id: case for case in ready}
    for image, labels, (case, start) in zip(*batch, strict=True):
        place = tuple(slice(s, s + n) for s, n in zip(start, (4, 5, 6), strict=True))
        np.testing.assert_array_equal(image[0], by_id[case].image[0][place])
        np.testing.assert_array_equal(labels, by_id[case].labels[place])


def test_beyond_the_scan_lies_its_minimum():
    array = np.arange(8.0).reshape(1, 2, 2, 2) + 5
    cut = window(array, (-1, 0, 1), (3, 2, 3), (5.0,))
    assert cut.shape == (1, 3, 2, 3)
    np.testing.assert_array_equal(cut[0, 1:, :, 0], array[0, :, :, 1])
    assert (cut[0, 0] == 5).all()
    assert (cut[0, :, :, 1:] == 5).all()


def test_threads_keep_the_order_and_tell_their_errors(dataset, tmp_path):
    ready, _ = prepared(dataset, tmp_path / "c")
    cutter = sampler(ready, batch=1)
    numbers = [batch.origin for batch in ahead(cutter, range(9), threads=3)]
    assert numbers == [cutter.cut(n).origin for n in range(9)]
    (ready[0].folder / "labels.npy").unlink()
    (ready[0].folder / "points.npy").unlink()
    with pytest.raises(BadInput, match=r"points\.npy"):
        list(ahead(sampler(ready[:1]), range(3), threads=2))


def test_json_of_a_case_is_readable(dataset, tmp_path):
    ready, _ = prepared(dataset, tmp_path / "c")
    stored = json.loads((ready[0].folder / "case.json").read_text())
    assert stored["case"] == "case_00"
    assert stored["grid"]["spacing"] == [2.0, 1.0, 1.0]


def test_channels_of_a_case_must_be_those_of_the_dataset(dataset, tmp_path):
    image = dataset["case_03"].images[0]
    volume = io.read(image)
    io.write(Volume(np.concatenate([volume.array] * 2), volume.grid), image, overwrite=True)
    _, failures = prepared(dataset, tmp_path / "c")
    assert "has 2 channel(s)" in failures["case_03"]

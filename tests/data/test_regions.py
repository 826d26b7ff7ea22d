"""Structures within each other, labels to ignore, and intensities measured on the whole dataset."""

from __future__ import annotations

import make
import numpy as np
import pytest

from attentus import Dataset, io
from attentus.data.resolve import class_table, members, region_table, resolve, to_classes, values_in
from attentus.errors import BadInput, RecipeError
from attentus.types import IGNORE, Volume

BRATS = {"WT": ["oedema", "necrosis", "enhancing"], "TC": ["necrosis", "enhancing"], "ET": ["enhancing"]}
STORED = {"necrosis": 1, "oedema": 2, "enhancing": 4}


@pytest.fixture
def dataset(tmp_path):
    return Dataset.open(make.dataset(tmp_path / "data", cases=3))


def brain(dataset, **changes):
    from dataclasses import replace

    return resolve(make.recipe(regions=True, labels=BRATS, **changes), replace(dataset, declared_labels=STORED))


def test_nested_regions(dataset):
    recipe = brain(dataset)
    assert members(recipe) == {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}
    assert {s.name: s.value for s in recipe.labels} == {"WT": 2, "TC": 1, "ET": 4}  # the dataset's own values
    assert values_in(recipe) == {"WT": (2, 1, 4), "TC": (1, 4), "ET": (4,)}
    np.testing.assert_array_equal(region_table(recipe), [[0, 0, 0], [1, 0, 0], [1, 1, 0], [1, 1, 1]])
    classes = to_classes(np.array([0, 1, 2, 4]), class_table(recipe, STORED), STORED)
    assert classes.tolist() == [0, 2, 1, 3]
    assert resolve(recipe, type(dataset)(**{**vars(dataset), "declared_labels": STORED})) == recipe


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": ["core", "shell"], "b": ["core"], "c": ["shell", "core"]}, "'b' and 'c' share core"),
        ({"inner": ["core"], "outer": ["core", "shell"]}, "List outer structures before inner ones"),
        ({"a": ["core", "shell"], "b": ["core"], "c": ["shell"]}, "no label value is left for it"),
    ],
)
def test_regions_that_cannot_be_written(dataset, labels, message):
    with pytest.raises(RecipeError, match=message):
        resolve(make.recipe(regions=True, labels=labels), dataset)


def test_a_value_can_be_given_where_none_is_left(dataset):
    parts = {"both": ["core", "shell"], "c": ["core"], "s": ["shell"]}
    labels = [{"name": name, "parts": of, "value": 7 if name == "both" else 0} for name, of in parts.items()]
    recipe = resolve(make.recipe(regions=True, labels=labels), dataset)
    assert [s.value for s in recipe.labels] == [7, 1, 2]


def test_overlapping_structures_without_regions_point_to_them(dataset):
    with pytest.raises(RecipeError, match="set regions: true"):
        resolve(make.recipe(labels={"all": ["core", "shell"], "core": ["core"]}), dataset)


def test_ignored_labels(dataset):
    recipe = resolve(make.recipe(ignore=["shell"]), dataset)
    assert [s.name for s in recipe.labels] == ["core"]  # "all" means all others
    assert class_table(recipe, dataset.labels).tolist() == [0, 1, IGNORE]
    with pytest.raises(RecipeError, match="ignore: the dataset has no label 'shel'"):
        resolve(make.recipe(ignore=["shel"]), dataset)
    with pytest.raises(RecipeError, match="'shell' is to be ignored, too"):
        resolve(make.recipe(ignore=["shell"], labels=["core", "shell"]), dataset)


def test_intensities_of_the_dataset(dataset):
    given = [{"scope": "dataset", "percentiles": [0.5, 99.5], "normalise": "zscore"}]
    (found,) = resolve(make.recipe(prepare__intensity=given), dataset).prepare.intensity
    values = [io.read_case(c).array[0][io.read_labels(c.label).array[0] > 0] for c in dataset]
    assert sum(map(len, values)) < 10_000  # all of them are in the sample
    everything = np.concatenate(values).astype(np.float64)
    assert found.window == pytest.approx(tuple(np.percentile(everything, [0.5, 99.5])), rel=1e-4)
    assert found.moments == pytest.approx((everything.mean(), everything.std()), rel=1e-4)
    assert (found.scope, found.percentiles) == ("scan", None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sampling__structures": ["kore"]},
            "made: the recipe has 1 problem.*\n  recipe: sampling.structures: kore is not",
        ),
        (
            {"prepare__intensity": [{}, {}]},
            "made: the recipe has 1 problem.*\n  recipe: prepare.intensity has 2 entries",
        ),
    ],
)
def test_what_only_the_data_shows_to_be_wrong_is_told_like_the_rest(dataset, changes, message):
    with pytest.raises(RecipeError, match=message):
        resolve(make.recipe(**changes), dataset)


def test_more_labels_than_numbers(dataset):
    from dataclasses import replace

    many = replace(dataset, declared_labels={f"organ {k}": k for k in range(1, 256)})
    with pytest.raises(RecipeError, match="at most 254 labels"):
        resolve(make.recipe(), many)


def test_no_voxel_to_measure(tmp_path):
    root = make.dataset(tmp_path, cases=2)
    for file in (root / "labelsTr").iterdir():
        labels = io.read(file)
        io.write(Volume(labels.array * 0, labels.grid), file, overwrite=True)
    with pytest.raises(BadInput, match="no scan has a voxel of the structures"):
        resolve(make.recipe(prepare__intensity=[{"scope": "dataset"}]), Dataset.open(root))

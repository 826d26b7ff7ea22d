"""What levels are worth: measured on the right cases, chosen by a stated rule, written as a whole model."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import make
import numpy as np
import pytest

from attentus import Dataset, Model, fit, io
from attentus.errors import BadFile, BadInput
from attentus.metrics import iou
from attentus.metrics.summary import from_json
from attentus.report.levels import draw_levels
from attentus.train.levels import Level, choose, compare, place, sizes, to_csv, write_level
from attentus.types import Score, Scores


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A nested net after some steps, and its data."""
    folder = tmp_path_factory.mktemp("levels")
    dataset = Dataset.open(make.dataset(folder / "data", cases=6))
    recipe = make.recipe(net__name="anu-net", net__options={"preset": "tiny"}, train__steps=8)
    return fit(recipe, dataset, folder / "run", cache=folder / "cache"), dataset


@pytest.fixture(scope="module")
def measured(trained):
    return compare(*trained, early_exit=0.5)


def made(level, *dice, parameters=10, volumes=(1.0, 1.0)):
    """A level with given Dice of cases a, b, ... and the same volumes, ml, of prediction and reference in each."""
    rows = []
    for case, value in zip("abcdef", dice, strict=False):
        rows += [Score(case, "core", "dice", value, ""), Score(case, "core", "iou", value / (2 - value), "")]
        size = volumes["abcdef".index(case)]
        rows += [Score(case, "core", f"{kind}_ml", size, "ml") for kind in ("volume", "reference")]
    return Level(level, None, None, parameters, 10**9, Scores(tuple(rows), {}), 0.5)


def test_every_level_is_measured_on_the_cases_held_back(trained, measured):
    model, dataset = trained
    held_back = list(json.loads((model.folder / "data.json").read_text())["validation"])
    assert [one.name for one in measured] == ["L1", "L2", "L3", "L4", "L4, exit 0.5"]
    for one in measured:
        assert one.scores.cases == held_back
        assert one.seconds > 0
    finished = from_json((model.folder / "scores.json").read_text())
    assert measured[3].scores.rows == finished.rows  # the whole net, as the training judged it
    truth = io.read_labels(dataset[held_back[0]].label).array == 1
    found = measured[0].model.predict(dataset[held_back[0]]).labels.array == 1
    assert measured[0].scores.value(held_back[0], "core", "iou") == iou(found[0], truth[0])
    assert 2 <= measured[-1].mean_level <= 4
    assert all(one.mean_level is None for one in measured[:-1])


def test_sizes_need_no_data(trained):
    model, _ = trained
    for one in (found := sizes(model)):
        assert one.parameters == sum(p.numel() for p in one.model.net.parameters())
        assert math.isnan(one.pooled_dice)
        assert math.isnan(one.over_cases("dice")[0])
    assert [one.flops for one in found] == sorted(one.flops for one in found)


def test_cases_of_another_dataset_are_refused(trained, tmp_path):
    model, _ = trained
    other = Dataset.open(make.dataset(tmp_path / "other", cases=1))
    with pytest.raises(BadInput, match=r"has no labelled case 'case_\d\d'.*\n.*the model was trained on"):
        compare(model, other)


def test_a_damaged_case_is_listed_and_the_others_are_measured(trained, tmp_path):
    model, _ = trained
    copy = make.dataset(tmp_path / "data", cases=6)
    held_back = list(json.loads((model.folder / "data.json").read_text())["validation"])
    (copy / "imagesTr" / f"{held_back[0]}.nii.gz").write_bytes(b"")
    found = compare(model, Dataset.open(copy))
    assert all(list(one.scores.failures) == held_back[:1] and one.scores.cases == held_back[1:] for one in found)
    assert found[0].seconds > 0
    for case in held_back:
        (copy / "imagesTr" / f"{case}.nii.gz").write_bytes(b"")
    with pytest.raises(BadInput, match=r"no case held back could be scored\.\n.*empty"):
        compare(model, Dataset.open(copy))


def test_without_a_record_the_recipe_deals_the_cases(trained):
    model, dataset = trained
    [held_back] = [part for k, part in enumerate(dataset.parts(model.recipe.split)) if k == 1]
    found = compare(Model(model.recipe, model.net), dataset)
    assert found[0].scores.cases == [case.id for case in held_back]


def test_the_smallest_level_within_the_tolerance_is_chosen():
    found = [made(1, 0.5, 0.7), made(2, 0.7, 0.8), made(3, 0.78, 0.8), made(4, 0.8, 0.76)]
    assert choose(found, 0.0).level == 3  # 0.79 beats 0.78: deeper is not always better
    assert choose(found, 0.0401).level == 2
    assert choose(found, 1.0).level == 1
    stopping = replace(made(4, 1.0, 1.0), early_exit=0.9)
    assert choose([*found, stopping], 0.0).level == 3  # early exit is no level
    with pytest.raises(BadInput, match="nothing to choose by"):
        choose([made(1), made(2)], 0.01)


def test_means_and_pooled_dice_by_hand():
    one = made(2, 0.5, 1.0, math.nan, volumes=(3.0, 1.0, 0.0))
    mean, sd = one.over_cases("dice")
    assert mean == 0.75
    assert sd == pytest.approx(0.5 / math.sqrt(2))
    assert one.pooled_dice == pytest.approx((0.5 * 6 + 1.0 * 2) / 8)
    facts = one.facts()
    assert facts["pooled_iou"] == pytest.approx(0.625 / 1.375)
    assert (facts["level"], facts["gflop"], facts["iou"]) == (2, 1.0, pytest.approx((1 / 3 + 1) / 2))


def test_pooled_dice_is_that_of_the_voxels_together(trained, measured):
    model, dataset = trained
    both = size = 0
    for case in measured[3].scores.cases:
        found, truth = model.predict(dataset[case]).labels.array, io.read_labels(dataset[case].label).array
        both += np.sum((found == 2) & (truth == 2))
        size += np.sum(found == 2) + np.sum(truth == 2)
    only = replace(measured[3], scores=measured[3].scores.select(structure="shell"))
    assert only.pooled_dice == pytest.approx(2 * both / size)


def test_the_table_as_csv(measured):
    rows = list(csv.DictReader(to_csv(measured).splitlines()))
    assert [row["level"] for row in rows] == ["1", "2", "3", "4", "4"]
    assert [row["early_exit"] for row in rows] == ["", "", "", "", "0.5"]
    assert float(rows[1]["dice"]) == pytest.approx(measured[1].over_cases("dice")[0], rel=1e-5)
    assert rows[0]["parameters"] == str(measured[0].parameters)


def test_the_plot_names_every_level(measured, tmp_path):
    draw_levels(measured, tmp_path / "t.svg", place="a slide rule", overwrite=False)
    text = (tmp_path / "t.svg").read_text()
    assert text.count('class="strong"') == 5
    assert 'class="disc s0 again"' in text  # early exit
    assert "a slide rule" in text
    draw_levels(measured[:4], tmp_path / "t.png", place="here", overwrite=False)
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadFile, match="exists already"):
        draw_levels(measured, tmp_path / "t.png", place="here", overwrite=False)
    with pytest.raises(BadFile, match="no name of a picture"):
        draw_levels(measured, tmp_path / "t.gif", place="here", overwrite=False)


def test_a_written_level_is_a_whole_model(trained, measured, tmp_path):
    model, dataset = trained
    write_level(model, 2, tmp_path / "small", scores=measured[1].scores, dataset=dataset)
    small = Model.load(tmp_path / "small")
    np.testing.assert_array_equal(
        small.predict(make.case(9)[0]).labels.array, measured[1].model.predict(make.case(9)[0]).labels.array
    )
    card = (tmp_path / "small" / "card.md").read_text()
    assert "- Pruned: level 2 of the 4 of made, not trained again" in card
    assert f"- Parameters: {measured[1].parameters:,}" in card
    assert "- Trained on: 4 cases, validated on 2" in card
    assert "| core | dice |" in card
    assert from_json((tmp_path / "small" / "scores.json").read_text()).rows == measured[1].scores.rows
    assert (tmp_path / "small" / "data.json").read_bytes() == (model.folder / "data.json").read_bytes()
    assert compare(small, dataset)[-1].scores.rows == measured[1].scores.rows  # what was held back stays held back


def test_unscored_models_say_so(trained, tmp_path):
    write_level(trained[0], 1, tmp_path / "small")
    assert "Not scored." in (tmp_path / "small" / "card.md").read_text()
    assert not (tmp_path / "small" / "scores.json").exists()


def test_test_cases_judge_what_the_others_chose(tmp_path):
    dataset = Dataset.open(make.dataset(tmp_path / "data", cases=3))
    recipe = make.recipe(
        net__name="anu-net", net__options={"preset": "tiny"}, train__steps=2, split={"sizes": [1, 1, 1]}
    )
    model = fit(recipe, dataset, tmp_path / "run")
    [_, validation, test] = dataset.parts(model.recipe.split)
    found = compare(model, dataset)
    assert found[0].scores.cases == [case.id for case in validation]
    write_level(model, 1, tmp_path / "small", scores=found[0].scores, dataset=dataset)
    written = from_json((tmp_path / "small" / "scores.json").read_text())
    assert written.cases == [case.id for case in test]
    assert [p.name for p in (tmp_path / "small" / "validation").iterdir()] == [f"{test.cases[0].id}.nii.gz"]


def test_nothing_is_lost_by_writing(trained, tmp_path):
    model, _ = trained
    with pytest.raises(BadInput, match="parts of which would be lost"):
        write_level(model, 1, model.folder, overwrite=True)
    write_level(model, 1, tmp_path / "small")
    with pytest.raises(BadFile, match="exists already"):
        write_level(model, 2, tmp_path / "small")
    write_level(model, 2, tmp_path / "small", overwrite=True)
    assert Model.load(tmp_path / "small").net.levels == 2


def test_the_place_of_measuring_is_told(trained):
    assert place(trained[0]) == "processor, 1 thread, 2 windows per pass"

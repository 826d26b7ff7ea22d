"""`attentus.score` on arrays, volumes, files and folders."""

from __future__ import annotations

import csv
import json
import math

import make
import numpy as np
import pytest

from attentus import io
from attentus.errors import BadInput, GridMismatch
from attentus.metrics import PRESETS, STANDARD, Rules, from_json, pooled, score, summarise, to_csv, to_json
from attentus.metrics.case import score_volumes
from attentus.metrics.summary import detections
from attentus.types import Grid, Score, Scores, Volume


@pytest.fixture
def labels():
    array = np.zeros((6, 20, 20), np.uint8)
    array[1:4, 3:9, 3:9] = 1
    array[2:4, 12:17, 10:18] = 2
    return array


def test_structures_are_scored_by_name(labels):
    prediction = labels.copy()
    prediction[prediction == 2] = 0
    prediction[1, 3:9, 3:9] = 0
    scores = score(
        prediction, labels, labels={"liver": 1, "tumour": 2, "both": (1, 2), "any": "any"}, spacing=(3, 1, 1)
    )
    assert scores.structures == ["liver", "tumour", "both", "any"]
    assert scores.value("case", "liver", "dice") == pytest.approx(0.8)
    assert scores.value("case", "liver", "reference_ml") == pytest.approx(0.324)
    assert scores.value("case", "tumour", "dice") == 0
    assert scores.value("case", "both", "dice") == pytest.approx(2 * 72 / (72 + 108 + 80))
    assert scores.value("case", "any", "dice") == scores.value("case", "both", "dice")
    assert len(scores) == 4 * len(STANDARD)
    assert scores.select(structure="tumour").rows[0].note == "empty_prediction"


def test_without_names_every_value_is_scored(labels):
    other = labels.copy()
    other[0, 0, 0] = 7
    scores = score(other, labels, spacing=(1, 1, 1))
    assert scores.structures == ["label 1", "label 2", "label 7"]
    assert scores.select(structure="label 7").rows[0].note == "empty_reference"


def test_cropping_changes_nothing(labels):
    from attentus.metrics import Pair

    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(labels.shape) > 0.95, 1, labels).astype(np.uint8)
    scores = score(noisy, labels, labels={"one": 1}, spacing=(2, 1, 1))
    whole = Pair(noisy == 1, labels == 1, (2, 1, 1))
    for metric in STANDARD:
        assert scores.value("case", "one", metric) == pytest.approx(whole.measure(metric))
    whole = Pair(noisy == 1, labels == 9, (2, 1, 1), Rules(empty="brats"))
    scores = score(noisy, labels, labels={"none": 9}, spacing=(2, 1, 1), rules=Rules(empty="brats"))
    assert scores.value("case", "none", "hd95_mm") == 0  # in neither: 9 occurs nowhere
    assert score(noisy * 9, labels, labels={"n": 9}, spacing=(2, 1, 1), rules=Rules(empty="brats")).value(
        "case", "n", "hd95_mm"
    ) == pytest.approx(math.sqrt(12**2 + 20**2 + 20**2))


def test_two_dimensions(labels):
    scores = score(labels[2], labels[2], spacing=(0.5, 0.5), labels={"liver": 1})
    assert scores.value("case", "liver", "dice") == 1


def test_files_in_different_orientations_are_compared_in_the_patient(tmp_path, labels):
    grid = Grid((6, 20, 20), (3.0, 1.0, 1.0))
    io.write(Volume(labels[None], grid), tmp_path / "a.nii.gz")
    turned = make.ORIENTATIONS[29]
    io.write(Volume(turned.apply(labels[None]), grid.reoriented(turned)), tmp_path / "b.nrrd")
    scores = score(tmp_path / "a.nii.gz", tmp_path / "b.nrrd")
    assert scores.cases == ["a"]
    assert all(row.value == 1 for row in scores.select(metric="dice"))


def test_different_grids_are_refused_with_both_printed(labels):
    here = Volume(labels[None], Grid((6, 20, 20), (3.0, 1.0, 1.0)))
    there = Volume(labels[None], Grid((6, 20, 20), (3.0, 1.0, 1.0), (0.0, 4.0, 0.0)))
    with pytest.raises(GridMismatch, match=r"reference and prediction lie on different grids(?s:.*)4\.00 mm apart"):
        score(here, there)


def test_spacing_of_pictures_can_be_given(tmp_path, labels):
    for name in ("p", "r"):
        for k, plane in enumerate(labels):
            io.write(Volume.from_array(plane[None, None]), tmp_path / name / f"s{k}.png")
    scores = score(
        io.read_labels(tmp_path / "p"), io.read_labels(tmp_path / "r"), spacing=(3, 1, 1), labels={"a": "any"}
    )
    assert scores.value("case", "a", "volume_ml") == pytest.approx(np.count_nonzero(labels) * 3 / 1000)


def test_a_folder_is_scored_to_the_end_and_failures_are_named(tmp_path, labels):
    grid = Grid((6, 20, 20), (3.0, 1.0, 1.0))
    for case in ("ok", "empty", "elsewhere", "corrupt", "missing"):
        io.write(Volume(labels[None], grid), tmp_path / "r" / f"{case}.nii.gz")
        io.write(Volume(labels[None], grid), tmp_path / "p" / f"{case}.nii.gz")
    io.write(Volume(0 * labels[None], grid), tmp_path / "p" / "empty.nii.gz", overwrite=True)
    moved = Grid(grid.shape, grid.spacing, (9.0, 0.0, 0.0))
    io.write(Volume(labels[None], moved), tmp_path / "p" / "elsewhere.nii.gz", overwrite=True)
    corrupt = tmp_path / "p" / "corrupt.nii.gz"
    corrupt.write_bytes(corrupt.read_bytes()[:60])
    (tmp_path / "p" / "missing.nii.gz").unlink()
    io.write(Volume(labels[None], grid), tmp_path / "p" / "extra.nrrd")
    scores = score(tmp_path / "p", tmp_path / "r", labels={"liver": 1})
    assert scores.cases == ["empty", "ok"]
    assert scores.value("empty", "liver", "dice") == 0
    assert set(scores.failures) == {"elsewhere", "corrupt", "missing", "extra"}
    assert "9.00 mm apart" in scores.failures["elsewhere"]
    assert "no prediction" in scores.failures["missing"]
    assert "no reference" in scores.failures["extra"]
    (count,) = detections(scores)
    assert (count.scored, count.missed, count.false_alarm, count.absent) == (1, 1, 0, 0)


def test_folders_without_a_common_case_are_refused(tmp_path, labels):
    io.write(Volume.from_array(labels), tmp_path / "p" / "a.nii.gz")
    io.write(Volume.from_array(labels), tmp_path / "r" / "b.nii.gz")
    with pytest.raises(BadInput, match="has a reference of the same name"):
        score(tmp_path / "p", tmp_path / "r")


def test_mistakes_are_explained(labels):
    with pytest.raises(BadInput, match="pass spacing"):
        score(labels, labels)
    with pytest.raises(BadInput, match="whole numbers"):
        score(labels.astype(float), labels, spacing=(1, 1, 1))


def rows(*values):
    return Scores(
        tuple(
            Score(f"c{k}", "liver", "hd95_mm", v, "mm", "" if math.isfinite(v) else "missed")
            for k, v in enumerate(values)
        ),
        {"empty": "default"},
        {"x": "broken"},
    )


def test_summary_counts_what_it_leaves_out():
    (summary,) = summarise(rows(1.0, 2.0, 6.0, math.inf, math.nan))
    assert (summary.n, summary.n_nan, summary.n_inf) == (3, 1, 1)
    assert summary.mean == 3
    assert summary.sd == pytest.approx(math.sqrt(7))  # ddof 1
    assert (summary.median, summary.minimum, summary.maximum) == (2, 1, 6)
    (alone,) = summarise(rows(1.0))
    assert math.isnan(alone.sd)
    (none,) = summarise(rows(math.inf))
    assert none.n == 0
    assert math.isnan(none.mean)


def test_json_holds_null_and_a_reason_and_comes_back():
    before = rows(1.5, math.inf, math.nan)
    text = to_json(before, prediction="p")
    stored = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert stored["rows"][1]["value"] is None
    assert stored["rows"][1]["note"] == "missed"
    assert stored["prediction"] == "p"
    after = from_json(text)
    assert after.rows[:2] == before.rows[:2]
    assert math.isnan(after.rows[2].value)
    assert after.failures == before.failures


def test_json_counts_names_and_pools(labels):
    """What the command line prints, Python gets as well."""
    grid = Grid((6, 20, 20), (3.0, 1.0, 1.0))
    truth = {"a": labels, "b": labels, "c": 0 * labels}
    found = {"a": labels, "b": 0 * labels, "c": labels}
    rows = [
        row
        for case in truth
        for row in score_volumes(
            case, Volume(found[case][None], grid), Volume(truth[case][None], grid), {"liver": 1}, PRESETS["default"]
        )
    ]
    before = Scores(tuple(rows), {}, {"d": "is empty\n  Copy it."})
    text = to_json(before)
    stored = json.loads(text)
    assert stored["cases"] == {"scored": 3, "failed": 1}
    assert (stored["missed"], stored["false_alarms"]) == ({"liver": ["b"]}, {"liver": ["c"]})
    whole = {number["metric"]: number["value"] for number in stored["pooled"]}
    assert whole["dice_global"] == pytest.approx(0.5)
    assert pooled(from_json(text)) == pooled(before)
    last = list(csv.DictReader(to_csv(before).splitlines()))[-1]
    assert (last["case"], last["dice"], last["note"]) == ("d", "", "failed: is empty Copy it.")


def test_lesions_that_were_missed_count_as_missed_beside_a_tumour_burden(labels):
    missed = np.where(labels == 2, 1, labels).astype(np.uint8)
    for preset in ("lits", "dpc-net"):
        counts = {d.structure: d for d in detections(score(missed, labels, spacing=(3, 1, 1), preset=preset))}
        assert (counts["lesion"].missed, counts["lesion"].scored, counts["liver"].scored) == (1, 0, 1)


def test_a_missed_lesion_has_no_9001_in_the_lits_preset(labels):
    """The scorer gives it to a missed liver; of lesions it averages those that were detected."""
    scores = score(np.where(labels == 2, 1, labels), labels, spacing=(3, 1, 1), preset="lits")
    assert math.isinf(scores.value("case", "lesion", "assd_mm"))
    assert math.isnan(scores.value("case", "lesion", "detected_lesion_assd_mm"))
    assert scores.value("case", "lesion", "dice") == 0
    assert scores.rules["empty"] == "lits"


def test_csv_has_one_line_per_case_and_structure(labels):
    scores = score(labels, labels, labels={"liver": 1, "spleen": 5}, spacing=(1, 1, 1))
    lines = list(csv.DictReader(to_csv(scores).splitlines()))
    assert [line["structure"] for line in lines] == ["liver", "spleen"]
    assert float(lines[0]["dice"]) == 1
    assert lines[1]["note"] == "both_empty"


def test_summaries_have_an_interval_of_the_mean():
    (summary,) = summarise(rows(1.0, 2.0, 6.0, 3.0, 2.0, math.inf))
    assert 1 < summary.low < summary.mean < summary.high < 6
    stored = json.loads(to_json(rows(1.0, 2.0, 6.0)))["summary"][0]
    assert stored["low"] < stored["mean"] < stored["high"]
    assert json.loads(to_json(rows(1.0)))["summary"][0]["low"] is None

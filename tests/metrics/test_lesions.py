"""Lesions found one by one: the golden cases of the evaluation specification, and what must always hold."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

import attentus as at
from attentus import metrics
from attentus.errors import BadInput
from attentus.metrics import PRESETS, Pair, Rules, pooled
from attentus.metrics.lesions import Lesions

SHAPE = (4, 24, 24)


def boxes(*ranges, shape=SHAPE):
    mask = np.zeros(shape, bool)
    for box in ranges:
        mask[tuple(slice(a, b) for a, b in box)] = True
    return mask


LOW, MIDDLE, FAR = [(1, 3), (1, 5), (1, 6)], [(1, 3), (10, 14), (1, 6)], [(1, 3), (18, 22), (18, 22)]
WHOLE, LEFT, RIGHT = [(1, 3), (1, 5), (1, 8)], [(1, 3), (1, 5), (1, 4)], [(1, 3), (1, 5), (5, 8)]
NOTHING = boxes()

GOLDEN = {
    "L1": (
        boxes([(1, 3), (1, 5), (2, 7)], [(1, 3), (10, 14), (3, 8)], [(1, 3), (1, 3), (18, 20)]),
        boxes(LOW, MIDDLE, FAR),
        (1, 2, 2),
        (1, 2, 2),
    ),
    "L2": (boxes([(1, 3), (1, 3), (1, 5)]), boxes([(1, 3), (1, 3), (1, 3)]), (0, 1, 1), (0, 1, 1)),
    "L3": (boxes([(0, 1), (0, 1), (0, 1)], [(1, 3), (10, 14), (3, 8)]), boxes(MIDDLE), (0, 2, 1), (0, 2, 1)),
    "L4 split": (boxes(LEFT, RIGHT), boxes(WHOLE), (0, 2, 1), (1, 1, 0)),
    "L5 merge": (boxes(WHOLE), boxes(LEFT, RIGHT), (0, 1, 2), (1, 0, 1)),
    "L6": (boxes(LOW), NOTHING, (0, 1, 0), (0, 1, 0)),
    "L7": (NOTHING, boxes(LOW), (0, 0, 1), (0, 0, 1)),
}


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("matching", ["one-to-one", "lits"])
def test_golden_counts(name, matching):
    prediction, reference, paired, merged = GOLDEN[name]
    found = Lesions.of(prediction, reference, matching).at(0.5)
    assert found[:3] == (merged if matching == "lits" else paired)


def test_the_lits_way_merges_what_one_lesion_bridges():
    """Two predictions on one lesion, one prediction on two lesions; then the same with a bad fit."""
    split = Pair(*GOLDEN["L4 split"][:2], (1, 1, 1), Rules(matching="lits"))
    assert split.measure("detected_lesion_iou") == pytest.approx(6 / 7)
    spoiled = boxes([(0, 4), (0, 12), (0, 20)])
    assert Lesions.of(spoiled, boxes(LEFT, RIGHT), "lits").at(0.5)[:3] == (-1, 2, 3)  # as the scorer subtracts


def test_touching_needs_no_overlap_of_half():
    prediction, reference, *_ = GOLDEN["L1"]
    assert Lesions.of(prediction, reference).at(0.0)[:3] == (2, 1, 1)


def test_detected_lesions_are_measured_alone():
    prediction, reference, *_ = GOLDEN["L1"]
    pair = Pair(prediction, reference, (1.0, 1.0, 1.0))
    alone = Pair(boxes([(1, 3), (1, 5), (2, 7)]), boxes(LOW), (1.0, 1.0, 1.0))
    for metric in ("dice", "iou", "voe", "rvd", "assd_mm", "rmsd_mm", "msd_mm"):
        assert pair.measure(f"detected_lesion_{metric}") == pytest.approx(alone.measure(metric)), metric
    assert math.isnan(Pair(NOTHING, reference, (1, 1, 1)).measure("detected_lesion_dice"))


masks = st.shared(array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=8), key="shape").flatmap(
    lambda shape: arrays(bool, shape, elements=st.booleans())
)


@given(masks, masks)
def test_counts_do_not_depend_on_the_order_of_components(prediction, reference):
    here, mirrored = (Lesions.of(prediction[turn], reference[turn]).at(0.5) for turn in (np.s_[:], np.s_[::-1]))
    assert here[:3] == mirrored[:3]


@given(masks, masks, st.sampled_from([0.0, 0.5, 0.8]))
def test_each_lesion_is_counted_once(prediction, reference, overlap):
    lesions = Lesions.of(prediction, reference)
    found = lesions.at(overlap)
    assert found.true_positive + found.false_positive == lesions.prediction.max(initial=0)
    assert found.true_positive + found.false_negative == lesions.reference.max(initial=0)
    swapped = Lesions.of(reference, prediction).at(overlap)
    assert (found.true_positive, found.false_positive) == (swapped.true_positive, swapped.false_negative)


def labels(lesion, liver=None):
    """Liver everywhere, lesions in it."""
    volume = np.ones(lesion.shape, np.uint8) if liver is None else liver.astype(np.uint8)
    volume[lesion] = 2
    return volume


def test_lits_pools_lesions_over_all_cases():
    from attentus.types import Scores

    rows = []
    for name in ("L1", "L3", "L6", "L7"):
        prediction, reference, *_ = GOLDEN[name]
        rows += at.score(labels(prediction), labels(reference), spacing=(1, 1, 1), preset="lits").rows
    numbers = {(row.structure, row.metric): row.value for row in pooled(Scores(tuple(rows), {}))}
    assert numbers["lesion", "lesion_precision_pooled"] == pytest.approx(1 / 6)
    assert numbers["lesion", "lesion_recall_pooled"] == pytest.approx(1 / 5)
    assert numbers["lesion", "lesion_f1_pooled"] == pytest.approx(2 / 11)
    assert numbers["lesion", "detected_lesion_iou_pooled"] == pytest.approx(2 / 3)


def test_global_dice_is_a_ratio_of_sums():
    """Golden A of the specification."""
    from attentus.types import Scores

    def line(*values):
        return np.array(values, np.uint8)[None, None]

    cases = {
        "a": (np.r_[np.ones(10), np.zeros(190)], np.r_[np.zeros(5), np.ones(10), np.zeros(185)]),
        "b": (np.r_[np.ones(100), np.zeros(100)], np.r_[np.zeros(28), np.ones(80), np.zeros(92)]),
        "c": (np.zeros(200), np.zeros(200)),
    }
    for empty, per_case in (("default", 2.3 / 3), ("nnunet", 0.65)):
        rows = []
        for prediction, reference in cases.values():
            rows += at.score(
                line(*prediction), line(*reference), spacing=(1, 1, 1), labels={"it": 1}, rules=Rules(empty=empty)
            ).rows
        scores = Scores(tuple(rows), {})
        assert scores.mean("dice") == pytest.approx(per_case)
        numbers = {row.metric: row.value for row in pooled(scores)}
        assert numbers["dice_global"] == pytest.approx(0.77)
        assert numbers["precision_global"] == pytest.approx(77 / 110)
        assert numbers["recall_global"] == pytest.approx(77 / 90)


def test_tumour_burden():
    """Golden burdens 0.10, 0.20, 0 against 0.12, 0.15, 0.08."""
    from attentus.types import Scores

    rows = []
    for truth, guess in ((10, 12), (20, 15), (0, 8)):
        sides = [np.r_[np.full(n, 2), np.ones(100 - n)].astype(np.uint8)[None, None] for n in (guess, truth)]
        rows += at.score(*sides, spacing=(1, 1, 1), preset="lits").rows
    numbers = {row.metric: row.value for row in pooled(Scores(tuple(rows), {})) if row.structure == "lesion"}
    assert numbers["burden_rmse"] == pytest.approx(0.0556776436, abs=1e-10)
    assert numbers["burden_max_error"] == pytest.approx(0.08)


def test_a_liver_that_is_all_lesion_is_missed_by_the_lits_rule():
    truth, all_lesion = labels(boxes(LOW)), np.full(SHAPE, 2, np.uint8)
    scores = at.score(all_lesion, truth, spacing=(1, 1, 1), preset="lits")
    got = {row.metric: row.value for row in scores.select(structure="liver")}
    assert (got["dice"], got["voe"], got["rvd"], got["assd_mm"], got["msd_mm"]) == (0, 1, 9001, 9001, 9001)
    nothing = at.score(np.zeros(SHAPE, np.uint8), truth, spacing=(1, 1, 1), preset="lits")
    assert nothing.value("case", "lesion", "burden") == 9001


@pytest.mark.parametrize(
    ("preset", "tumour_core", "enhancing", "whole"),
    [
        ("brats", (1, 4), (4,), (1, 2, 4)),
        ("brats-2023", (1, 3), (3,), (1, 2, 3)),
        ("brats-msd", (2, 3), (3,), (1, 2, 3)),
        ("msconvlstm-att", (2, 3), (3,), (1, 2, 3)),
    ],
)
def test_brats_regions_follow_the_numbering_of_the_release(preset, tumour_core, enhancing, whole):
    rng = np.random.default_rng(0)
    prediction, reference = (rng.choice([0, *whole], (6, 7, 8)).astype(np.uint8) for _ in range(2))
    scores = at.score(prediction, reference, spacing=(1, 1, 1), preset=preset)
    for region, values in {"WT": whole, "TC": tumour_core, "ET": enhancing}.items():
        expected = metrics.dice(np.isin(prediction, values), np.isin(reference, values))
        assert scores.value("case", region, "dice") == expected


def test_labels_of_another_numbering_are_refused():
    rng = np.random.default_rng(0)
    prediction, reference = (rng.choice([0, 1, 2, 4], (6, 7, 8)).astype(np.uint8) for _ in range(2))
    with pytest.raises(BadInput, match="value 3"):
        at.score(np.where(prediction == 4, 3, prediction), reference, spacing=(1, 1, 1), preset="brats")


def test_lesionwise_scores_of_brats_2023():
    """One lesion well found, one missed, one too small to count, one invented."""
    shape = (20, 40, 40)
    good, shifted = [(2, 8), (2, 8), (2, 8)], [(2, 8), (2, 8), (3, 9)]
    missed, small = [(10, 16), (20, 26), (20, 26)], [(2, 4), (30, 32), (30, 32)]
    invented = [(14, 17), (2, 6), (30, 34)]
    truth, guess = boxes(good, missed, small, shape=shape), boxes(shifted, invented, shape=shape)
    pair = Pair(guess, truth, (1.0, 1.0, 1.0), Rules(empty="brats-2023"))
    dice = metrics.dice(boxes(shifted, shape=shape), boxes(good, shape=shape))
    hd95 = metrics.hd95(boxes(shifted, shape=shape), boxes(good, shape=shape), (1, 1, 1))
    assert pair.measure("lesionwise_dice") == pytest.approx(dice / 3)
    assert pair.measure("lesionwise_hd95_mm") == pytest.approx((hd95 + 2 * 374) / 3)


def test_lesionwise_merges_lesions_that_are_close():
    shape = (12, 12, 30)
    halves = boxes([(2, 8), (2, 8), (2, 8)], [(2, 8), (2, 8), (12, 18)], shape=shape)
    half = boxes([(2, 8), (2, 8), (2, 8)], shape=shape)
    apart, joined = (Pair(half, halves, (1.0, 1.0, 1.0), Rules(merge=merge)) for merge in (1, 3))
    assert apart.measure("lesionwise_dice") == pytest.approx(0.5)
    assert joined.measure("lesionwise_dice") == pytest.approx(2 / 3)
    empty = np.zeros(shape, bool)
    nothing = Pair(empty, empty, (1.0, 1.0, 1.0))
    assert (nothing.measure("lesionwise_dice"), nothing.measure("lesionwise_hd95_mm")) == (1, 0)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_measures(name):
    rng = np.random.default_rng(1)
    how = PRESETS[name]
    values = [0, 1] if not how.labels else [0, 1, 2] if "ET" not in how.labels else [0, *np.ravel(how.labels["WT"])]
    if how.labels and "any" in how.labels.values():
        values = [0, 63]
    sides = [rng.choice(values, (8, 10, 12)).astype(np.uint8) for _ in range(2)]
    scores = at.score(*sides, spacing=(2, 1, 1), preset=name)
    for structure in scores.structures:
        measured = {row.metric for row in scores.select(structure=structure)}
        assert measured >= set(how.metrics_of(structure))
    assert not how.organ or {"burden", "reference_burden"} <= {row.metric for row in scores}

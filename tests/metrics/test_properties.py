"""What holds for every pair of masks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from attentus import metrics
from attentus.errors import BadInput
from attentus.metrics import METRICS, Pair, Rules

VOXELWISE = ("assd_mm", "masd_mm", "rmsd_mm", "hd_mm", "msd_mm", "hd95_mm")
LOCAL = [*(m for m in METRICS if m != "s2s_mm" and not m.startswith("lesionwise")), "nsd@1mm", "nsd@2.5mm"]
"""Metrics that work in 2D too and have no length of their own in their definition, but for the tolerance of nsd."""
SYMMETRIC = ("dice", "iou", "slice_dice", "slice_iou", "lesion_f1", "nsd@1mm", *VOXELWISE)


@st.composite
def pairs(draw, filled=True):
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=6))
    masks = [draw(arrays(bool, shape)) for _ in range(2)]
    spacing = tuple(draw(st.floats(0.3, 4)) for _ in shape)
    if filled:
        assume(masks[0].any() and masks[1].any())
    return Pair(*masks, spacing)


few = settings(max_examples=40)
"""Where every example measures everything."""


def near(a, b):
    return a == pytest.approx(b, rel=1e-9, abs=1e-12, nan_ok=True)


@few
@given(pairs())
def test_swapping_sides(pair):
    swapped = Pair(pair.reference, pair.prediction, pair.spacing)
    for metric in SYMMETRIC:
        assert near(pair.measure(metric), swapped.measure(metric)), metric
    assert near(pair.measure("precision"), swapped.measure("recall"))


@few
@given(pairs())
def test_the_truth_is_perfect(pair):
    same = Pair(pair.reference, pair.reference, pair.spacing)
    for metric, how in ((m, METRICS[m]) for m in METRICS if m != "s2s_mm"):
        if how.better and (metric != "specificity" or not pair.reference.all()):
            assert same.measure(metric) == (1 if how.better == "higher" else 0), metric


@few
@given(pairs(), st.floats(0.1, 10))
def test_distances_scale_with_spacing_and_overlaps_do_not(pair, factor):
    scaled = Pair(pair.prediction, pair.reference, tuple(s * factor for s in pair.spacing))
    for metric in LOCAL:
        expected = pair.measure(metric) * (factor if metric.endswith("_mm") else 1)
        if not metric.endswith("_ml") and not metric.startswith("nsd"):
            assert near(scaled.measure(metric), expected), metric


@few
@given(pairs(), st.integers(1, 3))
def test_padding_changes_specificity_only(pair, width):
    padded = Pair(np.pad(pair.prediction, width), np.pad(pair.reference, width), pair.spacing)
    for metric in LOCAL:
        if metric != "specificity":
            assert near(pair.measure(metric), padded.measure(metric)), metric


@few
@given(pairs())
def test_order_of_distances(pair):
    value = {metric: pair.measure(metric) for metric in VOXELWISE}
    slack = 1e-9
    assert value["assd_mm"] <= value["rmsd_mm"] + slack
    assert value["rmsd_mm"] <= value["hd_mm"] + slack
    assert value["hd95_mm"] <= value["hd_mm"] + slack


@given(pairs())
def test_identities_of_overlap(pair):
    dice, iou = pair.measure("dice"), pair.measure("iou")
    assert near(dice, 2 * iou / (1 + iou))
    assert near(pair.measure("voe"), 1 - iou)
    assert near(pair.measure("ravd"), abs(pair.measure("rvd")))


@few
@given(pairs(), st.sampled_from(["background", "foreground"]), st.integers(1, 3))
def test_distances_equal_the_brute_force(pair, border, connectivity):
    from scipy.ndimage import binary_erosion, generate_binary_structure
    from scipy.spatial.distance import cdist

    element = generate_binary_structure(pair.reference.ndim, min(connectivity, pair.reference.ndim))
    points = []
    for mask in (pair.prediction, pair.reference):
        shell = mask & ~binary_erosion(mask, element, border_value=border == "foreground")
        points.append(np.argwhere(shell) * pair.spacing)
    assume(len(points[0]) and len(points[1]))
    table = cdist(*points)
    there, back = table.min(1), table.min(0)
    expected = {
        "assd_mm": np.r_[there, back].mean(),
        "masd_mm": (there.mean() + back.mean()) / 2,
        "hd_mm": max(there.max(), back.max()),
        "hd95_mm": max(np.percentile(there, 95), np.percentile(back, 95)),
    }
    measured = Pair(pair.prediction, pair.reference, pair.spacing, Rules(border=border, connectivity=connectivity))
    for metric, value in expected.items():
        assert near(measured.measure(metric), value), metric


EMPTY, FULL = np.zeros((3, 4, 5), bool), np.zeros((3, 4, 5), bool)
FULL[1, 1:3, 2] = True
NAN, INF = math.nan, math.inf
DIAGONAL = math.sqrt((3 * 2.0) ** 2 + 4**2 + 5**2)


RIGHT = {
    "dice": 1,
    "iou": 1,
    "voe": 0,
    "precision": 1,
    "recall": 1,
    "specificity": 1,
    "rvd": 0,
    "ravd": 0,
    "volume_ml": 0,
    "nsd@1mm": 1,
    "slice_dice": 1,
    "lesion_recall": 1,
}
FAR = dict.fromkeys((*VOXELWISE, "s2s_mm"), INF)
WRONG = {"dice": 0, "iou": 0, "voe": 1, "nsd@1mm": 0, "slice_dice": 0}
ODD = dict.fromkeys(("rvd", "ravd", *FAR), 9001)


@pytest.mark.parametrize(
    ("policy", "prediction", "reference", "expected"),
    [
        ("default", EMPTY, EMPTY, {**RIGHT, **dict.fromkeys(FAR, 0)}),
        ("default", EMPTY, FULL, {**WRONG, **FAR, "precision": 0, "recall": 0, "rvd": -1, "ravd": 1}),
        ("default", FULL, EMPTY, {**WRONG, **FAR, "precision": 0, "recall": NAN, "rvd": NAN, "ravd": NAN}),
        ("nnunet", EMPTY, EMPTY, {"dice": NAN, "iou": NAN, "voe": NAN}),
        ("nnunet", EMPTY, FULL, WRONG),
        ("nnunet", FULL, EMPTY, WRONG),
        ("lits", EMPTY, EMPTY, {**RIGHT, **dict.fromkeys(FAR, 0)}),
        ("lits", EMPTY, FULL, {**WRONG, **ODD}),
        ("brats-2023", FULL, EMPTY, {**WRONG, "hd95_mm": 374, "lesionwise_dice": 0}),
        ("brats", EMPTY, EMPTY, {"dice": 1, "hd95_mm": 0}),
        ("brats", EMPTY, FULL, {"dice": 0, "hd95_mm": DIAGONAL}),
        ("brats", FULL, EMPTY, {"dice": 0, "hd95_mm": DIAGONAL}),
    ],
)
def test_empty_masks_follow_the_policy(policy, prediction, reference, expected):
    pair = Pair(prediction, reference, (2.0, 1.0, 1.0), Rules(empty=policy))
    for metric, value in expected.items():
        assert near(pair.measure(metric), value), metric


def test_the_brats_penalty_is_the_diagonal_of_the_usual_grid():
    empty, full = np.zeros((155, 240, 240), bool), np.zeros((155, 240, 240), bool)
    full[80, 80, 80] = True
    assert metrics.hd95(empty, full, (1, 1, 1), empty="brats") == pytest.approx(373.1286641, abs=1e-7)


@few
@given(pairs(filled=False), st.sampled_from(["default", "nnunet", "lits", "brats", "brats-2023"]))
def test_nothing_ever_raises_on_empty_masks(pair, policy):
    measured = Pair(pair.prediction, pair.reference, pair.spacing, Rules(empty=policy))
    assert all(isinstance(measured.measure(metric), float) for metric in METRICS if metric != "s2s_mm")


def test_functions_agree_with_the_table():
    rng = np.random.default_rng(0)
    masks = [rng.random((6, 7, 8)) > 0.6 for _ in range(2)]
    pair = Pair(*masks, (3.0, 1.0, 0.5))
    for name in ("dice", "iou", "voe", "precision", "recall", "specificity", "rvd", "ravd"):
        assert near(getattr(metrics, name)(*masks), pair.measure(name))
    for name in ("assd", "masd", "rmsd", "hd", "hd95"):
        assert near(getattr(metrics, name)(*masks, (3.0, 1.0, 0.5)), pair.measure(f"{name}_mm"))
    pooled = metrics.hd95(*masks, (3.0, 1.0, 0.5), mode="pooled")
    assert near(pooled, Pair(*masks, (3.0, 1.0, 0.5), Rules(hd95="pooled")).measure("hd95_mm"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.dice(np.zeros((2, 2)), np.zeros((2, 2), bool)), "prediction must be a boolean mask"),
        (lambda: metrics.dice(np.zeros((2, 2), bool), np.zeros((2, 3), bool)), r"shape \(2, 2\)"),
        (lambda: metrics.dice(np.zeros(3, bool), np.zeros(3, bool)), "two or three axes"),
        (lambda: metrics.assd(FULL, FULL, (1, 1)), "one number per axis"),
        (lambda: Rules(empty="brat"), "Did you mean 'brats'"),
        (lambda: Pair(FULL, FULL, (1, 1, 1)).measure("dise"), "Did you mean 'dice'"),
    ],
)
def test_mistakes_are_explained(call, message):
    with pytest.raises((BadInput, LookupError), match=message):
        call()

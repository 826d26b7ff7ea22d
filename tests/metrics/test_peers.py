"""The same numbers as MedPy, MONAI, SimpleITK and DeepMind's surface-distance, where they share a definition."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attentus import metrics
from attentus.metrics import Pair, Rules

SPACINGS = st.tuples(*[st.sampled_from([0.5, 1.0, 1.25, 3.0])] * 3)


def peer(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip(name, reason=f"{name} is not installed")


def blobs(seed, dims=3):
    """Two smooth masks that overlap, neither empty."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(seed)
    shape = (9, 17, 14)[3 - dims :]
    base, first, second = (gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(3))
    masks = base + 0.4 * first > 0.02, base + 0.4 * second > 0.02
    for mask in masks:
        mask[(0,) * dims] = True
    return masks


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), SPACINGS, st.sampled_from([2, 3]), st.sampled_from([1, 2]))
def test_medpy(seed, spacing, dims, connectivity):
    binary = peer("medpy.metric.binary")
    prediction, reference = blobs(seed, dims)
    spacing = spacing[3 - dims :]
    ours = Pair(prediction, reference, spacing, Rules(connectivity=connectivity, hd95="pooled"))
    how = {"voxelspacing": spacing, "connectivity": connectivity}
    expected = {
        "dice": binary.dc(prediction, reference),
        "iou": binary.jc(prediction, reference),
        "precision": binary.precision(prediction, reference),
        "recall": binary.recall(prediction, reference),
        "specificity": binary.specificity(prediction, reference),
        "assd_mm": binary.assd(prediction, reference, **how),
        "hd_mm": binary.hd(prediction, reference, **how),
        "hd95_mm": binary.hd95(prediction, reference, **how),
    }
    for metric, value in expected.items():
        assert ours.measure(metric) == pytest.approx(value, abs=1e-6), metric


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), SPACINGS, st.sampled_from([2, 3]))
def test_monai(seed, spacing, dims):
    monai = peer("monai.metrics")
    import torch

    prediction, reference = blobs(seed, dims)
    spacing = spacing[3 - dims :]
    ours = Pair(prediction, reference, spacing)
    one, two = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference))
    how = {"include_background": True, "spacing": list(spacing)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "dice": monai.compute_dice(one, two),
            "iou": monai.compute_iou(one, two),
            "assd_mm": monai.compute_average_surface_distance(one, two, symmetric=True, **how),
            "hd_mm": monai.compute_hausdorff_distance(one, two, **how),
            "hd95_mm": monai.compute_hausdorff_distance(one, two, percentile=95, **how),
            "nsd@1.1mm": monai.compute_surface_dice(one, two, class_thresholds=[1.1], **how),
        }
    for metric, value in expected.items():
        slack = 3e-5 if metric == "hd95_mm" else 1e-6  # its percentile interpolates in single precision
        assert ours.measure(metric) == pytest.approx(float(value), rel=slack, abs=1e-6), metric


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), SPACINGS)
def test_simpleitk(seed, spacing):
    """Its Hausdorff distance is that of whole objects; the farthest voxel is the same. Its average distance is not."""
    sitk = peer("SimpleITK")
    prediction, reference = blobs(seed)
    images = [sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (prediction, reference)]
    for image in images:
        image.SetSpacing(spacing[::-1])
    overlap, far = sitk.LabelOverlapMeasuresImageFilter(), sitk.HausdorffDistanceImageFilter()
    overlap.Execute(images[1], images[0])
    far.Execute(*images)
    assert metrics.dice(prediction, reference) == pytest.approx(overlap.GetDiceCoefficient(1), abs=1e-12)
    assert metrics.hd(prediction, reference, spacing) == pytest.approx(far.GetHausdorffDistance(), abs=1e-6)


def test_medpy_turned_its_volume_difference_round():
    """What the LiTS scorer calls gives -0.20 with the MedPy it was written for, and +0.25 since MedPy 0.3."""
    binary = peer("medpy.metric.binary")
    prediction, reference = np.arange(100) < 48, np.arange(100) < 60
    assert binary.ravd(reference, prediction) == pytest.approx(0.25)
    assert metrics.rvd(prediction[None], reference[None]) == pytest.approx(-0.20)


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1))
def test_deepmind(seed):
    """Only Dice: its surfaces lie between voxels and are weighed by area."""
    surface_distance = peer("surface_distance")
    prediction, reference = blobs(seed)
    assert metrics.dice(prediction, reference) == pytest.approx(
        surface_distance.compute_dice_coefficient(reference, prediction), abs=1e-12
    )


def test_deepmind_differs_where_the_docs_say_so():
    """Golden G2: the directed means of its area-weighted surfaces, and its robust HD95."""
    surface_distance = peer("surface_distance")
    prediction, reference = np.zeros((6, 8, 8), bool), np.zeros((6, 8, 8), bool)
    prediction[1:4, 2:6, 2:6], reference[2:5, 2:6, 1:6] = True, True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = surface_distance.compute_surface_distances(reference, prediction, (2.5, 0.8, 0.8))
    assert surface_distance.compute_robust_hausdorff(found, 95) == pytest.approx(2.5)
    means = surface_distance.compute_average_surface_distance(found)
    assert sorted(means) == pytest.approx([0.6314949386, 0.7167160409], abs=1e-9)
    assert metrics.assd(prediction, reference, (2.5, 0.8, 0.8)) == pytest.approx(1.0704033041, abs=1e-9)

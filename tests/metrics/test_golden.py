"""The golden values of the evaluation specification, worked out by brute force and confirmed by other libraries."""

from __future__ import annotations

import math

import make
import numpy as np
import pytest

from attentus import metrics
from attentus.metrics import Pair, Rules


def box(shape, *ranges):
    mask = np.zeros(shape, bool)
    for ranges_of_one in ranges:
        mask[tuple(slice(a, b) for a, b in ranges_of_one)] = True
    return mask


G1 = (box((5, 6), [(1, 4), (2, 5)]), box((5, 6), [(1, 4), (1, 4)]))
G2 = (box((6, 8, 8), [(1, 4), (2, 6), (2, 6)]), box((6, 8, 8), [(2, 5), (2, 6), (1, 6)]))
G3 = (
    box((7, 7, 7), [(1, 6), (1, 6), (1, 6)]),
    box((7, 7, 7), [(1, 6), (1, 6), (1, 4)], [(1, 6), (1, 4), (1, 6)]),
)
G4 = (box((1, 30), [(0, 1), (0, 21)]), box((1, 30), [(0, 1), (0, 20)]))
G5 = (box((10, 10, 10), [(2, 7)] * 3, [(9, 10)] * 3), box((10, 10, 10), [(2, 7)] * 3))


def check(pair, spacing, expected, **rules):
    measured = Pair(*pair, spacing, Rules(**rules))
    for metric, value in expected.items():
        assert measured.measure(metric) == pytest.approx(value, abs=1e-9), metric
    return measured


def test_g1_two_dimensions():
    expected = {
        "dice": 2 / 3,
        "iou": 0.5,
        "precision": 2 / 3,
        "recall": 2 / 3,
        "specificity": 0.8571428571428571,
        "rvd": 0,
    }
    measured = check(G1, (1, 1), {**expected, "assd_mm": 0.5, "rmsd_mm": 0.7071067811865476, "hd_mm": 1, "hd95_mm": 1})
    counts = measured.overlap
    assert (counts.both, counts.only_prediction, counts.only_reference, counts.neither) == (6, 3, 3, 18)
    assert (len(measured.distances.from_prediction), len(measured.distances.from_reference)) == (8, 8)


def test_g2_anisotropic():
    measured = check(
        G2,
        (2.5, 0.8, 0.8),
        {
            "dice": 0.5925925925925926,
            "iou": 0.42105263157894735,
            "voe": 0.5789473684210527,
            "precision": 2 / 3,
            "recall": 0.5333333333333333,
            "specificity": 0.9506172839506173,
            "rvd": -0.2,
            "assd_mm": 1.0704033040792,
            "masd_mm": 1.0655679812637,
            "rmsd_mm": 1.5619192797948,
            "hd_mm": math.hypot(2.5, 0.8),
            "hd95_mm": 2.6248809496813,
            "volume_ml": 48 * 1.6 / 1000,
            "reference_ml": 60 * 1.6 / 1000,
            "ravd": 0.2,
        },
    )
    check(G2, (2.5, 0.8, 0.8), {"hd95_mm": 2.5}, hd95="pooled")
    assert measured.distances.from_prediction.sum() == pytest.approx(44.8)
    assert measured.distances.from_reference.sum() == pytest.approx(60.0995237987, abs=1e-9)


def test_g3_connectivity_matters():
    common = {
        "dice": 0.9130434782608695,
        "iou": 0.84,
        "rvd": 0.19047619047619047,
        "recall": 1,
        "hd_mm": 2,
        "hd95_mm": 2,
    }
    faces = {"assd_mm": 0.1837837837838, "masd_mm": 0.1779849870983, "rmsd_mm": 0.5501842442551}
    edges = {"assd_mm": 0.2021276595745, "rmsd_mm": 0.5742710458042}
    six = check(G3, (1, 1, 2), {**common, **faces})
    eighteen = check(G3, (1, 1, 2), {**common, **edges}, connectivity=2)
    assert [len(d) for d in (six.distances.from_prediction, six.distances.from_reference)] == [98, 87]
    assert [len(d) for d in (eighteen.distances.from_prediction, eighteen.distances.from_reference)] == [98, 90]


def test_g4_a_line():
    check(G4, (1, 1), {"dice": 0.975609756097561, "assd_mm": 1 / 41, "hd_mm": 1, "hd95_mm": 0})
    check(G4, (1, 1), {"hd95_mm": 0}, hd95="pooled")


def test_g5_one_stray_voxel():
    expected = {"dice": 0.9960159362549801, "rvd": 0.008, "assd_mm": 0.0263764081839, "rmsd_mm": 0.370210531417}
    check(G5, (1, 1, 1), {**expected, "hd_mm": 3 * math.sqrt(3), "hd95_mm": 0})


@pytest.mark.parametrize("voxel", [0.1, 0.3, 0.7, 0.8])
@pytest.mark.parametrize("steps", [1, 3])
def test_a_tolerance_of_whole_voxels_is_met_by_them(voxel, steps):
    """3 x 0.1 is not 0.3 to a computer."""
    prediction, reference = (box((4, 4, 40), [(1, 3), (1, 3), (k, k + 17)]) for k in (3, 3 + steps))
    assert metrics.nsd(prediction, reference, (voxel,) * 3, tolerance=round(steps * voxel, 1)) == 1
    assert metrics.nsd(prediction, reference, (voxel,) * 3, tolerance=0.99 * steps * voxel) < 1


def test_rvd_has_the_reference_below_the_line():
    assert metrics.rvd(box((60, 1), [(0, 48), (0, 1)]), box((60, 1), [(0, 60), (0, 1)])) == pytest.approx(-0.2)


@pytest.mark.parametrize(
    ("rules", "assd"),
    [({"border": "foreground"}, 0.7341), ({"border": "background"}, 0.7129)],
    ids=["chaos", "default"],
)
def test_chaos_sample_reproduces_its_published_figures(rules, assd):
    from attentus import io

    folder = make.real_data("chaos-ct-liver", "CT_SET_3")
    masks = [io.read_labels(folder / name).array[0] > 0 for name in ("Segmentation", "Ground")]
    pair = Pair(*masks, (2.0, 0.7265625, 0.7265625), Rules(**rules))
    assert pair.measure("dice") == pytest.approx(0.97843, abs=5e-6)
    assert pair.measure("ravd") == pytest.approx(0.0066453, abs=5e-8)
    assert pair.measure("assd_mm") == pytest.approx(assd, abs=5e-5)
    if rules["border"] == "foreground":
        assert pair.measure("hd_mm") == pytest.approx(14.0, abs=5e-2)

"""Scores of maps by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from attentus.metrics.attention import Target, score_map


def line(values):
    return np.array(values, np.float32).reshape(1, 1, -1)


def test_by_hand():
    mask = line([0, 1, 1, 0, 0, 0, 0, 0]).astype(bool)
    target = Target(mask, (1.0, 1.0, 2.0), near_mm=2.0)
    assert target.near.ravel().tolist() == [True, True, True, True, False, False, False, False]
    found = score_map(line([0.0, 0.5, 1.0, 0.25, 0.25, 0.0, 0.0, 0.0]), {"thing": target})
    assert found["mean"] == 0.25
    assert (found["lowest"], found["highest"]) == (0.0, 1.0)
    shares = [0.25, 0.5, 0.125, 0.125]
    assert found["entropy"] == pytest.approx(-sum(p * math.log(p) for p in shares) / math.log(8))
    scores = found["targets"]["thing"]
    assert scores["mass_inside"] == pytest.approx(0.75)
    assert scores["mass_near"] == pytest.approx(0.875)
    assert scores["expected"] == 0.25
    assert scores["pointing"] == 1
    assert scores["best_dice"] == 1
    assert 0.25 < scores["threshold"] <= 0.5


def test_the_highest_voxels_may_be_several_and_outside():
    target = Target(line([1, 1, 0, 0]).astype(bool), (1.0, 1.0, 1.0), near_mm=0.0)
    assert score_map(line([1, 0.5, 1, 1]), {"t": target})["targets"]["t"]["pointing"] == pytest.approx(1 / 3)
    assert score_map(line([0.1, 0.5, 1, 0]), {"t": target})["targets"]["t"]["pointing"] == 0
    assert (target.near == target.mask).all()


def test_even_and_empty_maps():
    target = Target(line([1, 0, 0, 0]).astype(bool), (1.0, 1.0, 1.0), near_mm=1.0)
    even = score_map(line([0.5] * 4), {"t": target})
    assert even["entropy"] == pytest.approx(1)
    assert even["sd"] == pytest.approx(0)
    assert even["targets"]["t"]["mass_inside"] == even["targets"]["t"]["expected"] == 0.25
    assert even["targets"]["t"]["best_dice"] == pytest.approx(2 / 5)  # everything is above any threshold
    nothing = score_map(line([0.0] * 4), {"t": target})
    assert math.isnan(nothing["entropy"])
    assert math.isnan(nothing["targets"]["t"]["mass_inside"])
    one = score_map(line([0, 0, 3, 0]), {})
    assert one["entropy"] == 0


def test_distances_are_in_millimetres_in_every_direction():
    mask = np.zeros((9, 9, 9), bool)
    mask[4, 4, 4] = True
    target = Target(mask, (5.0, 2.0, 1.0), near_mm=4.0)
    z, y, x = np.nonzero(target.near)
    assert (z.min(), z.max()) == (4, 4)
    assert (y.min(), y.max()) == (2, 6)
    assert (x.min(), x.max()) == (0, 8)

"""Longest diameters: those of the mesh that marching cubes draw, of one part at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import pdist

from attentus.infer import extent
from attentus.infer.extent import extents, longest_diameter
from attentus.metrics.components import label
from attentus.types import Prediction, Volume


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_diameter_of_the_mesh(seed):
    measure = pytest.importorskip("skimage.measure", reason="needs attentus[mesh]")
    rng = np.random.default_rng(seed)
    spacing = rng.uniform(0.5, 3, 3)
    mask = gaussian_filter(rng.normal(size=(12, 14, 13)), 1.5) > 0.05
    parts = label(mask)
    longest = 0.0
    for number in range(1, 1 + parts.max()):
        padded = np.pad(parts == number, 1).astype(float)
        corners, *_ = measure.marching_cubes(padded, 0.5, spacing=tuple(spacing))
        longest = max(longest, pdist(corners).max())
    assert longest_diameter(mask, spacing) == pytest.approx(longest, rel=1e-5)


@given(st.integers(0, 2**27 - 1), st.tuples(*[st.floats(0.3, 5)] * 3))
def test_it_is_the_farthest_of_all_pairs(bits, spacing):
    mask = np.array([bits >> k & 1 for k in range(27)], bool).reshape(3, 3, 3)
    found = longest_diameter(mask, spacing)
    if not bits:
        assert found is None
        return
    parts, surface = label(mask), np.concatenate([np.diag(spacing), -np.diag(spacing)]) / 2
    clouds = [np.argwhere(parts == n) * spacing for n in range(1, 1 + parts.max())]
    farthest = max(pdist((cloud[:, None] + surface).reshape(-1, 3)).max() for cloud in clouds)
    assert found == pytest.approx(farthest)


def test_a_ball_a_voxel_a_slice():
    z, y, x = np.ogrid[-20:21, -20:21, -20:21]
    assert longest_diameter(z**2 + y**2 + x**2 <= 15**2, (1, 1, 1)) == pytest.approx(31, abs=0.5)
    voxel = np.zeros((3, 3, 3), bool)
    voxel[1, 1, 1] = True
    assert longest_diameter(voxel, (5, 1, 2)) == pytest.approx(5)
    assert longest_diameter(voxel[1:2], (5, 1, 2)) == pytest.approx(2)  # a scan of one slice has no depth


def test_parts_are_measured_one_by_one():
    mask = np.zeros((1, 1, 30), bool)
    mask[..., [0, 1, 2, 20, 21, 22, 23]] = True
    assert longest_diameter(mask, (1, 1, 1)) == pytest.approx(4)


def test_the_largest_box_need_not_hold_the_longest_part_and_dust_is_not_measured(monkeypatch):
    mask = np.zeros((1, 40, 80), bool)
    mask[0, 10, :21] = mask[0, :21, 10] = True  # a cross: 21 long, 30 from corner to corner of its box
    mask[0, 30, 2:26] = True
    mask[0, ::4, 40::4] = True
    measure, looks = extent._diameter, []
    monkeypatch.setattr(extent, "_diameter", lambda *what: looks.append(what) or measure(*what))
    assert longest_diameter(mask, (1, 1, 1)) == pytest.approx(24)
    assert len(looks) == 2


def test_regions_count_with_what_lies_in_them():
    labels = np.zeros((1, 2, 3, 10), np.uint8)
    labels[0, 0, 0] = [0, 1, 1, 2, 2, 2, 1, 0, 0, 0]
    found = Prediction(
        Volume.from_array(labels, (1, 1, 2)), {"whole": 1, "core": 2, "none": 3}, parts={"whole": (1, 2)}
    )
    sizes = extents(found)
    assert (sizes["whole"].volume_ml, sizes["whole"].longest_mm) == pytest.approx((0.012, 12))
    assert (sizes["core"].volume_ml, sizes["core"].longest_mm) == pytest.approx((0.006, 6))
    assert (sizes["none"].volume_ml, sizes["none"].longest_mm) == (0.0, None)

"""Contours become masks: holes, keyholes, planes between slices, skipped slices, oblique grids, a real one."""

from __future__ import annotations

import make
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attentus import io
from attentus.errors import BadFile
from attentus.io.dicom import read_series
from attentus.io.rtstruct import Structure, enclosed, rasterise, read_structures
from attentus.types import Grid

GRID = Grid((9, 12, 10), (3.0, 1.0, 1.2), (-5.0, 4.0, 30.0))


def structure(*contours):
    return Structure(1, "x", tuple(contours), ())


def box(*planes, where=GRID, edges=(2, 8, 3, 7)):
    return structure(*(make.outline(where, k, edges) for k in planes))


@given(st.lists(st.tuples(st.integers(-3, 14), st.integers(-3, 12)), min_size=3, max_size=9))
def test_a_polygon_encloses_what_matplotlib_says(corners):
    from matplotlib.path import Path

    points = np.array(corners, float) + 0.13  # no corner and no edge on a pixel's centre, where matplotlib is undecided
    points += np.arange(len(points))[:, None] * [0.0171, 0.0093]
    inside = enclosed([points], (12, 10))
    y, x = np.indices((12, 10))
    expected = Path([*points, points[0]], closed=True).contains_points(np.stack([y.ravel(), x.ravel()], 1))
    assert np.array_equal(inside.ravel(), expected)


@given(st.floats(0, 9), st.floats(0.1, 9))
def test_neighbours_share_no_pixel_and_leave_none(cut, height):
    left = np.array([[0, 0], [height, 0], [height, cut], [0, cut]])
    right = np.array([[0, cut], [height, cut], [height, 9], [0, 9]])
    both = np.array([[0, 0], [height, 0], [height, 9], [0, 9]])
    a, b = enclosed([left], (10, 10)), enclosed([right], (10, 10))
    assert not (a & b).any()
    assert np.array_equal(a | b, enclosed([both], (10, 10)))


def test_every_grid_gets_the_drawn_box():
    for axes in make.ORIENTATIONS[::7]:
        where = make.grid(axes, oblique=5, shape=(7, 12, 10))
        mask = rasterise(box(2, 3, 4, where=where, edges=(1, 5, 2, 6)), where)
        expected = np.zeros(where.shape, bool)
        expected[2:5, 1:5, 2:6] = True
        assert np.array_equal(mask, expected)


def test_holes_inner_contours_and_keyholes_are_the_same():
    hole = rasterise(structure(make.outline(GRID, 4, (1, 9, 1, 9)), make.outline(GRID, 4, (3, 6, 3, 6))), GRID)
    outer, inner = make.outline(GRID, 4, (1, 9, 1, 9)), make.outline(GRID, 4, (3, 6, 3, 6))
    keyhole = np.concatenate([outer, outer[:1], inner, inner[:1]])
    assert hole[4].sum() == 64 - 9
    assert np.array_equal(rasterise(structure(keyhole), GRID), hole)


def test_planes_between_slices_go_to_the_nearest():
    assert np.flatnonzero(rasterise(box(2.3, 3.3, 4.3), GRID).any((1, 2))).tolist() == [2, 3, 4]
    assert np.flatnonzero(rasterise(box(2.5, 3.5), GRID).any((1, 2))).tolist() in ([2, 3], [3, 4])
    dense = rasterise(box(*np.arange(2, 5, 0.25)), GRID)
    assert np.flatnonzero(dense.any((1, 2))).tolist() == [2, 3, 4, 5]


def test_skipped_slices_are_filled_and_gaps_are_not():
    assert np.flatnonzero(rasterise(box(1, 3, 5), GRID).any((1, 2))).tolist() == [0, 1, 2, 3, 4, 5]
    assert np.flatnonzero(rasterise(box(1, 2, 6, 7), GRID).any((1, 2))).tolist() == [1, 2, 6, 7]
    assert np.flatnonzero(rasterise(box(1, 8), GRID).any((1, 2))).tolist() == [1, 8]
    assert not rasterise(box(30, 31), GRID).any()
    assert not rasterise(structure(), GRID).any()


def test_contours_across_the_slices_are_refused():
    tilted = make.outline(GRID, 3, (2, 8, 3, 7))
    tilted[0, 2] += 4
    with pytest.raises(ValueError, match="not parallel to the slices"):
        rasterise(structure(tilted), GRID)


def test_what_cannot_be_filled_is_left_out_and_told(tmp_path):
    files = make.dicom_series(tmp_path / "ct", make.marked(GRID)[0])
    square = make.outline(GRID, 3, (2, 8, 3, 7))
    path = make.rtstruct(tmp_path / "rs", files[0], {"a": [square, square, square[:2]], "b": [square]})
    first, second = read_structures(path)
    assert (first.name, len(first.contours)) == ("a", 1)
    assert first.ignored == ("1 × copy of an outline", "1 × outline of fewer than 3 points")
    assert rasterise(first, GRID).sum() == rasterise(second, GRID).sum() == 24
    assert [s.name for s in read_structures(path, ["b"])] == ["b"]
    with pytest.raises(BadFile, match="is no RTSTRUCT"):
        read_structures(files[0])


@pytest.mark.parametrize("modality", ["CT", "MR_T1", "PET"])
def test_real_contours_give_the_published_mask(modality):
    folder = make.real_data("sarcoma-ct-mr-pet", "dicom", "STS_008", modality)
    truth = io.read_labels(make.real_data("sarcoma-ct-mr-pet", "dicom-truth", "STS_008", f"{modality}_mask.nii.gz"))
    scan = read_series(folder / "image")
    truth.grid.require_match(scan.grid, modality)
    (drawn,) = read_structures(folder / "mask" / "RS.dcm")
    mask, wanted = rasterise(drawn, scan.grid), truth.array[0] > 0
    assert 2 * (mask & wanted).sum() / (mask.sum() + wanted.sum()) >= 0.98  # 1.0 when this was written

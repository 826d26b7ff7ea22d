from __future__ import annotations

import make
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attentus.errors import BadInput, GridMismatch
from attentus.types import LPS, AxisMap, Case, Grid, Score, Scores, Volume

orientations = st.sampled_from(make.ORIENTATIONS)
oblique = st.one_of(st.none(), st.integers(0, 10_000))


@given(orientations, oblique)
def test_reorienting_moves_no_voxel(axes, seed):
    before, position = make.marked(make.grid(axes, oblique=seed))
    after = before.canonical()
    np.testing.assert_allclose(make.marker_position(after), position, atol=1e-9)


@given(orientations, oblique)
def test_the_canonical_orientation_is_nearest_to_superior_posterior_left(axes, seed):
    _, canonical = make.grid(axes, oblique=seed).canonical()
    assert canonical.orientation == "SPL"
    assert make.grid(axes).canonical()[1].direction == LPS


@given(orientations, oblique)
def test_the_way_back_is_exact(axes, seed):
    before, _ = make.marked(make.grid(axes, oblique=seed))
    back = before.canonical().as_stored()
    assert back.grid == before.grid
    np.testing.assert_array_equal(back.array, before.array)


@given(orientations)
def test_an_axis_map_and_its_inverse_cancel(axes):
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(axes.inverse.apply(axes.apply(array)), array)
    np.testing.assert_array_equal(axes.apply(axes.inverse.apply(array)), array)


def test_volume_moved_to_another_grid_is_not_sent_back():
    volume, _ = make.marked(make.grid(make.ORIENTATIONS[13]))
    canonical = volume.canonical()
    moved = Volume(canonical.array[:, 1:], canonical.grid.cropped((1, 0, 0), canonical.grid.shape), canonical.source)
    assert moved.as_stored() is moved


@given(orientations, oblique, st.integers(0, 99))
def test_world_and_index_are_inverse(axes, seed, k):
    grid = make.grid(axes, oblique=seed)
    index = np.random.default_rng(k).uniform(-3, 9, size=(4, 3))
    np.testing.assert_allclose(grid.index(grid.world(index)), index, atol=1e-9)


def test_world_by_hand():
    # Coronal stack: array z runs to the back, y to the feet, x to the left.
    grid = Grid((3, 4, 5), (3.0, 2.0, 1.0), (10.0, 20.0, 30.0), ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0), (1.0, 0.0, 0.0)))
    np.testing.assert_allclose(grid.world((1, 2, 3)), (13.0, 23.0, 26.0))
    assert grid.orientation == "PIL"
    assert grid.voxel_ml == pytest.approx(0.006)
    axes, canonical = grid.canonical()
    assert axes == AxisMap((1, 0, 2), (True, False, False))
    assert canonical == Grid((4, 3, 5), (2.0, 3.0, 1.0), (10.0, 20.0, 24.0))


def test_resampling_keeps_the_field_of_view():
    grid = make.grid(oblique=3, shape=(10, 20, 31))
    new = grid.resampled((1.0, 1.6, 0.7))
    assert new.shape == (25, 10, 31)
    np.testing.assert_allclose(new.size_mm, grid.size_mm)
    corner = np.array([-0.5, -0.5, -0.5])
    np.testing.assert_allclose(new.world(corner), grid.world(corner), atol=1e-9)
    np.testing.assert_allclose(new.world(corner + new.shape), grid.world(corner + grid.shape), atol=1e-9)


def test_cropping_and_padding_leave_voxels_in_place():
    grid = make.grid(make.ORIENTATIONS[30], oblique=1)
    padded = grid.cropped((-2, 0, 1), (5, 4, 9))
    assert padded.shape == (7, 4, 8)
    np.testing.assert_allclose(padded.world((2, 0, 0)), grid.world((0, 0, 1)))


def test_match_tolerates_rounding_and_names_both_grids_otherwise():
    grid = make.grid()
    near = Grid(grid.shape, grid.spacing, tuple(o + 0.01 for o in grid.origin), grid.direction)
    far = Grid(grid.shape, grid.spacing, (grid.origin[0] + 5, *grid.origin[1:]), grid.direction)
    grid.require_match(near, "case a")
    with pytest.raises(
        GridMismatch, match=r"case a: image and labels lie on different grids(?s:.*)5 × 6 × 7(?s:.*)5\.00 mm apart"
    ):
        grid.require_match(far, "case a")
    with pytest.raises(GridMismatch, match="shapes differ"):
        grid.require_match(make.grid(shape=(5, 6, 8)), "case a")
    assert not make.grid(shape=(1, 6, 7)).matches(make.grid(shape=(1, 6, 7), spacing=(9.0, 0.8, 0.7)))


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([1.0, 1.0, 0.0, 1.0]), "not a usable matrix"),
        (np.diag([1.0, np.nan, 1.0, 1.0]), "not a usable matrix"),
        (np.array([[0, 0, 1, 0], [0, 1, 0.02, 0], [1, 0, 0, 0], [0, 0, 0, 1.0]]), r"sheared .*1\.1"),
    ],
)
def test_unusable_geometry_is_refused(affine, message):
    with pytest.raises(BadInput, match=message):
        Grid.from_affine((2, 2, 2), affine)


def test_affine_round_trip():
    grid = make.grid(make.ORIENTATIONS[7], oblique=11)
    again = Grid.from_affine(grid.shape, grid.affine)
    assert grid.distance_mm(again) < 1e-9


def test_a_volume_checks_its_shape():
    with pytest.raises(BadInput, match=r"array\[None\]"):
        Volume(np.zeros((2, 3, 4)), Grid((2, 3, 4), (1.0, 1.0, 1.0)))
    with pytest.raises(BadInput, match="grid says"):
        Volume(np.zeros((1, 2, 3, 4)), Grid((2, 3, 5), (1.0, 1.0, 1.0)))
    assert Volume.from_array(np.zeros((2, 3, 4)), (3, 1, 1)).grid.size_mm == (6.0, 3.0, 4.0)


def test_a_case_belongs_to_itself_unless_told():
    assert Case("a", ()).subject == "a"
    assert Case("a", (), subject="b").subject == "b"


def test_scores_select_and_average_only_what_is_finite():
    scores = Scores(
        (
            Score("a", "liver", "dice", 0.8, ""),
            Score("b", "liver", "dice", float("nan"), "", "both_empty"),
            Score("a", "spleen", "dice", 0.4, ""),
            Score("a", "liver", "hd95_mm", float("inf"), "mm", "empty_prediction"),
        ),
        {"empty": "nnunet"},
    )
    assert scores.cases == ["a", "b"]
    assert scores.structures == ["liver", "spleen"]
    assert scores.mean("dice", "liver") == 0.8
    assert scores.mean("dice") == pytest.approx(0.6)
    assert np.isnan(scores.mean("hd95_mm"))
    assert scores.value("a", "spleen", "dice") == 0.4
    with pytest.raises(BadInput, match="No score of metric 'iou'"):
        scores.value("a", "liver", "iou")

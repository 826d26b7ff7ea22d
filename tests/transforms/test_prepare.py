from __future__ import annotations

import make
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attentus.errors import BadInput
from attentus.recipes import Intensity, Prepare
from attentus.transforms import prepare as module
from attentus.transforms.prepare import Preparation, prepare, prepare_labels, scale_intensity
from attentus.types import Volume


def blob(grid, seed=0):
    """A smooth ellipsoid of 100 in noise around 10, and its mask, on a canonical grid."""
    rng = np.random.default_rng(seed)
    place = grid.world(np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), -1))
    middle = grid.world((np.array(grid.shape) - 1) / 2)
    mask = (((place - middle) / (np.array(grid.size_mm) * 0.35)[::-1]) ** 2).sum(-1) < 1
    return Volume((10 + rng.normal(size=mask.shape) + 90 * mask)[None].astype(np.float32), grid), mask


def logits_of(labels, classes):
    return np.stack([(labels == k) * 10.0 for k in range(classes)]).astype(np.float32)


@given(st.sampled_from(make.ORIENTATIONS), st.integers(0, 99))
def test_labels_come_back_where_they_were(axes, seed):
    volume, mask = blob(make.grid(shape=(10, 24, 22), spacing=(3.0, 1.0, 1.1)), seed)
    turned = Volume(axes.apply(volume.array), volume.grid.reoriented(axes))
    prepared = prepare(turned, Prepare(spacing=(1.5, 1.5, 1.5), crop_above=50.0))
    assert prepared.scan.matches(volume.grid)
    labels = prepare_labels(mask.astype(np.uint8), prepared)
    assert labels.shape == prepared.array.shape[1:] == prepared.grid.shape
    back = prepared.restore_labels(logits_of(labels, 2))
    overlap = 2 * (back & mask).sum() / (back.sum() + mask.sum())
    assert overlap > 0.9


def test_without_resampling_the_way_back_is_exact():
    volume, mask = blob(make.grid(shape=(10, 24, 22)))
    prepared = prepare(volume, Prepare(crop_above=50.0))
    assert prepared.grid.shape < volume.grid.shape
    labels = prepare_labels(mask.astype(np.uint8), prepared)
    np.testing.assert_array_equal(prepared.restore_labels(logits_of(labels, 2)), mask)


def test_a_voxel_keeps_its_place_through_crop_and_resampling():
    volume, position = make.marked(make.grid(make.ORIENTATIONS[19], oblique=4, shape=(20, 24, 22)))
    prepared = prepare(volume, Prepare(spacing=(1.2, 0.8, 0.7), crop_above=500.0))
    assert prepared.grid.shape == (2, 1, 1)  # one voxel of 2.5 mm became two
    np.testing.assert_allclose(prepared.grid.world((0.5, 0, 0)), position, atol=1e-6)


@given(
    st.tuples(*[st.sampled_from([0.6, 1.0, 1.7])] * 3),
    st.sampled_from([1, 3]),
    st.lists(st.tuples(st.integers(0, 99), st.integers(1, 50)), min_size=1, max_size=6),
)
def test_rows_have_the_same_bits_in_any_order(spacing, order, asked):
    volume, _ = blob(make.grid(shape=(90, 8, 9), spacing=(1.0, 1.0, 1.0)))
    how = Prepare(spacing=spacing, order=order)
    whole, scan = prepare(volume, how).array, Preparation.of(volume, how)
    for wanted, count in asked:
        first = min(wanted, scan.grid.shape[0] - 1)
        last = min(first + count, scan.grid.shape[0])
        np.testing.assert_array_equal(scan.rows(first, last), whole[:, first:last])


def test_no_slice_is_scaled_twice_on_the_way_through_a_scan(monkeypatch):
    volume, _ = blob(make.grid(shape=(130, 12, 10), spacing=(1.0, 1.0, 1.0)))
    scan, right, scaled = Preparation.of(volume, Prepare(spacing=(1.3, 2.0, 2.0), order=3)), module.Scale.__call__, []
    monkeypatch.setattr(module.Scale, "__call__", lambda *a: (scaled.append(1), right(*a))[1])
    for first in range(0, 100, 32):
        scan.rows(first, min(first + 32, 100))
    assert len(scaled) == 130


def test_slabs_do_not_change_the_result(monkeypatch):
    volume, _ = blob(make.grid(shape=(17, 24, 22)))
    prepared = prepare(volume, Prepare(spacing=(4.0, 1.0, 1.0)))
    logits = np.random.default_rng(0).normal(size=(4, *prepared.grid.shape)).astype(np.float32)
    whole = [f(logits) for f in (prepared.restore_labels, prepared.restore_probabilities, prepared.restore_maps)]
    monkeypatch.setattr(module, "SLAB_VOXELS", 5000)
    parts = [f(logits) for f in (prepared.restore_labels, prepared.restore_probabilities, prepared.restore_maps)]
    for a, b in zip(whole, parts, strict=True):
        np.testing.assert_array_equal(a, b)
    assert set(np.unique(whole[0])) == {0, 1, 2, 3}


def test_probabilities_sum_to_one_and_outside_is_background():
    volume, mask = blob(make.grid(shape=(10, 24, 22)))
    prepared = prepare(volume, Prepare(spacing=(2.0, 1.0, 1.0), crop_above=50.0))
    logits = np.random.default_rng(0).normal(size=(3, *prepared.grid.shape)).astype(np.float32)
    probabilities = prepared.restore_probabilities(logits)
    assert probabilities.shape == (3, *volume.grid.shape)
    np.testing.assert_allclose(probabilities.sum(0, dtype=np.float32), 1, atol=2e-3)
    assert probabilities[0, 0, 0, 0] == 1
    np.testing.assert_array_equal(probabilities.argmax(0)[mask], prepared.restore_labels(logits)[mask])


def test_intensity_by_hand():
    channel = np.array([[[-500.0, 0.0, 100.0, 900.0]]], np.float32)
    window = scale_intensity(channel, Intensity(window=(-100, 300), normalise="range"))
    np.testing.assert_allclose(window.ravel(), [0, 0.25, 0.5, 1])
    z = scale_intensity(channel, Intensity(window=(-100, 300), normalise="zscore")).ravel()
    clipped = np.array([-100, 0, 100, 300.0])
    np.testing.assert_allclose(z, (clipped - 75) / clipped.std(), rtol=1e-6)
    none = scale_intensity(channel, Intensity(normalise="none"))
    np.testing.assert_array_equal(none, channel)
    inside = scale_intensity(channel, Intensity(normalise="zscore-nonzero")).ravel()
    values = np.array([-500, 100, 900.0])
    np.testing.assert_allclose(
        inside, [(-500 - values.mean()) / values.std(), 0, *(values[1:] - values.mean()) / values.std()], rtol=1e-5
    )
    percentiles = scale_intensity(
        np.arange(101, dtype=np.float32).reshape(1, 1, -1), Intensity(percentiles=(10, 90), normalise="none")
    )
    assert (percentiles.min(), percentiles.max()) == (10, 90)


def test_channels_are_scaled_on_their_own():
    array = np.stack([np.full((3, 4, 5), 7.0), np.arange(60.0).reshape(3, 4, 5)]).astype(np.float32)
    how = Prepare(intensity=(Intensity(normalise="none"), Intensity(normalise="range")))
    prepared = prepare(Volume(array, make.grid(shape=(3, 4, 5))), how).array
    np.testing.assert_array_equal(prepared[0], 7)
    assert (prepared[1].min(), prepared[1].max()) == (0, 1)
    with pytest.raises(BadInput, match=r"1 channel.*expects 2"):
        prepare(Volume(array[:1], make.grid(shape=(3, 4, 5))), how)


@pytest.mark.parametrize("kind", ["zscore", "zscore-nonzero", "range"])
def test_constant_images_stay_finite(kind):
    volume = Volume(np.full((1, 3, 4, 5), 5.0, np.float32), make.grid(shape=(3, 4, 5)))
    assert np.isfinite(prepare(volume, Prepare(intensity=(Intensity(normalise=kind),))).array).all()


def test_nothing_above_the_threshold_keeps_everything():
    volume = Volume(np.zeros((1, 3, 4, 5), np.float32), make.grid(shape=(3, 4, 5)))
    assert prepare(volume, Prepare(crop_above=1.0)).grid.shape == (3, 4, 5)


def body_on_a_table(spacing=(5.0, 1.1, 0.9), noise=30.0):
    """A body 40 to 170 mm down and 60 to 200 mm across in air, on the thin shell of a wide table; its box in voxels."""
    shape = (12, 240, 300)
    y, x = (np.arange(n) * mm for n, mm in zip(shape[1:], spacing[1:], strict=True))
    array = np.full(shape, -1000.0)
    array[:, (y >= 195) & (y < 198)] = -200  # the shell, 3 mm
    array[(slice(2, 9), *np.ix_((y >= 40) & (y < 170), (x >= 60) & (x < 200)))] = 40
    array += np.random.default_rng(0).normal(0, noise, shape)
    array[6, 10, 10] = 3000  # metal, one voxel
    box = [
        (2, 9),
        *(
            (int(np.flatnonzero(i)[0]), int(np.flatnonzero(i)[-1]) + 1)
            for i in ((y >= 40) & (y < 170), (x >= 60) & (x < 200))
        ),
    ]
    return Volume.from_array(array.astype(np.float32)[None], spacing), box


def test_a_crop_by_blocks_holds_the_body_and_not_the_table():
    scan, box = body_on_a_table()
    exact = prepare(scan, Prepare(crop_above=-500))
    assert (exact.start[1], exact.start[2], exact.stop[2]) == (10, 0, 300), "table and metal count voxel by voxel"
    found = prepare(scan, Prepare(crop_above=-500, crop_block=10))
    for (first, last), start, stop, mm in zip(box, found.start, found.stop, scan.grid.spacing, strict=True):
        margins = ((first - start) * mm, (stop - last) * mm)
        assert min(margins) >= 0, "the body lies within"
        assert max(margins) <= 21, "with two blocks of air at most"


@given(st.floats(0.3, 40), st.integers(0, 99))
def test_blocks_of_any_size_keep_what_is_large(block, seed):
    rng = np.random.default_rng(seed)
    shape, spacing = (9, 21, 17), (3.0, 0.8, 1.1)
    array = np.full((2, *shape), -1000.0, np.float32)
    first = [int(rng.integers(0, n - 2)) for n in shape]
    last = [int(rng.integers(a + 1, n + 1)) for a, n in zip(first, shape, strict=True)]
    array[(1, *(slice(a, b) for a, b in zip(first, last, strict=True)))] = 10_000_000  # however few voxels of a block
    found = prepare(Volume(array, make.grid(shape=shape, spacing=spacing)), Prepare(crop_above=-500, crop_block=block))
    assert all(a <= b for a, b in zip(found.start, first, strict=True))
    assert all(a >= b for a, b in zip(found.stop, last, strict=True))


def test_nan_is_refused():
    array = np.zeros((1, 3, 4, 5), np.float32)
    array[0, 1, 2, 3] = np.nan
    with pytest.raises(BadInput, match="1 voxels are not finite"):
        prepare(Volume(array, make.grid(shape=(3, 4, 5))), Prepare())


def test_an_axis_may_be_kept():
    volume, _ = make.marked(make.grid(shape=(10, 20, 21)))
    grid = prepare(volume, Prepare(spacing=(None, 1.6, 1.4))).grid
    assert grid.shape == (10, 10, 10)
    assert grid.spacing[0] == 2.5


def test_median_must_be_resolved_first():
    volume, _ = make.marked(make.grid())
    with pytest.raises(BadInput, match="only a dataset can turn into numbers"):
        prepare(volume, Prepare(spacing="median"))


def test_a_size_in_voxels_whatever_the_spacing_becomes():
    volume, mask = blob(make.grid(shape=(10, 24, 22), spacing=(3.0, 1.0, 1.1)))
    prepared = prepare(volume, Prepare(size=(None, 12, 44)))
    assert prepared.array.shape == (1, 10, 12, 44)
    assert prepared.grid.spacing == pytest.approx((3.0, 2.0, 0.55))
    back = prepared.restore_labels(logits_of(prepare_labels(mask.astype(np.uint8), prepared), 2))
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.9


@given(
    st.integers(0, 20),
    st.integers(1, 20),
    st.tuples(*[st.one_of(st.none(), st.integers(1, 40))] * 3),
    st.integers(0, 9),
)
def test_a_crop_of_given_size_lies_about_the_box_and_within_the_scan(first, length, wanted, seed):
    array = np.zeros((1, 24, 30, 28), np.float32)
    box = [(min(first + seed * axis % 5, n - 1), n) for axis, n in enumerate(array.shape[1:])]
    box = [(a, min(a + length, n)) for a, n in box]
    array[(0, *(slice(a, b) for a, b in box))] = 9.0
    prepared = prepare(Volume.from_array(array, (1.0, 1.0, 1.0)), Prepare(crop_above=5.0, crop_size=wanted))
    for axis, size in enumerate(wanted):
        (a, b), n = box[axis], array.shape[axis + 1]
        start, stop = prepared.start[axis], prepared.stop[axis]
        assert 0 <= start < stop <= n
        assert stop - start == (b - a if size is None else min(size, n))
        if size is None or (size < n and 0 <= (a + b - size) // 2 <= n - size):
            assert abs((start + stop) - (a + b)) <= 1  # same middle


def test_given_moments_take_the_place_of_the_scans_own():
    values = np.array([[[-100.0, 0.0, 50.0, 300.0]]], np.float32)
    how = Intensity(window=(0.0, 100.0), normalise="zscore", moments=(25.0, 50.0))
    np.testing.assert_allclose(scale_intensity(values, how).ravel(), [-0.5, -0.5, 0.5, 1.5])


def test_regions_are_painted_in_order_and_have_a_sigmoid_each():
    volume, _ = blob(make.grid(shape=(4, 6, 5)))
    prepared = prepare(volume, Prepare())
    logits = np.full((2, 4, 6, 5), -2.0, np.float32)
    logits[0, 1:3] = 3.0  # the outer region
    logits[1, 2:4] = 0.5  # the inner one reaches beyond it
    labels = prepared.restore_labels(logits, regions=True)
    assert [int(plane.max()) for plane in labels] == [int(plane.min()) for plane in labels] == [0, 1, 2, 2]
    probabilities = prepared.restore_probabilities(logits, regions=True)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-logits)), rtol=2e-3)

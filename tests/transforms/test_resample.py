from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates

from attentus.transforms.resample import axis_matrix, resample, resample_labels
from attentus.types import Grid

sizes = st.tuples(*[st.integers(1, 9)] * 3)


def places(old, new):
    """Old index of each new voxel centre, axis by axis."""
    axes = [(np.arange(n) + 0.5) * o / n - 0.5 for o, n in zip(old, new, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


@pytest.mark.parametrize("order", [1, 3])
@given(sizes, sizes, st.integers(0, 99))
def test_equals_direct_interpolation_at_the_new_voxel_centres(order, old, new, seed):
    array = np.random.default_rng(seed).normal(size=(2, *old)).astype(np.float32)
    found = resample(array, new, order=order)
    expected = [map_coordinates(c.astype(float), places(old, new), order=order, mode="nearest") for c in array]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@given(sizes, sizes)
def test_labels_take_the_voxel_whose_extent_holds_the_centre(old, new):
    labels = np.arange(np.prod(old), dtype=np.uint16).reshape(old)
    z, y, x = ((np.floor(p + 0.5)).astype(int).clip(0, n - 1) for p, n in zip(places(old, new), old, strict=True))
    np.testing.assert_array_equal(resample_labels(labels, new), labels[z, y, x])


def test_agrees_with_simpleitk_in_the_patient():
    array = np.random.default_rng(0).normal(size=(1, 12, 20, 17)).astype(np.float32)
    grid = Grid((12, 20, 17), (2.5, 0.8, 0.7), (1.0, 2.0, 3.0))
    new = grid.resampled((1.5, 1.5, 1.1))
    image = sitk.GetImageFromArray(array[0])
    image.SetSpacing(grid.spacing[::-1])
    image.SetOrigin(grid.origin)
    like = sitk.Image(new.shape[::-1], sitk.sitkFloat32)
    like.SetSpacing(new.spacing[::-1])
    like.SetOrigin(new.origin)
    expected = sitk.GetArrayFromImage(sitk.Resample(image, like, sitk.Transform(), sitk.sitkLinear, 0.0))
    inner = (slice(1, -1),) * 3  # SimpleITK has nothing to say beyond the outermost voxel centres
    np.testing.assert_allclose(resample(array, new.shape)[0][inner], expected[inner], atol=1e-5)


def test_anti_aliasing_blurs_only_axes_that_get_coarser():
    array = np.zeros((1, 9, 9, 9), np.float32)
    array[0, 4, 4, 4] = 1
    plain, blurred = resample(array, (9, 5, 18)), resample(array, (9, 5, 18), anti_alias=1.0)
    assert blurred[0, 3].max() == 0  # z kept: no leak into other slices
    assert blurred[0, 4, 2].max() < plain[0, 4, 2].max()
    assert blurred[0, 4, 1].max() > plain[0, 4, 1].max()
    np.testing.assert_allclose(axis_matrix(9, 5, 1, 1.0).sum(1), 1, atol=1e-6)


def test_same_shape_is_untouched():
    array = np.random.default_rng(0).normal(size=(1, 4, 5, 6)).astype(np.float32)
    np.testing.assert_array_equal(resample(array, (4, 5, 6), order=3, anti_alias=2.0), array)

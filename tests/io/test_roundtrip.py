"""Every format in every orientation, judged by where a marker lies in the patient."""

from __future__ import annotations

import tempfile
from pathlib import Path

import make
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from attentus import io
from attentus.types import Volume

ENDINGS = [".nii", ".nii.gz", ".nrrd", ".mha"]
OBLIQUE = [None, 5, 17]


@pytest.fixture(params=range(48), ids=lambda k: make.grid(make.ORIENTATIONS[k]).orientation)
def axes(request):
    return make.ORIENTATIONS[request.param]


def check(path: Path, volume: Volume, position: np.ndarray, atol: float = 1e-4) -> None:
    """What is read back is canonical, shows the marker in its place, and returns to the stored grid."""
    read = io.read(path)
    assert read.grid.orientation == "SPL"
    assert read.array.dtype == np.float32
    assert read.array.max() == 1000
    np.testing.assert_allclose(make.marker_position(read), position, atol=atol)
    stored = read.as_stored()
    np.testing.assert_allclose(make.marker_position(stored), position, atol=atol)
    assert sorted(stored.grid.spacing) == pytest.approx(sorted(volume.grid.spacing), abs=1e-5)
    assert np.sort(stored.array.ravel()).tolist() == np.sort(volume.array.ravel()).tolist()


def test_own_files_in_all_48_orientations_plus_oblique(axes, tmp_path):
    for oblique in OBLIQUE:
        volume, position = make.marked(make.grid(axes, oblique=oblique))
        for ending in ENDINGS:
            path = tmp_path / f"scan{oblique}{ending}"
            io.write(volume, path)
            check(path, volume, position)
            assert io.read(path).as_stored().grid.matches(volume.grid)
            np.testing.assert_array_equal(io.read(path).as_stored().array, volume.array)


def test_dicom_series_in_all_48_orientations_plus_oblique(axes, tmp_path):
    for oblique in OBLIQUE:
        volume, position = make.marked(make.grid(axes, oblique=oblique))
        folder = tmp_path / str(oblique)
        make.dicom_series(folder, volume)
        check(folder, volume, position)
        check(make.enhanced_dicom(tmp_path / f"{oblique}.dcm", volume), volume, position)


def test_peers_see_our_marker_where_we_put_it(axes, tmp_path):
    volume, position = make.marked(make.grid(axes, oblique=9))
    io.write(volume, tmp_path / "scan.nii.gz")
    nifti = nib.load(tmp_path / "scan.nii.gz")
    index = np.unravel_index(np.asarray(nifti.dataobj).argmax(), nifti.shape)
    np.testing.assert_allclose((nifti.affine @ (*index, 1))[:3] * (-1, -1, 1), position, atol=1e-4)
    for ending in (".nii.gz", ".nrrd", ".mha"):
        io.write(volume, tmp_path / f"scan{ending}", overwrite=True)
        image = sitk.ReadImage(str(tmp_path / f"scan{ending}"))
        z, y, x = np.unravel_index(sitk.GetArrayFromImage(image).argmax(), image.GetSize()[::-1])
        point = image.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))
        np.testing.assert_allclose(point, position, atol=1e-4)


def test_we_see_the_marker_of_peers_where_they_put_it(axes, tmp_path):
    volume, position = make.marked(make.grid(axes, oblique=21))
    image = sitk.GetImageFromArray(volume.array[0])
    image.SetSpacing(volume.grid.spacing[::-1])
    image.SetOrigin(volume.grid.origin)
    image.SetDirection(np.array(volume.grid.direction)[::-1].T.ravel().tolist())
    for ending in (".nii", ".nii.gz", ".nrrd", ".mha"):
        sitk.WriteImage(image, str(tmp_path / f"peer{ending}"))
        check(tmp_path / f"peer{ending}", volume, position)


@settings(max_examples=25)
@given(st.sampled_from(make.ORIENTATIONS), st.integers(0, 10_000), st.sampled_from(ENDINGS))
def test_any_oblique_direction(axes, seed, ending):
    volume, position = make.marked(make.grid(axes, oblique=seed), seed)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"scan{ending}")
        io.write(volume, path)
        check(path, volume, position)


@pytest.mark.parametrize("kind", ["qform only", "sform only", "both", "neither"])
def test_nifti_geometry_is_repeated_bit_for_bit(tmp_path, kind):
    affine = nib.affines.from_matvec(make.rotation(3) @ np.diag([0.7, 0.8, 2.5]), (12.34, -56.78, 90.12))
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), None)
    image.header.set_zooms((0.7, 0.8, 2.5))
    if kind in ("qform only", "both"):
        image.set_qform(affine, 2)
    if kind in ("sform only", "both"):
        image.set_sform(affine, 4)
    nib.save(image, tmp_path / "in.nii.gz")
    volume = io.read(tmp_path / "in.nii.gz")
    io.write(volume.like((volume.array > 30).astype(np.uint8)), tmp_path / "out.nii.gz")
    before, after = nib.load(tmp_path / "in.nii.gz"), nib.load(tmp_path / "out.nii.gz")
    for field in ("qform_code", "sform_code", "quatern_b", "qoffset_y", "srow_x", "srow_z", "pixdim"):
        np.testing.assert_array_equal(before.header[field], after.header[field], err_msg=field)
    np.testing.assert_array_equal(before.affine, after.affine)
    np.testing.assert_array_equal(np.asarray(after.dataobj), np.asarray(before.dataobj) > 30)


@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_itk_geometry_is_repeated_to_the_last_digits(tmp_path, ending):
    volume, _ = make.marked(make.grid(make.ORIENTATIONS[22], oblique=8, spacing=(2.5, 0.7000000001, 0.123456789)))
    io.write(volume, tmp_path / f"in{ending}")
    first = io.read(tmp_path / f"in{ending}")
    io.write(first, tmp_path / f"out{ending}")
    again = io.read(tmp_path / f"out{ending}").source.grid
    np.testing.assert_allclose(again.affine, first.source.grid.affine, rtol=1e-14, atol=1e-14)
    np.testing.assert_allclose(again.affine, volume.grid.affine, rtol=1e-9, atol=1e-9)


def test_channels_survive(tmp_path):
    grid = make.grid(make.ORIENTATIONS[10])
    array = np.random.default_rng(0).normal(size=(3, *grid.shape)).astype(np.float32)
    for ending in ENDINGS:
        io.write(Volume(array, grid), tmp_path / f"scan{ending}")
        np.testing.assert_array_equal(io.read(tmp_path / f"scan{ending}").as_stored().array, array)


def test_labels_come_back_as_small_integers(tmp_path):
    labels = np.zeros((1, 3, 4, 5), np.uint16)
    labels[0, 1, 2, 3] = 300
    for ending in ENDINGS:
        io.write(Volume.from_array(labels), tmp_path / f"l{ending}")
        read = io.read_labels(tmp_path / f"l{ending}")
        assert read.array.dtype == np.uint16
        np.testing.assert_array_equal(read.array, labels)
    labels[0, 1, 2, 3] = 30
    io.write(Volume.from_array(labels.astype(np.float32)), tmp_path / "f.nii.gz")
    assert io.read_labels(tmp_path / "f.nii.gz").array.dtype == np.uint8


def test_pictures(tmp_path):
    mask = np.zeros((1, 1, 6, 9), np.uint8)
    mask[0, 0, 2, 7] = 255
    io.write(Volume.from_array(mask), tmp_path / "m.png")
    np.testing.assert_array_equal(io.read_labels(tmp_path / "m.png").array, mask)
    assert io.read(tmp_path / "m.png").array.dtype == np.float32
    folder = tmp_path / "stack"
    for k in range(11):  # 2 must come before 10
        io.write(Volume.from_array(np.full((1, 1, 6, 9), k, np.uint8)), folder / f"slice{k}.png")
    stack = io.read(folder)
    assert stack.array.shape == (1, 11, 6, 9)
    assert stack.array[0, :, 0, 0].tolist() == list(range(11))

from __future__ import annotations

import make
import numpy as np
import pydicom
import pytest

from attentus import io
from attentus.errors import BadFile
from attentus.io.dicom import find_series
from attentus.types import Volume


@pytest.fixture
def series(tmp_path):
    """Six slices of 5 x 4 pixels, 2.5 mm apart, and their files in the order of their position."""
    volume, _ = make.marked(make.grid(shape=(6, 5, 4)))
    files = make.dicom_series(tmp_path / "s", volume)
    return sorted(files, key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))


def test_rescale_is_applied_slice_by_slice(tmp_path):
    array = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 4) * 2 - 1000
    files = make.dicom_series(tmp_path, Volume.from_array(array), slope=2.0, intercept=-1000.0)
    np.testing.assert_array_equal(io.read(tmp_path).array, array)
    last = max(files, key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))
    make.edit_dicom(last, RescaleSlope=4.0)
    changed = io.read(tmp_path).array
    np.testing.assert_array_equal(changed[0, 0], array[0, 0])
    np.testing.assert_array_equal(changed[0, 1] + 1000, 2 * (array[0, 1] + 1000))


def test_the_step_comes_from_positions_not_from_thickness(series):
    volume = io.read(series[0].parent)
    assert volume.grid.spacing == pytest.approx((2.5, 0.8, 0.7))
    assert pydicom.dcmread(series[0]).SliceThickness == 9.0


def test_a_gap_names_its_neighbours(series):
    series[2].unlink()
    with pytest.raises(BadFile, match=rf"5\.000 mm lie between {series[1].name} and {series[3].name}.*1 slice missing"):
        io.read(series[0].parent)


def test_a_copy_is_named(series):
    copy = series[0].with_name("copy.dcm")
    copy.write_bytes(series[3].read_bytes())
    with pytest.raises(BadFile, match="same place") as error:
        io.read(series[0].parent)
    assert "copy.dcm" in str(error.value)
    assert series[3].name in str(error.value)


def test_irregular_steps_are_refused(series):
    x, y, z = (float(v) for v in pydicom.dcmread(series[-1]).ImagePositionPatient)
    make.edit_dicom(series[-1], ImagePositionPatient=[x, y, z + 0.4])
    with pytest.raises(BadFile, match=rf"2\.900 mm lie between {series[-2].name}"):
        io.read(series[0].parent)


def test_steps_may_differ_by_rounding(series):
    x, y, z = (float(v) for v in pydicom.dcmread(series[-1]).ImagePositionPatient)
    make.edit_dicom(series[-1], ImagePositionPatient=[x, y, z + 0.005])
    assert io.read(series[0].parent).grid.spacing[0] == pytest.approx(2.501)


def test_mixed_sizes_are_refused_with_both_sizes(series):
    small = pydicom.dcmread(series[4])
    small.Rows, small.PixelData = 4, small.PixelData[: 4 * 4 * 2]
    small.save_as(series[4])
    with pytest.raises(BadFile, match=r"4 × 4 pixels.*where.*5 × 4 pixels"):
        io.read(series[0].parent)


def test_mixed_orientations_are_refused(series):
    make.edit_dicom(series[4], ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    with pytest.raises(BadFile, match="another plane"):
        io.read(series[0].parent)


def test_a_tilted_gantry_is_refused_with_its_angle(tmp_path):
    volume, _ = make.marked(make.grid(shape=(6, 5, 4)))
    for file in make.dicom_series(tmp_path, volume):
        x, y, z = (float(v) for v in pydicom.dcmread(file).ImagePositionPatient)
        make.edit_dicom(file, ImagePositionPatient=[x, y + (z - 140.75) * np.tan(np.radians(12)), z])
    with pytest.raises(BadFile, match=r"sheared by 12\.0 degrees"):
        io.read(tmp_path)


def test_several_series_are_listed_and_chosen_by_description_or_uid(tmp_path):
    for name in ("T1 post", "FLAIR"):
        volume, _ = make.marked(make.grid())
        make.dicom_series(tmp_path / name, volume, SeriesDescription=name)
    with pytest.raises(BadFile, match=r"holds 2 series(?s:.*)T1 post(?s:.*)choose by UID") as error:
        io.read(tmp_path)
    assert "FLAIR" in str(error.value)
    uid = next(s.uid for s in find_series(tmp_path) if s.description == "FLAIR")
    np.testing.assert_array_equal(io.read(tmp_path, series="flair").array, io.read(tmp_path, series=uid).array)
    with pytest.raises(BadFile, match="0 series that match 'T2'"):
        io.read(tmp_path, series="T2")


def test_copies_in_two_folders_are_two_series(series):
    other = series[0].parents[1] / "copy"
    other.mkdir()
    for file in series:
        (other / file.name).write_bytes(file.read_bytes())
    found = find_series(series[0].parents[1])
    assert len(found) == 2
    assert found[0].uid == found[1].uid
    np.testing.assert_array_equal(io.read(other).array, io.read(series[0].parent).array)


def test_what_has_no_place_in_the_patient_is_refused(series):
    make.edit_dicom(series[1], ImagePositionPatient=None)
    with pytest.raises(BadFile, match=rf"{series[1].name}: has no ImagePositionPatient"):
        io.read(series[0].parent)


def test_damaged_files_are_named(series):
    whole = series[2].read_bytes()
    series[2].write_bytes(whole[:-20])
    with pytest.raises(BadFile, match=rf"{series[2].name}: has incomplete or damaged pixels"):
        io.read(series[0].parent)
    series[2].write_bytes(b"no dicom at all")
    with pytest.raises(BadFile, match=rf"{series[2].name}: is called .dcm but holds no DICOM"):
        io.read(series[0].parent)


def test_other_files_in_the_folder_are_passed_over(series):
    series[0].with_name("README.txt").write_text("hello")
    series[0].with_name(".DS_Store").write_bytes(b"\0" * 200)
    assert io.read(series[0].parent).grid.shape == (6, 5, 4)


def test_files_without_the_preamble_are_read(series):
    for file in series:
        file.write_bytes(file.read_bytes()[132:])
    assert io.read(series[0].parent).array.max() == 1000


def test_a_single_slice_uses_the_thickness(series):
    volume = io.read(series[1])
    assert volume.grid.shape == (1, 5, 4)
    assert volume.grid.spacing[0] == 9.0


def test_segmentation_objects_are_told_apart(series):
    make.edit_dicom(series[0], SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    with pytest.raises(BadFile, match=r"is a DICOM segmentation \(SEG\), not an image"):
        io.read(series[0])


def test_colour_is_refused(series):
    make.edit_dicom(series[0], SamplesPerPixel=3)
    with pytest.raises(BadFile, match="colour picture"):
        io.read(series[0].parent)


@pytest.mark.parametrize("codec", ["JPEGLosslessProcess14_1", "JPEGLSLossless", "JPEG2000Lossless", "RLELossless"])
def test_compressed_pixels(tmp_path, codec):
    gdcm = pytest.importorskip("gdcm", reason="needs attentus[dicom]")
    volume, _ = make.marked(make.grid(shape=(3, 16, 16)))
    files = make.dicom_series(tmp_path, volume)
    before = io.read(tmp_path).array
    for file in files:
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(file))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, codec)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        writer.SetFileName(str(file))
        assert writer.Write()
    assert pydicom.dcmread(files[0]).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(io.read(tmp_path).array, before)

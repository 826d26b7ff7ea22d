"""What is written as DICOM SEG: the same mask on the same grid wherever it lay, valid, and with nobody's secrets."""

from __future__ import annotations

import make
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from attentus import io
from attentus.errors import BadFile, BadInput, GridMismatch, UnknownName
from attentus.infer.dicom_out import write_dicom
from attentus.io.dicom_seg import read_segmentation
from attentus.recipes import Coding
from attentus.types import Grid

pytest.importorskip("highdicom", reason="needs attentus[dicom]")

KINDS = ["binary", "labelmap", "fractional"]
NAMES = {"liver": 1, "tumour": 2}
SHAPE = (7, 11, 9)
SPACING = (2.5, 0.8, 0.7)
SECRET = "ZZSENTINEL"


def scan_of(folder, where, **tags):
    make.dicom_series(folder, make.marked(where)[0], **tags)
    return io.read(folder)


@pytest.fixture
def scan(tmp_path):
    """An oblique series of slices."""
    return scan_of(tmp_path / "series", make.grid(oblique=3, shape=SHAPE, spacing=SPACING))


def same(file, found):
    back = io.read_labels(file)
    assert back.grid.matches(found.labels.grid)
    np.testing.assert_array_equal(back.array, found.labels.array)
    assert back.source.header["names"] == {name: (value,) for name, value in found.names.items()}


@pytest.mark.parametrize("number", range(48))
def test_every_orientation_comes_back(tmp_path, number):
    oblique = number if number % 4 > 1 else None
    where = make.grid(make.ORIENTATIONS[number], oblique=oblique, shape=SHAPE, spacing=SPACING)
    found = make.prediction(scan_of(tmp_path / "s", where), NAMES, seed=number, probabilities=True)
    kind = KINDS[number % 3]
    write_dicom(found, tmp_path / "seg.dcm", kind=kind)
    same(tmp_path / "seg.dcm", found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("oblique", [None, 7])
def test_a_multi_frame_source_comes_back(tmp_path, kind, oblique):
    where = make.grid(make.ORIENTATIONS[29], oblique=oblique, shape=SHAPE, spacing=SPACING)
    make.enhanced_dicom(tmp_path / "s" / "all.dcm", make.marked(where)[0])
    found = make.prediction(io.read(tmp_path / "s"), NAMES, probabilities=True)
    write_dicom(found, tmp_path / "seg.dcm", kind=kind)
    same(tmp_path / "seg.dcm", found)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    frames = pydicom.dcmread(tmp_path / "s" / "all.dcm").PerFrameFunctionalGroupsSequence
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        place = frames[source - 1].PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(group.PlanePositionSequence[0].ImagePositionPatient, place)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(1, 8, 9), (2, 5, 4)])
def test_few_slices_come_back(tmp_path, kind, shape):
    volume = make.marked(make.grid(shape=shape))[0]
    found = make.prediction(scan_of(tmp_path / "s", volume.grid), NAMES, probabilities=True)
    write_dicom(found, tmp_path / "seg.dcm", kind=kind)
    same(tmp_path / "seg.dcm", found)


def test_slices_a_little_off_come_back(tmp_path):
    where = make.grid(shape=SHAPE)
    for k, file in enumerate(make.dicom_series(tmp_path / "s", make.marked(where)[0])):
        x, y, z = pydicom.dcmread(file).ImagePositionPatient
        make.edit_dicom(file, ImagePositionPatient=[x, y, z + 0.02 * (-1) ** k])
    found = make.prediction(io.read(tmp_path / "s"), NAMES)
    write_dicom(found, tmp_path / "seg.dcm")
    same(tmp_path / "seg.dcm", found)


def test_only_frames_with_something_are_stored_and_the_outermost(tmp_path, scan):
    found = make.prediction(scan, NAMES)
    found.labels.array[:] = 0
    found.labels.array[0, 3, 4, 5] = 2
    write_dicom(found, tmp_path / "seg.dcm")
    same(tmp_path / "seg.dcm", found)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert seg.NumberOfFrames == 3
    assert seg.pixel_array.sum() == 1


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_not_found_is_legal(tmp_path, scan, kind):
    found = make.prediction(scan, {"liver": 1, "tumour": 2, "cyst": 3}, probabilities=True)
    found.labels.array[found.labels.array == 2] = 0
    found.probabilities.array[2] = 0
    write_dicom(found, tmp_path / "one.dcm", kind=kind)
    same(tmp_path / "one.dcm", found)
    found.labels.array[:] = found.probabilities.array[:] = 0
    write_dicom(found, tmp_path / "none.dcm", kind=kind)
    same(tmp_path / "none.dcm", found)
    assert make.complaints(tmp_path / "one.dcm") == make.complaints(tmp_path / "none.dcm") == []


def test_fractions_are_the_probabilities(tmp_path, scan):
    found = make.prediction(scan, NAMES, probabilities=True)
    rng = np.random.default_rng(0)
    found.probabilities.array[:] = rng.random(found.probabilities.array.shape)
    write_dicom(found, tmp_path / "seg.dcm", kind="fractional")
    import highdicom

    seg = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert (seg.SegmentationFractionalType, seg.SegmentsOverlap) == ("PROBABILITY", "UNDEFINED")
    stored = seg.get_volume(combine_segments=False)
    axes, _ = Grid.from_affine(stored.spatial_shape, stored.affine).canonical()
    for number in (1, 2):
        back = axes.apply(stored.array[..., number - 1].astype(float))
        np.testing.assert_allclose(back, found.probabilities.array[number], atol=0.5 / 254 + 1e-6)
    with pytest.raises(BadInput, match="probabilities=True"):
        write_dicom(make.prediction(scan, NAMES), tmp_path / "x.dcm", kind="fractional")


def test_regions_within_each_other_overlap(tmp_path, scan):
    found = make.prediction(scan, {"WT": 1, "TC": 2, "ET": 3}, parts={"WT": (1, 2, 3), "TC": (2, 3)})
    write_dicom(found, tmp_path / "seg.dcm")
    back = read_segmentation(tmp_path / "seg.dcm")
    values = back.volume.canonical().array
    for name, held in {"WT": (1, 2, 3), "TC": (2, 3), "ET": (3,)}.items():
        np.testing.assert_array_equal(np.isin(values, back.names[name]), np.isin(found.labels.array, held), name)
    assert pydicom.dcmread(tmp_path / "seg.dcm").SegmentsOverlap == "YES"
    assert make.complaints(tmp_path / "seg.dcm") == []
    with pytest.raises(BadInput, match="WT, TC, ET lie within each other"):
        write_dicom(found, tmp_path / "map.dcm", kind="labelmap")


def test_numbers_of_labels_stay_where_they_can(tmp_path, scan):
    found = make.prediction(scan, {"tumour": 21, "liver": 5})
    write_dicom(found, tmp_path / "map.dcm", kind="labelmap")
    same(tmp_path / "map.dcm", found)
    write_dicom(found, tmp_path / "masks.dcm")
    back = io.read_labels(tmp_path / "masks.dcm")
    assert back.source.header["names"] == {"liver": (1,), "tumour": (2,)}
    np.testing.assert_array_equal(back.array == 2, found.labels.array == 21)


def test_others_leave_out_empty_slices_and_still_lie_on_the_scan(tmp_path, scan):
    files = [file for file, _ in scan.source.header["frames"]]
    masks = {"liver": np.zeros(SHAPE, np.uint8)}
    masks["liver"][2:4, 3:6, 2:5] = masks["liver"][5, 3, 3] = 1
    file = make.dicom_seg(tmp_path / "other.dcm", files, masks)
    assert io.read_labels(file).grid.shape[0] < SHAPE[0]
    laid = io.read_labels(file, on=scan.grid)
    assert laid.grid == scan.grid
    np.testing.assert_array_equal(laid.array[0], scan.source.grid.canonical()[0].apply(masks["liver"]))
    with pytest.raises(GridMismatch, match=r"other\.dcm"):
        io.read_labels(file, on=make.grid())


@pytest.mark.parametrize("kind", KINDS)
def test_it_says_what_it_was_made_from_and_by_whom(tmp_path, scan, kind):
    found = make.prediction(scan, NAMES, probabilities=True)
    write_dicom(found, tmp_path / "seg.dcm", kind=kind, fingerprint="f00d")
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    images = {pydicom.dcmread(file).SOPInstanceUID: pydicom.dcmread(file) for file, _ in scan.source.header["frames"]}
    first = next(iter(images.values()))
    (series,) = seg.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == first.SeriesInstanceUID != seg.SeriesInstanceUID
    assert {ref.ReferencedSOPInstanceUID for ref in series.ReferencedInstanceSequence} == set(images)
    assert (seg.StudyInstanceUID, seg.FrameOfReferenceUID) == (first.StudyInstanceUID, first.FrameOfReferenceUID)
    assert (seg.PatientID, str(seg.PatientName)) == ("made", "Made^Up")
    for group in seg.PerFrameFunctionalGroupsSequence:
        source = images[group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID]
        place = group.PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(place, source.ImagePositionPatient, atol=1e-6)
    liver, tumour = (s for s in seg.SegmentSequence if s.SegmentNumber)
    algorithm = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmParameters) == ("made", "model=f00d")
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert tumour.AnatomicRegionSequence[0].CodeValue == "10200004"
    assert liver.RecommendedDisplayCIELabValue != tumour.RecommendedDisplayCIELabValue
    assert seg.ContentDescription.startswith("Research use only")
    assert make.complaints(tmp_path / "seg.dcm") == []


def test_sides_and_chosen_codes_are_written_validly(tmp_path, scan):
    found = make.prediction(scan, {"left kidney": 1, "thing": 2})
    chosen = Coding(type="99MADE:T1:Thing", region="SCT:64033007:Kidney", colour=(255, 0, 0))
    write_dicom(found, tmp_path / "seg.dcm", codes={"thing": chosen})
    kidney, thing = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Left"
    assert thing.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99MADE"
    assert make.complaints(tmp_path / "seg.dcm") == []


def test_only_what_the_standard_asks_for_is_taken_over(tmp_path):
    hidden = ("PatientAddress", "PatientComments", "OtherPatientIDs", "InstitutionName", "OperatorsName", "Occupation")
    hidden += (
        "SeriesDescription",
        "PerformingPhysicianName",
        "RequestingPhysician",
        "EthnicGroup",
        "AdditionalPatientHistory",
    )
    tags = dict.fromkeys(hidden, SECRET)
    scan = scan_of(tmp_path / "s", make.grid(shape=SHAPE), **tags, PatientIdentityRemoved="YES")
    found = make.prediction(scan, NAMES)
    write_dicom(found, tmp_path / "seg.dcm", report=tmp_path / "sr.dcm")
    for file in ("seg.dcm", "sr.dcm"):
        assert SECRET.encode() not in (tmp_path / file).read_bytes(), file
        assert make.complaints(tmp_path / file) == []
    assert pydicom.dcmread(tmp_path / "seg.dcm").PatientIdentityRemoved == "YES"


def test_values_that_break_the_standard_do_not_break_the_result(tmp_path):
    where = make.grid(oblique=11, shape=SHAPE)
    name, odd = "Müller^Jürgen", {"PatientSex": "unknown", "PatientBirthDate": "1950", "StudyDate": "", "StudyTime": ""}
    odd |= {"SpecificCharacterSet": "ISO_IR 100", "PatientName": name}
    for file in make.dicom_series(tmp_path / "s", make.marked(where)[0], **odd):
        make.edit_dicom(file, FrameOfReferenceUID=None)
    found = make.prediction(io.read(tmp_path / "s"), {"Größe": 1})
    write_dicom(found, tmp_path / "seg.dcm", report=tmp_path / "sr.dcm")
    same(tmp_path / "seg.dcm", found)
    for file in ("seg.dcm", "sr.dcm"):
        seg = pydicom.dcmread(tmp_path / file)
        assert (str(seg.PatientName), seg.PatientSex, seg.PatientBirthDate) == (name, "", "")
        assert make.complaints(tmp_path / file) == []


def test_what_cannot_be_is_said(tmp_path, scan):
    volume, _ = make.case(0)
    io.write(volume, tmp_path / "scan.nii.gz")
    nifti = make.prediction(io.read(tmp_path / "scan.nii.gz"), NAMES)
    with pytest.raises(BadInput, match=r"this scan is no DICOM series.*scan\.nii\.gz"):
        write_dicom(nifti, tmp_path / "seg.dcm")
    found = make.prediction(scan, NAMES)
    with pytest.raises(UnknownName, match="kind of DICOM segmentation is called 'masks'"):
        write_dicom(found, tmp_path / "seg.dcm", kind="masks")
    with pytest.raises(BadInput, match="cannot refer to the segments of a label map"):
        write_dicom(found, tmp_path / "seg.dcm", kind="labelmap", report=tmp_path / "sr.dcm")
    with pytest.raises(BadFile, match=r"write_dicom"):
        io.write(found.labels, tmp_path / "seg.dcm")
    write_dicom(found, tmp_path / "seg.dcm")
    before = (tmp_path / "seg.dcm").read_bytes()
    with pytest.raises(BadFile, match="exists already"):
        write_dicom(found, tmp_path / "seg.dcm", report=tmp_path / "sr.dcm")
    assert not (tmp_path / "sr.dcm").exists()
    assert (tmp_path / "seg.dcm").read_bytes() == before
    write_dicom(found, tmp_path / "seg.dcm", overwrite=True)
    scan.source.header["frames"][0][0].unlink()
    with pytest.raises(BadFile, match="no longer the DICOM image"):
        write_dicom(found, tmp_path / "gone.dcm")


def test_a_series_of_several_multi_frame_files_is_refused(tmp_path):
    whole = make.marked(make.grid(shape=(6, 5, 4)))[0]
    series = {"SeriesInstanceUID": generate_uid(), "FrameOfReferenceUID": generate_uid()}
    for part, rows in enumerate((slice(0, 3), slice(3, 6))):
        where = whole.grid.cropped((rows.start, 0, 0), (rows.stop, 5, 4))
        piece = type(whole)(whole.array[:, rows], where)
        make.enhanced_dicom(tmp_path / "s" / f"{part}.dcm", piece, **series)
    found = make.prediction(io.read(tmp_path / "s"), NAMES)
    with pytest.raises(BadFile, match="2 multi-frame files"):
        write_dicom(found, tmp_path / "seg.dcm")


@pytest.mark.parametrize(
    "parts",
    [
        ("chaos-ct-liver", "CT_SET_3", "DICOM_anon"),
        ("dicom-brain", "Study3", "11-T1post-18670"),
        ("dicom-brain", "Study3", "11_HCropVolume"),
        ("dicom-brain", "Study3", "36468-FLAIRreg-58706"),
        *(("sarcoma-ct-mr-pet", "dicom", "STS_008", kind, "image") for kind in ("CT", "MR_T1", "PET")),
    ],
    ids=lambda parts: parts[-1] if parts[-1] != "image" else parts[-2],
)
def test_real_series_come_back_and_are_valid(tmp_path, parts):
    scan = io.read(make.real_data(*parts))
    small = scan.array.size < 3e6
    found = make.prediction(scan, NAMES, probabilities=small)
    for kind in KINDS if small else ["binary"]:
        report = None if kind == "labelmap" else tmp_path / f"{kind}_sr.dcm"
        write_dicom(found, tmp_path / f"{kind}.dcm", kind=kind, report=report)
        same(tmp_path / f"{kind}.dcm", found)
        for file in filter(None, (tmp_path / f"{kind}.dcm", report)):
            assert make.complaints(file) == []

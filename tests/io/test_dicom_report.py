"""Structured reports: what is said of each structure, by TID 1500, with a reference to its segment."""

from __future__ import annotations

import make
import pydicom
import pytest

from attentus import io
from attentus.infer.dicom_out import write_dicom
from attentus.infer.extent import extents

sr = pytest.importorskip("highdicom.sr", reason="needs attentus[dicom]")


@pytest.fixture
def written(tmp_path):
    make.dicom_series(tmp_path / "s", make.marked(make.grid(oblique=2, shape=(7, 11, 9)))[0])
    names = {"liver": 1, "left kidney": 2, "liver tumour": 3, "spleen": 4}
    found = make.prediction(io.read(tmp_path / "s"), names)
    found.labels.array[found.labels.array == 4] = 0  # no spleen
    write_dicom(found, tmp_path / "seg.dcm", report=tmp_path / "sr.dcm", fingerprint="f00d")
    return found, tmp_path


def groups_of(folder):
    report = sr.srread(folder / "sr.dcm")
    return {g.tracking_identifier: g for g in report.content.get_volumetric_roi_measurement_groups()}


def test_volumes_and_diameters(written):
    found, folder = written
    groups, sizes = groups_of(folder), extents(found)
    assert set(groups) == set(found.names)
    for name, group in groups.items():
        values = {m.name.meaning: (m.value, m.unit.value) for m in group.get_measurements()}
        assert values["Volume"] == (pytest.approx(sizes[name].volume_ml, abs=1e-4), "ml")
        if name == "spleen":
            assert values == {"Volume": (0.0, "ml")}
        else:
            assert values["Diameter"] == (pytest.approx(sizes[name].longest_mm, abs=1e-3), "mm")


def test_it_refers_to_the_segments_and_their_series(written):
    _, folder = written
    seg = pydicom.dcmread(folder / "seg.dcm")
    report = pydicom.dcmread(folder / "sr.dcm")
    numbers = {segment.SegmentLabel: segment.SegmentNumber for segment in seg.SegmentSequence}
    tracks = {segment.SegmentLabel: segment.TrackingUID for segment in seg.SegmentSequence}
    for name, group in groups_of(folder).items():
        (segment,) = group.referenced_segment[0].ReferencedSOPSequence
        assert segment.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert segment.ReferencedSegmentNumber == numbers[name]
        assert group.tracking_uid == tracks[name]
    assert report.StudyInstanceUID == seg.StudyInstanceUID
    assert report.SeriesInstanceUID != seg.SeriesInstanceUID
    assert report.Modality == "SR"


def test_findings_and_sites(written):
    _, folder = written
    groups = groups_of(folder)
    assert groups["liver tumour"].finding_type.meaning == "Neoplasm"
    (site,) = groups["liver tumour"].finding_sites
    assert site.value.meaning == "Liver"
    (site,) = groups["left kidney"].finding_sites
    assert (site.value.meaning, site.laterality.meaning) == ("Kidney", "Left")
    assert not groups["liver"].finding_sites


def test_it_is_valid(written):
    assert make.complaints(written[1] / "sr.dcm") == []

"""attentus predict from DICOM to DICOM, and what it never lets out."""

from __future__ import annotations

import json

import make
import numpy as np
import pydicom
import pytest
import torch

from attentus import Dataset, Model, io
from attentus.cli.main import run
from attentus.data.resolve import resolve
from attentus.infer.ensemble import load_at
from attentus.infer.model import create_net

pytest.importorskip("highdicom", reason="needs attentus[dicom]")

SECRET = "ZZSENTINEL"
WHO = {
    "PatientName": f"{SECRET}^Name",
    "PatientID": f"{SECRET}-ID",
    "AccessionNumber": SECRET[:10],
    "StudyID": SECRET[:10],
    "ReferringPhysicianName": f"{SECRET}^Doctor",
    **dict.fromkeys(("InstitutionName", "PatientComments", "PatientAddress", "OperatorsName", "StationName"), SECRET),
    **dict.fromkeys(("SeriesDescription", "StudyDescription", "ProtocolName", "ImageComments"), SECRET),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that has learned nothing, of the structures liver and tumour."""
    folder = tmp_path_factory.mktemp("dicom")
    data = make.dataset(folder / "data", cases=3)
    description = json.loads((data / "dataset.json").read_text())
    description["labels"] = {"0": "background", "1": "liver", "2": "tumour"}
    (data / "dataset.json").write_text(json.dumps(description))
    recipe = resolve(make.recipe(infer__codes={"tumour": {"colour": [1, 2, 3]}}), Dataset.open(data))
    torch.manual_seed(0)
    Model(recipe, create_net(recipe)).save(folder / "model")
    return folder / "model"


@pytest.fixture
def series(tmp_path):
    """A folder with two DICOM scans, slices and multi-frame."""
    volume, _ = make.case(3)
    turned = volume.grid.reoriented(make.ORIENTATIONS[7])
    make.dicom_series(tmp_path / "in" / "one", type(volume)(make.ORIENTATIONS[7].apply(volume.array), turned), **WHO)
    make.enhanced_dicom(tmp_path / "in" / "two" / "all.dcm", make.case(4)[0], **WHO)
    return tmp_path / "in"


@pytest.fixture
def attentus(capsys):
    def call(*arguments):
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_one_scan_becomes_a_segmentation(attentus, model, series, tmp_path):
    code, out, err = attentus("predict", model, series / "one", "-o", tmp_path / "seg.dcm")
    assert code == 0, err
    assert "seg.dcm" in out
    want = Model.load(model).predict(series / "one").labels
    back = io.read_labels(tmp_path / "seg.dcm")
    assert back.grid.matches(want.grid)
    np.testing.assert_array_equal(back.array, want.array)
    seg = pydicom.dcmread(tmp_path / "seg.dcm")
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["liver", "tumour"]
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmParameters == f"model={load_at(model, 'best').fingerprint}"
    assert not (tmp_path / "seg_sr.dcm").exists()
    assert make.complaints(tmp_path / "seg.dcm") == []


@pytest.mark.parametrize("kind", ["binary", "labelmap", "fractional"])
def test_a_cohort_becomes_a_folder(attentus, model, series, tmp_path, kind):
    extra = [] if kind == "labelmap" else ["--sr"]
    call = ["predict", model, series, "-o", tmp_path / "out", "--format", "dcm", "--seg-type", kind, *extra]
    code, out, err = attentus(*call, "--json")
    assert code == 0, err
    reports = {f"{name}_sr.dcm" for name in ("one", "two")} if extra else set()
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"one.dcm", "two.dcm", "labels.json", *reports}
    for name in ("one", "two"):
        seg = pydicom.dcmread(tmp_path / "out" / f"{name}.dcm")
        assert seg.SegmentationType == kind.upper()
        assert io.read_labels(tmp_path / "out" / f"{name}.dcm").grid.matches(io.read(series / name).grid)
    assert set(json.loads(out)["scans"]) == {"one", "two"}
    code, out, _ = attentus(*call, "--resume")
    assert (code, out.count("was there")) == (0, 2)
    other = "binary" if kind != "binary" else "fractional"
    code, out, _ = attentus(*call[: -len(extra) or None], "--resume", "--seg-type", other)
    assert (code, out.count("was there")) == (0, 0)


def test_codes_of_the_recipe_and_of_a_file(attentus, model, series, tmp_path):
    assert attentus("predict", model, series / "one", "-o", tmp_path / "a.dcm")[0] == 0
    (tmp_path / "codes.yaml").write_text('liver: {type: "99MADE:L:My liver"}')
    assert (
        attentus("predict", model, series / "one", "-o", tmp_path / "b.dcm", "--codes", tmp_path / "codes.yaml")[0] == 0
    )
    a, b = (pydicom.dcmread(tmp_path / f"{name}.dcm").SegmentSequence for name in "ab")
    assert a[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Liver"
    assert b[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "My liver"
    assert a[1].RecommendedDisplayCIELabValue == b[1].RecommendedDisplayCIELabValue
    (tmp_path / "codes.yaml").write_text('livre: {type: "99MADE:L:My liver"}')
    code, _, err = attentus(
        "predict", model, series / "one", "-o", tmp_path / "c.dcm", "--codes", tmp_path / "codes.yaml"
    )
    assert code == 2
    assert "'livre', which is no structure. Did you mean 'liver'?" in err


def test_what_is_no_dicom_is_one_clear_error(attentus, model, tmp_path):
    for name in ("a", "b"):
        io.write(make.case(1)[0], tmp_path / "in" / f"{name}.nii.gz")
    code, out, err = attentus("predict", model, tmp_path / "in" / "a.nii.gz", "-o", tmp_path / "seg.dcm")
    assert (code, out) == (2, "")
    assert err.count("Error") == 1
    assert "a.nii.gz: is no DICOM" in err
    code, _, err = attentus("predict", model, tmp_path / "in", "-o", tmp_path / "out", "--format", "dcm")
    assert code == 2
    assert err.count("is one of 2 scans that are no DICOM") == 1
    for option in (["--sr"], ["--seg-type", "binary"]):
        code, _, err = attentus("predict", model, tmp_path / "in", "-o", tmp_path / "out", *option)
        assert code == 2
        assert "about DICOM results" in err


def test_a_label_map_has_no_report(attentus, model, series, tmp_path):
    call = ["predict", model, series / "one", "-o", tmp_path / "seg.dcm", "--seg-type", "labelmap", "--sr"]
    code, _, err = attentus(*call)
    assert code == 2
    assert "cannot refer to the segments of a label map" in err


def test_who_was_scanned_is_told_by_nothing_but_the_dicom(attentus, model, series, tmp_path, caplog):
    """Not by JSON, not by what is printed or logged, not by errors, not by maps beside the results."""
    odd = {"PatientName": SECRET, "PatientBirthDate": SECRET, "PatientSex": SECRET.lower()}  # libraries log such values
    make.dicom_series(series / "odd", make.case(6)[0], **{**WHO, **odd})
    caplog.set_level("DEBUG")
    broken = make.dicom_series(series / "broken", make.case(5)[0], **WHO)
    broken[3].unlink()
    said = ""
    everything = ["--sr", "--probabilities", "--attention"]
    for extra in ([*everything, "--json"], ["--overwrite"], ["--resume"], ["--dry-run", "--overwrite"]):
        _, out, err = attentus("predict", model, series, "-o", tmp_path / "out", "--format", "dcm", *extra)
        said += out + err
    assert "broken" in said  # the scan that fails is named by its folder
    assert attentus("predict", model, series / "one", "-o", tmp_path / "out" / "plain.nii.gz")[0] == 0
    assert (
        attentus("score", tmp_path / "out" / "one.dcm", tmp_path / "out" / "one.dcm", "-o", tmp_path / "s.json")[0] == 0
    )
    assert SECRET not in said + caplog.text
    assert SECRET.lower() not in said + caplog.text
    files = [p for p in tmp_path.rglob("*") if p.is_file() and series not in p.parents]
    assert {p.suffix for p in files} >= {".json", ".gz", ".dcm"}
    for file in files:
        content = file.read_bytes()
        if file.suffix == ".gz":
            import gzip

            content = gzip.decompress(content)
        assert (SECRET.encode() in content) == (file.suffix == ".dcm"), file
    required = {"PatientName", "PatientID", "AccessionNumber", "StudyID", "ReferringPhysicianName"}
    for name in ("one.dcm", "one_sr.dcm"):
        told = {e.keyword for e in pydicom.dcmread(tmp_path / "out" / name).iterall() if SECRET[:10] in str(e.value)}
        assert told - {"ReferencedRequestSequence"} <= required, name

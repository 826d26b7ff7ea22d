from __future__ import annotations

import json
import shutil

import make
import nibabel as nib
import numpy as np
import pytest

from attentus import Dataset, io


@pytest.fixture
def folder(tmp_path):
    return make.dataset(tmp_path / "d", cases=6)


def nifti(path, change):
    image = nib.load(path)
    array = np.asanyarray(image.dataobj).copy()
    array, affine = change(array, image.affine.copy())
    nib.save(nib.Nifti1Image(array, affine), path)


def found(folder, severity=None):
    return [f for f in Dataset.open(folder).check() if severity in (None, f.severity)]


def test_a_clean_dataset_has_no_findings(folder):
    assert found(folder) == []


def nan(array, affine):
    array[1, 1, 1] = np.nan
    return array, affine


def shifted(array, affine):
    affine[0, 3] += 5
    return array, affine


def unknown(array, affine):
    array[2:4, 2, 2] = 7
    return array, affine


def fraction(array, affine):
    array = array.astype(np.float32)
    array[0, 0, 0] = 0.5
    return array, affine


EDITS = [
    ("imagesTr", nan, "error", "1 voxels are NaN or infinite"),
    ("labelsTr", shifted, "error", "image and labels lie on different grids"),
    ("labelsTr", lambda a, m: (a[1:], m), "error", "image and labels lie on different grids"),
    ("labelsTr", unknown, "error", "2 voxels have the unknown label 7"),
    ("labelsTr", fraction, "error", "no label map"),
    ("labelsTr", lambda a, m: (0 * a, m), "warning", "labels nothing"),
    ("labelsTr", lambda a, m: (a.astype(np.float32), m), "note", "stores its labels as float32"),
    ("imagesTr", lambda a, m: (0 * a, m), "warning", "same value everywhere"),
    ("imagesTr", lambda a, m: (np.stack([a, a], -1), m), "error", r"has 2 channel\(s\) where the dataset has 1"),
]


@pytest.mark.parametrize(("part", "change", "severity", "message"), EDITS)
def test_each_fault_is_found_in_its_case_alone(folder, part, change, severity, message):
    nifti(folder / part / "case_03.nii.gz", change)
    (finding,) = found(folder)
    assert (finding.case, finding.severity) == ("case_03", severity)
    assert finding.fix
    import re

    assert re.search(message, finding.problem)


BREAKS = [
    (lambda p: p.unlink(), "does not exist"),
    (lambda p: p.write_bytes(b""), "empty"),
    (lambda p: p.write_bytes(p.read_bytes()[:-40]), "end too early"),
    (lambda p: p.write_bytes(b"not an image at all, really"), "no image format"),
    (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n"), "Git LFS pointer"),
]


@pytest.mark.parametrize(("break_it", "message"), BREAKS)
@pytest.mark.parametrize("part", ["imagesTr", "labelsTr"])
def test_files_that_cannot_be_read_are_named(folder, part, break_it, message):
    break_it(folder / part / "case_01.nii.gz")
    (finding,) = found(folder)
    assert finding.severity == "error"
    assert finding.path.endswith(f"{part}/case_01.nii.gz")
    assert message in finding.problem


def test_copies_are_found(folder):
    shutil.copy(folder / "imagesTr" / "case_00.nii.gz", folder / "imagesTr" / "case_04.nii.gz")
    shutil.copy(folder / "labelsTr" / "case_00.nii.gz", folder / "labelsTr" / "case_04.nii.gz")
    problems = {f.problem for f in found(folder) if f.case == "case_04"}
    assert problems == {"has the same image voxels as case case_00", "has the same label voxels as case case_00"}


def test_a_label_only_one_case_has_is_odd_where_nobody_names_labels(folder):
    (folder / "dataset.json").unlink()
    nifti(folder / "labelsTr" / "case_03.nii.gz", unknown)
    (finding,) = found(folder)
    assert (finding.case, finding.severity) == ("case_03", "warning")
    assert "label 7, which no other case has" in finding.problem


def test_partners_that_are_missing(folder):
    (folder / "dataset.json").unlink()
    (folder / "labelsTr" / "case_02.nii.gz").unlink()
    (folder / "imagesTr" / "case_05.nii.gz").unlink()
    findings = {f.case: (f.severity, f.problem) for f in found(folder)}
    assert findings == {
        "case_02": ("warning", "has no label"),
        "case_05": ("error", "case case_05 has labels but no image"),
    }


def test_exchanged_files_are_suspected(folder):
    image, label = folder / "imagesTr" / "case_02.nii.gz", folder / "labelsTr" / "case_02.nii.gz"
    image.rename(folder / "x.nii.gz")
    label.rename(image)
    (folder / "x.nii.gz").rename(label)
    assert any("in the place of labels" in f.fix for f in found(folder, "error"))


EXPECTED = {
    "affine-shift": "different grids",
    "fractional-label": "fractions",
    "nan-voxels": "NaN",
    "shape-mismatch": "different grids",
    "swapped-roles": "fractions",
    "truncated-image": "end too early",
    "zero-byte-image": "empty",
    "empty-label": "labels nothing",
    "unknown-class": "label 7",
}


def test_the_collection_of_broken_files():
    findings = {f.case: f for f in Dataset.open(make.real_data("broken", "derived")).check()}
    assert findings.keys() == EXPECTED.keys()
    for case, problem in EXPECTED.items():
        assert problem in findings[case].problem
    fine = {"not-gzipped", "trailing-singleton", "mirrored-label"}  # readable; a mirrored label no header betrays
    for case in fine:
        assert io.read(make.real_data("broken", "derived", case, "image.nii.gz")).array.size


def test_findings_are_plain_data(folder):
    from dataclasses import asdict

    (folder / "imagesTr" / "case_01.nii.gz").unlink()
    assert json.loads(json.dumps([asdict(f) for f in found(folder)]))[0]["case"] == "case_01"


def test_slices_that_count_as_patients_are_suspected(tmp_path):
    for name in ("a_1_4", "a_1_5", "a_2_4", "b"):
        for side, value in (("images", 200), ("masks", 1)):
            array = np.zeros((6, 5), np.uint8)
            array[len(name) % 6, ord(name[-1]) % 5] = value  # no two alike
            make.picture(tmp_path / side / f"{name}.png", array)
    findings = [f for f in Dataset.open(tmp_path).check() if "slices of one patient" in f.problem]
    assert [(f.case, f.severity) for f in findings] == [("a_1_4", "warning")]
    (tmp_path / "dataset.yaml").write_text("subject: '^(.*?)(?:[_-]\\d+)?$'\n")
    assert not [f for f in Dataset.open(tmp_path).check() if "slices of one patient" in f.problem]

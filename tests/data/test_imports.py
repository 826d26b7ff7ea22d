"""DICOM trees become datasets: series are found, chosen, converted; patients stay unknown; nothing is lost halfway."""

from __future__ import annotations

import json
from dataclasses import replace

import make
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid

from attentus import Dataset, io
from attentus.data.imports import Channel, Wish, choose, convert, survey
from attentus.data.imports.convert import write_mapping
from attentus.errors import BadFile, BadInput

pytest.importorskip("highdicom", reason="needs attentus[dicom]")

CT = Wish((Channel("", modality="CT"),))
LIVER = replace(CT, labels={"liver": ("liver*",), "tumour": ("gtv*", "tumo?r*")})
PETCT = Wish((Channel("CT", modality="CT"), Channel("PET", either="pt")), LIVER.labels)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    return folder, make.dicom_tree(folder)


@pytest.fixture(scope="module")
def found(tree):
    return survey(tree[0])


def ct_of(folder, patient):
    """The files of a patient's CT, from feet to head."""
    files = [f for f in folder.rglob("IM*") if (h := pydicom.dcmread(f)).PatientID == patient and h.Modality == "CT"]
    return sorted(files, key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))


def test_a_survey_joins_what_belongs_together(found):
    assert [(i.owner.patient, i.modality, i.slices) for i in found.images] == [
        ("Miller^77", "CT", 8),
        ("Miller^77", "PT", 6),
        ("Smith^12", "CT", 8),
        ("Smith^12", "PT", 6),
    ]
    assert {(d.kind, d.structures) for d in found.labels} == {
        ("RTSTRUCT", ("Liver", "GTV 1", "couch")),
        ("SEG", ("liver", "GTV 1")),
    }
    assert found.others == {"no DICOM": 1}
    assert not found.damaged


def test_labels_lie_where_they_were_drawn_and_mean_the_same_everywhere(tree, found, tmp_path):
    plan = choose(found, LIVER)
    result = convert(plan, tmp_path / "d")
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.labels == {"liver": 1, "tumour": 2}
    assert dataset.channels == ("CT",)
    assert [(c.id, c.subject) for c in dataset] == [("case_001", "subject_001"), ("case_002", "subject_002")]
    for number, (case, truth) in enumerate(zip(dataset, tree[1].values(), strict=True)):
        image, labels = io.read_case(case), io.read_labels(case.label)
        image.grid.require_match(labels.grid, case.id)
        assert image.grid.matches(make.TREE_GRIDS["CT"])
        assert np.array_equal(image.array, make.marked(make.TREE_GRIDS["CT"], 2 * number)[0].array)
        assert np.array_equal(labels.array[0] == 2, truth["GTV 1"])
        assert np.array_equal(labels.array[0] == 1, truth["Liver"] & ~truth["GTV 1"])
        assert result.cases[case.id].overlaps == {"tumour over liver": int((truth["Liver"] & truth["GTV 1"]).sum())}
    assert not [f for f in dataset.check() if f.severity == "error"]


def test_the_later_label_may_win(tree, found, tmp_path):
    wish = replace(CT, labels={"tumour": ("GTV*",), "liver": ("Liver",)})
    result = convert(choose(found, wish), tmp_path / "d", overlap="later")
    truth = tree[1]["Smith^12"]
    assert result.cases["case_002"].overlaps == {"liver over tumour": int((truth["Liver"] & truth["GTV 1"]).sum())}
    assert (io.read_labels(tmp_path / "d" / "labelsTr" / "case_002.nii.gz").array == 2).sum() == truth["Liver"].sum()


def test_without_names_every_structure_is_a_label_with_one_number_for_all(found, tmp_path):
    plan = choose(found, CT)
    assert plan.labels == ("couch", "GTV 1", "Liver")  # "liver" of the other patient is the same
    convert(plan, tmp_path / "d")
    seen = [set(np.unique(io.read_labels(f).array)) for f in sorted((tmp_path / "d" / "labelsTr").iterdir())]
    assert seen == [{0, 1, 2, 3}, {0, 2, 3}]


def test_channels_lie_on_the_grid_of_the_first(tree, found, tmp_path):
    result = convert(choose(found, PETCT), tmp_path / "d")
    dataset = Dataset.open(tmp_path / "d")
    assert dataset.channels == ("CT", "PET")
    image = io.read_case(dataset["case_001"])
    assert image.grid.matches(make.TREE_GRIDS["CT"])
    assert image.channels == 2
    pet = make.marked(make.TREE_GRIDS["PT"], 1)[0]
    index = pet.grid.index(image.grid.world((3, 6, 4)))
    z, y, x = np.floor(index).astype(int)
    fz, fy, fx = index - (z, y, x)
    corners = pet.array[0, z : z + 2, y : y + 2, x : x + 2].astype(float)
    linear = np.einsum("zyx,z,y,x", corners, [1 - fz, fz], [1 - fy, fy], [1 - fx, fx])
    assert image.array[1, 3, 6, 4] == pytest.approx(linear, abs=1e-3)
    assert (image.array[1, 0] == pet.array.min()).all()  # where the PET does not reach
    assert result.cases["case_001"].notes == ["PET resampled onto CT, which it covers to 88%; 0 elsewhere"]


def test_labels_of_another_series_in_the_same_frame_will_do(tree, found, tmp_path):
    plan = choose(found, replace(LIVER, channels=(Channel("", modality="PT"),)))
    assert [case.notes for case in plan.cases] == [
        ("labels were drawn on another series in the same frame of reference",)
    ] * 2
    convert(plan, tmp_path / "d")
    labels = io.read_labels(tmp_path / "d" / "labelsTr" / "case_001.nii.gz")
    assert labels.grid.matches(make.TREE_GRIDS["PT"])
    ml = (labels.array > 0).sum() * labels.grid.voxel_ml
    truth = tree[1]["Miller^77"]["Liver"].sum() * make.TREE_GRIDS["CT"].voxel_ml
    assert ml == pytest.approx(truth, rel=0.25)  # coarse voxels


def test_every_series_says_why(found):
    use = {
        (row.patient, getattr(row.what, "modality", row.what.__class__.__name__)): row.use
        for row in choose(found, LIVER).rows
    }
    assert use["1", "CT"] == "case_001"
    assert use["1", "PT"] == "not of the kind asked for"
    assert use["2", "LabelObject"] == "labels of case_002"
    none = choose(found, replace(CT, labels={"spleen": ("spleen",)}))
    assert none.refusal.startswith("no series is of the kind asked for")
    assert {row.use for row in none.rows} >= {
        "none of its structures is wanted",
        "no labels that are wanted refer to it",
    }
    plain = choose(found, Wish((Channel("any"),), {"x": ("spleen",)}, unlabelled=True))
    assert [row.use for row in plain.rows][:2] == ["case_001", "another series of its study has more slices"]
    missing = choose(found, Wish((Channel("CT", modality="CT"), Channel("MR", modality="MR"))))
    assert {row.use for row in missing.rows} >= {"no series for channel MR beside it"}


def test_a_mixture_of_modalities_is_refused(tmp_path):
    study, frame = generate_uid(), generate_uid()
    for modality in ("CT", "MR"):
        tags = {"StudyInstanceUID": study, "FrameOfReferenceUID": frame, "Modality": modality}
        files = make.dicom_series(tmp_path / "t" / modality, make.marked(make.TREE_GRIDS["CT"])[0], **tags)
        make.rtstruct(
            tmp_path / "t" / f"{modality}.rs", files[0], {"x": [make.outline(make.TREE_GRIDS["CT"], 3, (2, 6, 2, 6))]}
        )
    plan = choose(survey(tmp_path / "t"), Wish())
    assert "several modalities have labels (1 CT, 1 MR)" in plan.refusal
    with pytest.raises(BadInput, match="--modality"):
        convert(plan, tmp_path / "d")
    assert not (tmp_path / "d").exists()
    assert len(choose(survey(tmp_path / "t"), CT).cases) == 1


def test_the_newer_of_two_contours_is_used_and_both_are_told(tmp_path):
    where = make.TREE_GRIDS["CT"]
    files = make.dicom_series(tmp_path / "t" / "ct", make.marked(where)[0], Modality="CT")
    for day, edges in (("20200101", (2, 6, 2, 6)), ("20210101", (2, 8, 2, 8))):
        make.rtstruct(tmp_path / "t" / day, files[0], {"x": [make.outline(where, 3, edges)]}, StructureSetDate=day)
    plan = choose(survey(tmp_path / "t"), CT)
    assert plan.cases[0].notes == ("x: in a RTSTRUCT and an older RTSTRUCT; the newer is used",)
    convert(plan, tmp_path / "d")
    assert (io.read_labels(tmp_path / "d" / "labelsTr" / "case_001.nii.gz").array > 0).sum() == 36


def test_patients_stay_unknown_unless_asked_for(tree, found, tmp_path):
    plan = choose(found, PETCT)
    convert(plan, tmp_path / "d")
    uids = {uid for image in found.images for uid in (image.owner.series, image.owner.study, image.owner.frame)}
    for file in (tmp_path / "d").rglob("*"):
        assert "Miller" not in file.name
        if file.suffix == ".json":
            assert not any(secret in file.read_text() for secret in ("Miller", "Smith", "of the body", *uids))
        elif file.is_file():
            import nibabel as nib

            header = bytes(nib.load(file).header.binaryblock)
            assert not any(secret in header for secret in (b"Miller", b"Smith", b"body"))
    write_mapping(plan, tmp_path / "who.csv")
    assert "case_001,subject_001,CT,Miller^77," in (tmp_path / "who.csv").read_text()
    with pytest.raises(BadFile, match="exists already"):
        write_mapping(plan, tmp_path / "who.csv")
    assert [c.name for c in choose(found, replace(LIVER, names="patient")).cases] == ["Miller_77", "Smith_12"]


def test_studies_of_one_patient_stay_one_subject(tmp_path):
    where = make.TREE_GRIDS["CT"]
    for visit in "ab":
        files = make.dicom_series(tmp_path / "t" / visit, make.marked(where)[0], PatientID="p", Modality="CT")
        make.rtstruct(tmp_path / "t" / f"{visit}.rs", files[0], {"x": [make.outline(where, 3, (2, 6, 2, 6))]})
    convert(choose(survey(tmp_path / "t"), CT), tmp_path / "d")
    assert [c.subject for c in Dataset.open(tmp_path / "d")] == ["subject_001", "subject_001"]
    names = [c.name for c in choose(survey(tmp_path / "t"), replace(CT, names="patient")).cases]
    assert names == ["p", "p_2"]


def test_one_bad_series_is_told_and_the_rest_is_done(tmp_path):
    make.dicom_tree(tmp_path / "t")
    ct_of(tmp_path / "t", "Miller^77")[4].unlink()
    (tmp_path / "t" / "x.dcm").write_bytes(b"no DICOM at all")
    plan = choose(survey(tmp_path / "t"), LIVER)
    assert "1 slice missing" in plan.cases[0].problem
    assert "holds no DICOM data" in plan.damaged[0]
    result = convert(plan, tmp_path / "d")
    assert list(result.cases) == ["case_002"]
    assert "1 slice missing" in result.failures["case_001"]
    assert [c.id for c in Dataset.open(tmp_path / "d")] == ["case_002"]


def test_it_goes_on_where_it_stopped(tree, found, tmp_path, monkeypatch):
    plan, out = choose(found, LIVER), tmp_path / "d"
    real, calls = io.write, []

    def stop_after_the_first_case(volume, path, **options):
        calls.append(path.name)
        if len(calls) > 3:
            raise KeyboardInterrupt
        real(volume, path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(io, "write", stop_after_the_first_case)
        with pytest.raises(KeyboardInterrupt):
            convert(plan, out)
    assert not (out / "dataset.json").exists()
    first = (out / "imagesTr" / "case_001.nii.gz").stat().st_mtime_ns
    result = convert(plan, out)
    assert (result.written, len(result.cases)) == (1, 2)
    assert (out / "imagesTr" / "case_001.nii.gz").stat().st_mtime_ns == first
    assert convert(plan, out).written == 0
    with pytest.raises(BadFile, match="holds an import with other labels"):
        convert(choose(found, CT), out)
    assert convert(choose(found, CT), out, overwrite=True).written == 2
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.doc").write_text("x")
    with pytest.raises(BadFile, match="was not made by an import"):
        convert(plan, tmp_path / "other", overwrite=True)


def test_hashed_names_let_scans_be_added(tmp_path):
    folder = tmp_path / "t"
    make.dicom_tree(folder)
    aside = [f for f in folder.rglob("*") if f.is_file() and f.suffix != ".txt" and f.name != "DICOMDIR"]
    aside = [f for f in aside if pydicom.dcmread(f).PatientID == "Miller^77"]
    for file in aside:
        file.rename(tmp_path / f"{file.parent.name}-{file.name}")
    convert(choose(survey(folder), replace(LIVER, names="hash")), tmp_path / "d")
    convert(choose(survey(folder), LIVER), tmp_path / "counted")
    for file in aside:
        (tmp_path / f"{file.parent.name}-{file.name}").rename(file)
    assert convert(choose(survey(folder), replace(LIVER, names="hash")), tmp_path / "d").written == 1
    assert len(Dataset.open(tmp_path / "d")) == 2
    with pytest.raises(BadFile, match="made from other scans"):
        convert(choose(survey(folder), LIVER), tmp_path / "counted")


def test_copies_count_once_and_scans_without_labels_go_to_the_test_set(tmp_path):
    for copy in "ab":
        make.dicom_series(tmp_path / "t" / copy, make.marked(make.TREE_GRIDS["CT"])[0], SeriesInstanceUID="1.2.3")
    originals = sorted((tmp_path / "t" / "a").iterdir())
    for file in (tmp_path / "t" / "b").iterdir():
        file.unlink()
        (tmp_path / "t" / "b" / file.name).write_bytes((tmp_path / "t" / "a" / file.name).read_bytes())
    found = survey(tmp_path / "t")
    assert (found.copies, found.images[0].slices) == (len(originals), 8)
    assert choose(found, Wish()).refusal
    convert(choose(found, Wish(unlabelled=True)), tmp_path / "d")
    description = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert (description["training"], description["test"]) == ([], ["./imagesTs/case_001.nii.gz"])
    with pytest.raises(BadFile, match="holds no DICOM images"):
        survey(tmp_path / "d")


def dice(a, b):
    return 2 * (a & b).sum() / (a.sum() + b.sum())


@pytest.mark.parametrize(("code", "name"), [("CT", "CT"), ("MR", "MR_T1"), ("PT", "PET")])
def test_the_real_sarcoma(tmp_path, code, name):
    """Three series of one study with contours each, all in one frame of reference."""
    found = survey(make.real_data("sarcoma-ct-mr-pet", "dicom"))
    convert(choose(found, Wish((Channel("", modality=code),))), tmp_path / "d")
    (case,) = Dataset.open(tmp_path / "d")
    labels = io.read_labels(case.label)
    truth = io.read_labels(make.real_data("sarcoma-ct-mr-pet", "dicom-truth", "STS_008", f"{name}_mask.nii.gz"))
    labels.grid.require_match(truth.grid, name)
    assert dice(labels.array > 0, truth.array > 0) >= 0.98  # 1.0 for all three when this was written


def test_the_real_sarcoma_as_channels(tmp_path):
    found = survey(make.real_data("sarcoma-ct-mr-pet", "dicom"))
    channels = (Channel("CT", modality="CT"), Channel("PET", modality="PT"), Channel("T1", modality="MR"))
    convert(choose(found, Wish(channels, {"tumour": ("GTV_Mass_CT",)})), tmp_path / "d")
    dataset = Dataset.open(tmp_path / "d")
    image = io.read_case(dataset.cases[0])
    assert dataset.channels == ("CT", "PET", "T1")
    assert np.array_equal(
        image.array[0], io.read(make.real_data("sarcoma-ct-mr-pet", "dicom", "STS_008", "CT", "image")).array[0]
    )
    tumour = io.read_labels(dataset.cases[0].label).array[0] > 0
    assert image.array[1][tumour].mean() > 3 * image.array[1][~tumour].mean()  # it takes up sugar


def test_the_real_brain_study(tmp_path):
    """Four registered series become four channels, voxel by voxel; the labels are drawn here."""
    folder = make.real_data("dicom-brain")
    files = sorted((folder / "Study3" / "11-T1post-18670").iterdir())
    scan = io.read(files[0].parent).as_stored()
    mask = np.zeros(scan.grid.shape, np.uint8)
    mask[8:12, 100:140, 90:130] = 1
    place = {f: float(np.dot(pydicom.dcmread(f).ImagePositionPatient, scan.grid.direction[0])) for f in files}
    make.dicom_seg(tmp_path / "t" / "seg", sorted(files, key=place.get), {"lesion": mask})
    for series in (folder / "Study3").iterdir():
        (tmp_path / "t" / series.name).mkdir()
        for file in series.iterdir():
            (tmp_path / "t" / series.name / file.name).symlink_to(file)
    wanted = {"T1gd": "T1post", "T1": "T1pre*", "T2": "T2*", "FLAIR": "FLAIR*"}
    channels = tuple(Channel(name, "MR", pattern) for name, pattern in wanted.items())
    convert(choose(survey(tmp_path / "t"), Wish(channels)), tmp_path / "d")
    (case,) = Dataset.open(tmp_path / "d")
    image, labels = io.read_case(case), io.read_labels(case.label)
    for k, part in enumerate(("11-T1post-18670", "26401-T1prereg-52906", "37830-T2reg-78532", "36468-FLAIRreg-58706")):
        expected = io.read(folder / "Study3" / part)
        expected.grid.require_match(image.grid, part)
        assert np.array_equal(image.array[k], expected.array[0])
    assert labels.array.sum() == mask.sum()

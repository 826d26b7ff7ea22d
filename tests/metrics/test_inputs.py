"""What `attentus.score` takes: folders as tools leave them, names instead of numbers, other grids, several methods."""

from __future__ import annotations

import json
from pathlib import Path

import make
import nibabel as nib
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attentus import io
from attentus.errors import BadFile, BadInput, GridMismatch
from attentus.metrics import Sides, score, score_many
from attentus.metrics.cohorts import Cohort, find_cases, mask_files, match_cases
from attentus.metrics.inputs import read_labelled
from attentus.metrics.structures import relabel
from attentus.types import Grid, Volume

GRID = Grid((6, 20, 20), (3.0, 1.0, 1.0), (5.0, -3.0, 40.0))


@pytest.fixture
def liver():
    mask = np.zeros(GRID.shape, np.uint8)
    mask[1:4, 3:9, 3:9] = 1
    return mask


@pytest.fixture
def tumour():
    mask = np.zeros(GRID.shape, np.uint8)
    mask[2:4, 12:17, 10:18] = 1
    return mask


def write(file: Path, labels, grid=GRID):
    io.write(Volume(np.asarray(labels)[None], grid), file)
    return file


def describe(folder: Path, labels, name="labels.json", **more):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps({"labels": labels, **more}))


def dice(scores):
    return {(row.case, row.structure): row.value for row in scores.select(metric="dice")}


# Names


def test_labels_are_matched_by_name_whatever_their_numbers(tmp_path, liver, tumour):
    write(tmp_path / "p" / "a.nii.gz", 2 * liver + 7 * tumour)
    write(tmp_path / "r" / "a.nii.gz", 1 * liver + 2 * tumour)
    describe(tmp_path / "p", {"liver": 2, "Tumour": 7, "spleen": 3})
    describe(tmp_path / "r", {"0": "background", "1": "Liver", "2": "tumour", "3": "bowel"}, "dataset.json")
    scores = score(tmp_path / "p", tmp_path / "r")
    assert dice(scores) == {("a", "Liver"): 1, ("a", "tumour"): 1}
    assert scores.rules["not scored"] == "spleen (prediction only), bowel (reference only)"
    describe(tmp_path / "p", {"hepar": 2})
    with pytest.raises(BadInput, match=r"no name is on both sides(?s:.*)hepar(?s:.*)Liver, tumour, bowel"):
        score(tmp_path / "p", tmp_path / "r")
    scores = score(tmp_path / "p", tmp_path / "r", labels={"liver": Sides("hepar", 1)})
    assert dice(scores) == {("a", "liver"): 1}


def test_names_of_one_side_hold_for_both(tmp_path, liver):
    write(tmp_path / "p" / "a.nii.gz", 4 * liver)
    write(tmp_path / "r" / "a.nii.gz", 4 * liver)
    describe(tmp_path / "p", {"background": 0, "organ": [4, 5], "ignore": 9}, "dataset.json")
    assert dice(score(tmp_path / "p", tmp_path / "r")) == {("a", "organ"): 1}
    assert dice(score(tmp_path / "r", tmp_path / "p")) == {("a", "organ"): 1}
    assert dice(score(tmp_path / "r", tmp_path / "r")) == {("a", "label 4"): 1}


def test_values_can_be_given_for_each_side(liver, tumour):
    given = {"labels": {"liver": Sides(1, 255), "any": "any", "both": Sides((1, 2), (255, 9))}, "spacing": (3, 1, 1)}
    scores = score(liver + 2 * tumour, 255 * liver + 9 * tumour, **given)
    assert set(dice(scores).values()) == {1}
    scores = score(liver, 255 * liver, labels=({"liver": 1, "x": 2}, {"liver": 255}), spacing=(3, 1, 1))
    assert dice(scores) == {("case", "liver"): 1}
    assert scores.rules["not scored"] == "x (prediction only)"


@settings(max_examples=50)
@given(st.data())
def test_other_numbers_change_no_score(data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**16)))
    found, truth = (rng.integers(0, 5, (3, 4, 5)).astype(np.uint8) for _ in range(2))
    values = st.sets(st.integers(0, 4), max_size=4).map(lambda s: tuple(sorted(s)))
    structures = data.draw(st.dictionaries(st.sampled_from("abc"), st.one_of(values, st.just("any")), min_size=1))
    numbers = np.array(data.draw(st.permutations(range(5))), np.uint8)
    if "any" in structures.values():
        numbers = np.array([0, *(n for n in numbers if n)], np.uint8)
    other = {n: v if v == "any" else tuple(int(numbers[i]) for i in v) for n, v in structures.items()}
    moved, labels = relabel(numbers[found], truth, {n: (other[n], structures[n]) for n in structures})

    def mask(array, values):
        return array > 0 if values == "any" else np.isin(array, values)

    for name, values in structures.items():
        assert np.array_equal(mask(moved, labels[name]), mask(found, values))
        assert np.array_equal(mask(truth, labels[name]), mask(truth, values))


def test_any_on_one_side_only(liver, tumour):
    labels = {"organs": Sides("any", (1, 2)), "liver": Sides(5, 1), "all": Sides(5, "any")}
    scores = score(5 * liver + 6 * tumour, liver + 2 * tumour, labels=labels, spacing=(3, 1, 1))
    assert dice(scores)["case", "organs"] == dice(scores)["case", "liver"] == 1
    assert dice(scores)["case", "all"] == pytest.approx(2 * 108 / (108 + 188))


def test_names_that_are_not_there_are_refused(tmp_path, liver):
    write(tmp_path / "p" / "a.nii.gz", liver)
    write(tmp_path / "r" / "a.nii.gz", liver)
    describe(tmp_path / "p", {"liver": 1})
    with pytest.raises(BadInput, match=r"The prediction has no label 'livr'. Did you mean 'liver'"):
        score(tmp_path / "p", tmp_path / "r", labels={"l": Sides("livr", 1)})
    with pytest.raises(BadInput, match="the reference does not name its labels"):
        score(tmp_path / "p", tmp_path / "r", labels={"l": "liver"})
    (tmp_path / "p" / "labels.json").write_text("{")
    with pytest.raises(BadFile, match=r"labels\.json: names no labels that can be read"):
        score(tmp_path / "p", tmp_path / "r")


def test_names_inside_files(tmp_path, liver, tumour):
    text = (
        '<?xml version="1.0"?><CaretExtension><VolumeInformation Index="0"><LabelTable>'
        '<Label Key="5" Red="1" Green="0" Blue="0" Alpha="1"><![CDATA[liver]]></Label>\n'
        '<Label Key="6" Red="1" Green="0" Blue="0" Alpha="1"><![CDATA[tumour]]></Label>'
        "</LabelTable></VolumeInformation></CaretExtension>"
    )
    image = nib.load(write(tmp_path / "a.nii.gz", 5 * liver + 6 * tumour))
    image.header.extensions.append(nib.nifti1.Nifti1Extension(0, text.encode()))
    nib.save(image, tmp_path / "p.nii.gz")
    write(tmp_path / "r.nii.gz", 2 * liver + 1 * tumour)
    (tmp_path / "r.label").write_text(
        '# ITK-SNAP\n    0     0    0    0        0  0  0    "Clear Label"\n'
        '    2   255    0    0        1  1  1    "Liver"\n    1     0  255    0        1  1  0    "Tumour"\n'
    )
    assert dice(score(tmp_path / "p.nii.gz", tmp_path / "r.nii.gz")) == {("p", "Liver"): 1, ("p", "Tumour"): 1}
    import SimpleITK as sitk

    slicer = sitk.GetImageFromArray(9 * liver)
    slicer.SetSpacing(GRID.spacing[::-1])
    slicer.SetOrigin(GRID.origin)
    slicer.SetMetaData("Segment0_Name", "liver")
    slicer.SetMetaData("Segment0_LabelValue", "9")
    sitk.WriteImage(slicer, str(tmp_path / "s.seg.nrrd"))
    assert dice(score(tmp_path / "s.seg.nrrd", tmp_path / "r.nii.gz")) == {("s.seg", "Liver"): 1}


# Folders


def test_what_tools_leave_beside_labels_is_passed_over(tmp_path, liver):
    folder = tmp_path / "p"
    for name in ("c_1", "c_1_probabilities", "c_1_attention_up-1_gate", "c_2", "c_3_probabilities"):
        write(folder / f"{name}.nii.gz", liver)
    for name in ("dataset.json", "plans.json", "c_1.npz", "c_1.pkl", "preview_total.png", ".hidden.nii.gz"):
        (folder / name).write_text("{}")
    assert list(find_cases(folder).cases) == ["c_1", "c_2", "c_3_probabilities"]


def test_folders_of_cases(tmp_path, liver):
    write(tmp_path / "p" / "a" / "seg.nii.gz", liver)
    write(tmp_path / "p" / "b" / "b_flair.nii.gz", liver)
    write(tmp_path / "p" / "b" / "b_seg.nii.gz", liver)
    write(tmp_path / "p" / "c" / "liver.nii.gz", liver)
    write(tmp_path / "p" / "d" / "segmentations" / "liver.nii.gz", liver)
    write(tmp_path / "p" / "d" / "ct.nii.gz", 9 * liver)
    write(tmp_path / "p" / "e" / "GTV.nii.gz", liver)
    write(tmp_path / "p" / "e" / "CTV.nii.gz", liver)
    (tmp_path / "p" / "empty").mkdir()
    for k in range(2):
        io.write(Volume.from_array(liver[2:3]), tmp_path / "p" / "f" / f"{k}.png")
    found = {
        case: path.relative_to(tmp_path / "p").as_posix() for case, path in find_cases(tmp_path / "p").cases.items()
    }
    assert found == {
        "a": "a/seg.nii.gz",
        "b": "b/b_seg.nii.gz",
        "c": "c",
        "d": "d/segmentations",
        "e": "e",
        "f": "f",
    }
    with pytest.raises(BadFile, match="holds no label files"):
        find_cases(tmp_path / "p" / "empty")
    with pytest.raises(BadFile, match="is no folder"):
        find_cases(tmp_path / "nowhere")


def test_two_files_of_one_case_are_not_guessed_between(tmp_path, liver):
    for file in ("p/a.nii.gz", "p/a.nrrd", "p/b.nii.gz", "r/a.nii.gz", "r/b.nii.gz"):
        write(tmp_path / file, liver)
    scores = score(tmp_path / "p", tmp_path / "r")
    assert scores.cases == ["b"]
    assert scores.failures == {"a": "a.nii.gz and a.nrrd are both of this case; remove one"}


@pytest.mark.parametrize(
    ("predictions", "references", "pairs"),
    [
        (["x", "y"], ["x", "y"], ["x", "y"]),
        (["BraTS_1", "BraTS_2"], ["BraTS_1-seg", "BraTS_2-seg"], ["BraTS_1", "BraTS_2"]),
        (["a_pred", "b_pred"], ["a_gt", "b_gt"], ["a", "b"]),
        (["volume-3"], ["segmentation-3"], ["3"]),
        (["a_seg", "a_pred", "b"], ["a", "b"], ["b"]),  # which of the two is meant?
        (["a", "a_seg"], ["a"], ["a"]),
    ],
)
def test_roles_in_names_are_left_out_where_that_is_unique(predictions, references, pairs):
    sides = [
        Cohort({name: Path(side, name) for name in names}) for side, names in (("p", predictions), ("r", references))
    ]
    found, alone = match_cases(*sides)
    assert list(found) == pairs
    assert len(alone) + 2 * len(found) == len(predictions) + len(references)


def test_one_file_per_structure(tmp_path, liver, tumour):
    masks = tmp_path / "total"
    write(masks / "liver.nii.gz", liver)
    write(masks / "kidney_left.nii.gz", tumour)
    write(masks / "kidney_right.nii.gz", np.roll(tumour, -2, axis=0))  # overlaps the left one
    (masks / "statistics.json").write_text("{}")
    truth = write(tmp_path / "truth.nii.gz", 3 * liver + 8 * tumour)
    describe(tmp_path, {"liver": 3, "kidney left": 8}, "dataset.json")
    scores = score(masks, truth)
    assert dice(scores) == {("total", "liver"): 1, ("total", "kidney left"): 1}
    kidneys = {"kidneys": Sides(("kidney_left", "kidney_right"), 8), "liver": 3, "all": "any"}
    assert dice(score(masks, truth, labels=kidneys))["total", "kidneys"] == pytest.approx(2 * 80 / (80 + 160))
    assert dice(score(masks, truth, labels=kidneys))["total", "liver"] == 1  # a file has a name, 3 is the other side's
    (tmp_path / "dataset.json").unlink()
    write(tmp_path / "cohort" / "c1" / "liver.nii.gz", liver)
    write(tmp_path / "truths" / "c1.nii.gz", 3 * liver)
    with pytest.raises(BadInput, match="--label liver=liver:1"):
        score(tmp_path / "cohort", tmp_path / "truths" / "c1.nii.gz")
    scores = score(tmp_path / "cohort", tmp_path / "truths", labels={"liver": Sides("liver", 3)})
    assert dice(scores) == {("c1", "liver"): 1}


def test_a_scan_beside_the_masks_is_no_structure(tmp_path, liver):
    for name in ("ct", "case_T1", "vertebrae_T1", "rib_left_2", "GTV"):
        write(tmp_path / f"{name}.nii.gz", liver)
    assert sorted(mask_files(tmp_path)) == ["GTV", "rib_left_2", "vertebrae_T1"]


def test_a_structure_without_a_file_is_empty_and_a_mask_holds_one(tmp_path, liver, tumour):
    for case in ("a", "b"):
        write(tmp_path / "p" / case / "liver.nii.gz", liver)
        write(tmp_path / "r" / case / "liver.nii.gz", liver)
        write(tmp_path / "r" / case / "tumour.nii.gz", tumour)
    write(tmp_path / "p" / "a" / "tumour.nii.gz", tumour)
    scores = score(tmp_path / "p", tmp_path / "r")
    assert dice(scores)["a", "tumour"] == 1
    assert scores.select(case="b", structure="tumour").rows[0].note == "empty_prediction"
    write(tmp_path / "p" / "b" / "tumour.nii.gz", liver + 2 * tumour)
    scores = score(tmp_path / "p", tmp_path / "r")
    assert "tumour.nii.gz: holds several labels" in scores.failures["b"]


def test_one_prediction_against_a_cohort(tmp_path, liver):
    for case in ("a", "b"):
        write(tmp_path / "r" / f"{case}.nii.gz", liver)
    scores = score(write(tmp_path / "b.nrrd", liver), tmp_path / "r")
    assert (scores.cases, scores.failures) == (["b"], {})
    with pytest.raises(BadInput, match=r"None of 1 prediction\(s\)(?s:.*)predictions  z\n  references   a, b"):
        score(write(tmp_path / "z.nrrd", liver), tmp_path / "r")
    with pytest.raises(BadInput, match="two of one kind"):
        score(liver, tmp_path / "r", spacing=(3, 1, 1))


def test_cases_can_be_given_as_a_mapping(tmp_path, liver):
    file = write(tmp_path / "deep" / "down.nrrd", liver)
    assert dice(score({"a": file}, {"a": file}, labels={"liver": 1})) == {("a", "liver"): 1}


# Segmentations of DICOM


@pytest.fixture
def images(tmp_path):
    pytest.importorskip("highdicom", reason="needs attentus[dicom]")
    files = make.dicom_series(tmp_path / "series", make.marked(GRID)[0])
    return sorted(files, key=lambda file: pydicom.dcmread(file).ImagePositionPatient[2])


def test_a_seg_is_completed_with_the_slices_it_leaves_out(tmp_path, images, liver, tumour):
    make.dicom_seg(tmp_path / "p" / "a.dcm", images, {"Tumour": tumour, "Liver": liver})
    write(tmp_path / "r" / "a.nii.gz", liver + 2 * tumour)
    describe(tmp_path / "r", {"liver": 1, "tumour": 2})
    alone = score(tmp_path / "p" / "a.dcm", tmp_path / "r" / "a.nii.gz")
    assert dice(alone) == {("a", "liver"): 1, ("a", "tumour"): 1}
    assert dice(score(tmp_path / "p", tmp_path / "r")) == dice(alone)
    assert dice(score(tmp_path / "r", tmp_path / "p")) == {("a", "Tumour"): 1, ("a", "Liver"): 1}
    elsewhere = Grid(GRID.shape, GRID.spacing, (5.4, -3.0, 40.0))
    write(tmp_path / "moved.nii.gz", liver, elsewhere)
    with pytest.raises(GridMismatch, match=r"reference   6 × 20 × 20(?s:.*)prediction  3 × 20 × 20"):
        score(tmp_path / "p" / "a.dcm", tmp_path / "moved.nii.gz", labels={"liver": 2})


def test_two_segs_of_different_extent(tmp_path, images, liver, tumour):
    upper = np.where(np.arange(6)[:, None, None] > 1, liver, 0)
    make.dicom_seg(tmp_path / "a.dcm", images, {"liver": liver})
    make.dicom_seg(tmp_path / "b.dcm", images, {"liver": upper})
    expected = 2 * upper.sum() / (upper.sum() + liver.sum())
    for pair in (("a.dcm", "b.dcm"), ("b.dcm", "a.dcm")):
        (value,) = dice(score(*(tmp_path / name for name in pair))).values()
        assert value == pytest.approx(expected)
    low = np.where(np.arange(6)[:, None, None] < 2, liver, 0)
    make.dicom_seg(tmp_path / "c.dcm", images, {"liver": low})
    (value,) = dice(score(tmp_path / "c.dcm", tmp_path / "b.dcm")).values()  # neither holds the other
    assert value == 0


def test_overlapping_segments_are_scored_whole(tmp_path, images, liver):
    inner = np.zeros_like(liver)
    inner[2, 4:7, 4:7] = 1
    make.dicom_seg(tmp_path / "p" / "a" / "x.dcm", images, {"liver": liver, "lesion": inner})
    write(tmp_path / "r" / "a" / "liver.nii.gz", liver)
    write(tmp_path / "r" / "a" / "lesion.nii.gz", inner)
    assert set(dice(score(tmp_path / "p", tmp_path / "r")).values()) == {1}
    scores = score(tmp_path / "p", tmp_path / "r", labels={"organ": Sides(1, "liver")})
    assert dice(scores) == {("a", "organ"): 1}


def test_a_segment_that_one_patient_lacks_is_empty_there(tmp_path, images, liver, tumour):
    make.dicom_seg(tmp_path / "p" / "a.dcm", images, {"liver": liver, "tumour": tumour})
    make.dicom_seg(tmp_path / "p" / "b.dcm", images, {"liver": liver})
    for case in "ab":
        make.dicom_seg(tmp_path / "r" / f"{case}.dcm", images, {"tumour": tumour, "liver": liver})
    (tmp_path / "p" / "c.dcm").write_bytes((tmp_path / "p" / "a.dcm").read_bytes()[:400])
    make.dicom_seg(tmp_path / "r" / "c.dcm", images, {"tumour": tumour, "liver": liver})
    scores = score(tmp_path / "p", tmp_path / "r")
    assert dice(scores) == {("a", "tumour"): 1, ("a", "liver"): 1, ("b", "tumour"): 0, ("b", "liver"): 1}
    assert list(scores.failures) == ["c"]


# Grids


def test_another_grid_is_an_error_that_prints_both_or_is_repaired_on_request(tmp_path, liver, tumour):
    labels = liver + 2 * tumour
    fine = GRID.resampled((1.0, 0.5, 0.5))
    doubled = labels.repeat(3, 0).repeat(2, 1).repeat(2, 2)
    turned = make.ORIENTATIONS[17]
    write(tmp_path / "p" / "same.nii.gz", labels)
    io.write(Volume(turned.apply(doubled[None]), fine.reoriented(turned)), tmp_path / "p" / "fine.nii.gz")
    for case in ("same", "fine"):
        write(tmp_path / "r" / f"{case}.nii.gz", labels)
    scores = score(tmp_path / "p", tmp_path / "r")
    assert "reference   6 × 20 × 20 voxels, 3 × 1 × 1 mm, origin (5.00, -3.00, 40.00)" in scores.failures["fine"]
    assert "prediction  18 × 40 × 40 voxels, 1 × 0.5 × 0.5 mm, origin (4.75, -3.25, 39.00)" in scores.failures["fine"]
    assert "resample=True (--resample)" in scores.failures["fine"]
    scores = score(tmp_path / "p", tmp_path / "r", resample=True)
    assert scores.failures == {}
    assert set(dice(scores).values()) == {1}
    assert scores.rules["resampled"] == "1 of 2 predictions, nearest label: fine"


def test_resampling_works_at_any_angle_and_says_when_nothing_is_shared(tmp_path, liver):
    from scipy.ndimage import map_coordinates

    tilted = make.grid(oblique=5, shape=(12, 30, 30), spacing=(1.6, 0.9, 0.8))
    truth = Volume(liver[None], Grid(GRID.shape, GRID.spacing, tuple(tilted.world((6, 15, 15)) - (10, 10, 9))))
    rng = np.random.default_rng(0)
    found = Volume(rng.integers(0, 3, (1, *tilted.shape)).astype(np.uint8), tilted)
    io.write(found, tmp_path / "p.nrrd")
    io.write(truth, tmp_path / "r.nrrd")
    index = np.stack(np.meshgrid(*map(np.arange, GRID.shape), indexing="ij"), -1)
    places = tilted.index(truth.grid.world(index))
    nearest = map_coordinates(found.array[0], np.moveaxis(np.rint(places), -1, 0), order=0, cval=0)
    (value,) = dice(score(tmp_path / "p.nrrd", tmp_path / "r.nrrd", labels={"x": 1}, resample=True)).values()
    assert value == pytest.approx(2 * (nearest & liver == 1).sum() / ((nearest == 1).sum() + liver.sum()), abs=1e-3)
    write(tmp_path / "far.nrrd", liver, Grid(GRID.shape, GRID.spacing, (900.0, 0.0, 0.0)))
    with pytest.raises(GridMismatch, match=r"share no place(?s:.*)origin \(900\.00"):
        score(tmp_path / "far.nrrd", tmp_path / "r.nrrd", resample=True)
    with pytest.raises(GridMismatch, match="shapes differ"):
        score(liver, liver[1:], spacing=(3, 1, 1), resample=True)


def test_oblique_grids_print_where_they_point():
    straight, oblique = make.grid(), make.grid(oblique=1)
    assert "pointing" not in straight.describe()
    assert oblique.describe().count("(") == 4
    with pytest.raises(GridMismatch, match=r"pointing z \("):
        straight.require_match(oblique, "case")


def test_a_part_of_a_grid_finds_its_place():
    whole = make.grid(oblique=4)
    part = whole.cropped((1, 2, 0), (4, 5, 7))
    assert whole.offset_of(part) == (1, 2, 0)
    assert whole.offset_of(whole.cropped((-1, 0, 0), (2, 6, 7))) is None
    assert whole.offset_of(Grid(part.shape, part.spacing, tuple(whole.world((1.3, 2, 0))), part.direction)) is None
    volume, place = make.marked(part)
    np.testing.assert_allclose(make.marker_position(volume.laid_on(whole)), place)


# Arrays and memory


def test_small_labels_are_not_copied(liver):
    for array in (liver, liver.astype(np.uint16)):
        assert np.shares_memory(read_labelled(array, (3, 1, 1)).volume.array, array)
        assert np.shares_memory(read_labelled(Volume(array[None, :, ::-1], GRID)).volume.array, array)
    assert read_labelled(liver > 0, (3, 1, 1)).volume.array.dtype == np.uint8
    assert read_labelled(liver.astype(np.int64) * 300, (3, 1, 1)).volume.array.dtype == np.uint16
    with pytest.raises(BadFile, match="from -1 to 0"):
        read_labelled(liver.astype(int) - 1, (3, 1, 1))
    same, _ = relabel(liver, liver, {"liver": (1, (1,))})
    assert same is liver


def test_several_predictions_against_one_reference(tmp_path, liver, tumour):
    write(tmp_path / "r" / "a.nii.gz", liver)
    write(tmp_path / "one" / "a.nii.gz", liver)
    write(tmp_path / "two" / "a.nii.gz", tumour)
    scores = score_many({n: tmp_path / n for n in ("one", "two")}, tmp_path / "r", labels={"liver": 1})
    assert {name: found.mean("dice") for name, found in scores.items()} == {"one": 1, "two": 0}


# Real files


def test_real_predictions_of_two_models_are_matched_by_their_names():
    folder = make.real_data("ct-organs")
    scores = score(folder / "example_seg_fast.nii.gz", folder / "example_seg.nii.gz")
    assert len(scores.structures) == 117
    expected = {"liver": 0.981, "spleen": 0.977, "kidney_left": 0.973, "kidney_right": 0.964, "pancreas": 0.809}
    found = dice(scores)
    for name, value in expected.items():
        assert found["example_seg_fast", name] == pytest.approx(value, abs=6e-4), name


def test_real_segmentation_against_its_parts():
    folder = make.real_data("formats", "dicom-seg")
    pytest.importorskip("highdicom", reason="needs attentus[dicom]")
    scores = score(folder / "liver.dcm", folder / "liver_seg.nrrd")
    assert dice(scores) == {("liver", "Liver"): 1}
    overlapping = folder / "partial_overlaps.dcm"
    for number, labels in ((1, {"a": 1, "b": 4, "c": Sides("DARK_BLUE", 5)}), (2, {"a": 2}), (3, {"a": "any", "b": 3})):
        scores = score(overlapping, folder / f"partial_overlaps-{number}.nrrd", labels=labels)
        assert {v for (_, s), v in dice(scores).items() if s != "a" or number < 3} == {1}

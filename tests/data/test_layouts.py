"""Every layout on a faithful miniature: the right cases and names, labels where the scan shows them, clear refusals."""

from __future__ import annotations

import json
import pickle
import shutil

import make
import numpy as np
import pytest

from attentus import Dataset, io
from attentus.data.layouts import GENERAL, LAYOUTS
from attentus.data.resolve import resolve
from attentus.data.splits import part
from attentus.errors import BadFile, BadInput, RecipeError, UnknownName
from attentus.recipes import Recipe, Split
from attentus.types import Annotation

MINIATURES = {
    "msd": lambda place: make.dataset(place, cases=2),
    "nnunet": make.nnunet,
    "lits": make.lits,
    "3dircadb": make.ircadb,
    "chaos-ct": make.chaos_ct,
    "chaos-mr": make.chaos_mr,
    "brats": make.brats,
    "brats2015": make.brats2015,
    "pancreas-ct": make.pancreas_ct,
    "bids": make.bids,
    "list": make.listed,
    "stacks": make.stacks,
}


def seen(case):
    """Image and labels of a case, on one grid."""
    image, labels = io.read_case(case), io.read_labels(case.label)
    image.grid.require_match(labels.grid, case.id)
    return image.array, labels.array


def shows(case, values=(1, 2), channel=0):
    """Whether the labels lie where the scan shows them, voxel by voxel."""
    image, labels = seen(case)
    np.testing.assert_array_equal(image[channel] - 10 * channel, make.told(labels[0], values))
    assert labels.any()


def test_opening_reads_no_voxels(tmp_path, monkeypatch):
    places = {name: made(tmp_path / name) for name, made in MINIATURES.items()}

    def refuse(*_, **__):
        raise AssertionError("something was read")

    for reader in ("read_nifti", "read_series", "read_itk", "read_picture", "read_stack", "slices_of", "sniff"):
        monkeypatch.setattr(io, reader, refuse)
    for name, place in places.items():
        wanted = name if name in ("chaos-mr", "stacks") else None
        dataset = Dataset.open(place, wanted)
        assert dataset.layout == name
        assert len(dataset.labelled) >= 2
        assert pickle.loads(pickle.dumps(dataset)).cases == dataset.cases


def test_every_layout_has_a_miniature():
    assert set(LAYOUTS) - set(MINIATURES) == {"chaos-t1dual", "chaos-t2spir", "pairs"}


def test_lits(tmp_path):
    dataset = Dataset.open(make.lits(tmp_path, cases=12))
    assert [case.id for case in dataset][:3] == ["lits_000", "lits_001", "lits_002"]
    assert [case.id for case in dataset][-1] == "lits_011"
    assert dataset.labels == {"liver": 1, "liver tumour": 2}
    for case in dataset:
        shows(case)


def test_lits_partly_unpacked(tmp_path):
    make.lits(tmp_path)
    (tmp_path / "Training Batch 1" / "segmentation-1.nii").unlink()
    with pytest.raises(BadFile, match=r"incomplete: there is no segmentation-1(?s:.*)Unpack both batches"):
        Dataset.open(tmp_path)
    shutil.copy(next(tmp_path.rglob("segmentation-0.nii")), tmp_path / "segmentation-0.nii")
    with pytest.raises(BadFile, match="segmentation-0 is there twice"):
        Dataset.open(tmp_path)


def test_ircadb_merges_tumours_and_leaves_vessels_in_the_liver_to_it(tmp_path):
    dataset = Dataset.open(make.ircadb(tmp_path))
    assert [case.id for case in dataset] == ["3Dircadb1.1", "3Dircadb1.2"]
    names = dataset.labels
    assert set(names) == {"liver", "liver tumour", "portal vein", "skin", "gizmo"}
    assert (names["liver"], names["liver tumour"]) == (1, 2)
    assert dataset.regions == {"whole liver": ("liver", "liver tumour"), "cancer": ("liver tumour",)}
    image, labels = seen(dataset["3Dircadb1.1"])
    expected = {0: "skin", 100: "liver", 200: "liver tumour", 300: "liver", 400: "portal vein"}
    for shown, name in expected.items():
        assert set(np.unique(labels[image == shown])) == {names[name]}, name
    image, labels = seen(dataset["3Dircadb1.2"])  # no tumour
    assert set(np.unique(labels[image == 200])) == {names["liver"]}


def test_ircadb_still_packed(tmp_path):
    make.ircadb(tmp_path)
    shutil.rmtree(tmp_path / "3Dircadb1.2" / "PATIENT_DICOM")
    (tmp_path / "3Dircadb1.2" / "PATIENT_DICOM.zip").write_bytes(b"PK")
    with pytest.raises(BadFile, match=r"3Dircadb1.2/PATIENT_DICOM.zip is not unpacked"):
        Dataset.open(tmp_path)
    (tmp_path / "3Dircadb1.2" / "PATIENT_DICOM.zip").unlink()
    with pytest.raises(BadFile, match=r"3Dircadb1.2 has no PATIENT_DICOM"):
        Dataset.open(tmp_path)
    for file in (tmp_path / "3Dircadb1.1" / "MASKS_DICOM").rglob("image_*"):
        file.unlink()
    with pytest.raises(BadFile, match=r"3Dircadb1.1 has no MASKS_DICOM"):
        Dataset.open(tmp_path)


def test_ircadb_unpacked_into_folders_of_the_archives(tmp_path):
    make.ircadb(tmp_path)
    for patient in tmp_path.iterdir():
        for part_ in ("PATIENT_DICOM", "MASKS_DICOM"):
            (patient / part_).rename(patient / "x")
            (patient / part_).mkdir()
            (patient / "x").rename(patient / part_ / part_)
    assert set(seen(Dataset.open(tmp_path)["3Dircadb1.1"])[1].ravel()) >= {1, 2}


def test_chaos_ct_pictures_belong_to_slices_by_file_name(tmp_path):
    dataset = Dataset.open(make.chaos_ct(tmp_path))
    assert (dataset.layout, dataset.labels, dataset.channels) == ("chaos-ct", {"liver": 1}, ("CT",))
    for case in dataset:
        shows(case, (1,))
    alone = Dataset.open(tmp_path / "Train_Sets" / "CT" / "2")
    assert alone.cases == tuple(case for case in dataset if case.id == "2")


def test_chaos_mr_codes_and_channels(tmp_path):
    make.chaos_mr(tmp_path)
    codes = (63, 126, 189, 252)
    dual = Dataset.open(tmp_path, "chaos-t1dual")
    assert dual.channels == ("T1 in phase", "T1 out of phase")
    assert dual.labels == dict(zip(("liver", "right kidney", "left kidney", "spleen"), codes, strict=True))
    assert dual.regions == {"kidneys": ("right kidney", "left kidney")}
    for case in dual:
        shows(case, codes)
        shows(case, codes, channel=1)
    for case in Dataset.open(tmp_path, "chaos-t2spir"):
        shows(case, codes)
    each = Dataset.open(tmp_path, "chaos-mr")
    assert [case.id for case in each] == [f"{k}_{s}" for k in (1, 2) for s in ("T1DUAL_in", "T1DUAL_out", "T2SPIR")]
    assert {case.subject for case in each} == {"1", "2"}
    shows(each["2_T2SPIR"], codes)


def test_what_can_be_read_in_several_ways_is_not_guessed(tmp_path):
    make.chaos_mr(tmp_path)
    make.chaos_ct(tmp_path)
    with pytest.raises(BadFile, match="can be read in 4 ways") as error:
        Dataset.open(tmp_path)
    for name in ("chaos-ct", "chaos-t1dual", "chaos-t2spir", "chaos-mr", "--layout chaos-ct", "layout: chaos-ct"):
        assert name in str(error.value)
    assert Dataset.open(tmp_path / "Train_Sets" / "CT").layout == "chaos-ct"
    with pytest.raises(UnknownName, match=r"No layout is called 'chaos'\. Did you mean 'chaos-"):
        Dataset.open(tmp_path, "chaos")
    (tmp_path / "dataset.yaml").write_text("layout: chaos-t2spir\nname: Mine\n")
    assert (Dataset.open(tmp_path).name, Dataset.open(tmp_path).layout) == ("Mine", "chaos-t2spir")
    assert Dataset.open(tmp_path, "chaos-ct").layout == "chaos-ct"


def test_chaos_partly_there(tmp_path):
    make.chaos_ct(tmp_path)
    ground = tmp_path / "Train_Sets" / "CT" / "2" / "Ground"
    (ground / "liver_GT_005.png").unlink()
    with pytest.raises(BadFile, match=r"has 5 × 9 × 8 voxels.*where its image DICOM_anon has 6 × 9 × 8"):
        io.read_labels(Dataset.open(tmp_path)["2"].label)
    shutil.rmtree(ground)
    with pytest.raises(BadFile, match=r"Ground is not there or empty(?s:.*)Unpack"):
        Dataset.open(tmp_path)
    (tmp_path / "Train_Sets").rename(tmp_path / "Test_Sets")  # whose truth nobody has
    assert [case.id for case in Dataset.open(tmp_path).labelled] == ["1"]


def test_kidneys_are_merged_by_the_name_of_both(tmp_path):
    dataset = Dataset.open(make.chaos_mr(tmp_path), "chaos-t2spir")
    for labels in ({"kidneys": ["left kidney", "right kidney"]}, ["kidneys"]):
        (structure,) = resolve(make.recipe(labels=labels), dataset).labels
        assert (structure.name, set(structure.parts)) == ("kidneys", {"left kidney", "right kidney"})
    with pytest.raises(RecipeError, match=r"no label 'kidney'\. Did you mean 'kidneys'"):
        resolve(make.recipe(labels=["kidney"]), dataset)


@pytest.mark.parametrize("year", [2018, 2020, 2023])
def test_brats(tmp_path, year):
    dataset = Dataset.open(make.brats(tmp_path, year))
    assert dataset.channels == ("flair", "t1", "t1c", "t2")
    enhancing = 3 if year >= 2023 else 4
    assert dataset.labels == {"non-enhancing tumor": 1, "edema": 2, "enhancing tumour": enhancing}
    assert dataset.regions["tumour core"] == ("non-enhancing tumor", "enhancing tumour")
    for case in dataset:
        for channel in range(4):
            shows(case, (1, 2, enhancing), channel)
    if year >= 2023:
        assert [case.subject for case in dataset] == ["BraTS-GLI-00000", "BraTS-GLI-00000", "BraTS-GLI-00001"]


def test_regions_mean_the_same_whatever_the_numbers(tmp_path):
    wanted = make.recipe(labels=["whole tumour", "tumour core", "enhancing tumour"], regions=True)
    new, old = (Dataset.open(make.brats(tmp_path / str(year), year)) for year in (2023, 2020))
    parts = [{s.name: s.parts for s in resolve(wanted, dataset).labels} for dataset in (new, old)]
    assert parts[0] == parts[1]
    assert parts[0]["whole tumour"] == ("edema", "non-enhancing tumor", "enhancing tumour")
    folder = make.dataset(tmp_path / "msd", cases=2)
    tree = json.loads((folder / "dataset.json").read_text())
    tree["labels"] = {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    (folder / "dataset.json").write_text(json.dumps(tree))
    msd = Dataset.open(folder)
    assert {s.name: s.parts for s in resolve(wanted, msd).labels} == parts[0]


def test_brats_without_a_channel_or_of_two_conventions(tmp_path):
    make.brats(tmp_path, 2020)
    (tmp_path / "BraTS20_Training_002" / "BraTS20_Training_002_t1ce.nii.gz").unlink()
    with pytest.raises(BadFile, match=r"BraTS20_Training_002 has no BraTS20_Training_002_t1ce"):
        Dataset.open(tmp_path)
    shutil.rmtree(tmp_path / "BraTS20_Training_002")
    make.brats(tmp_path, 2023)
    with pytest.raises(BadFile, match="number the enhancing tumour differently"):
        Dataset.open(tmp_path)


def test_brats_2015(tmp_path):
    dataset = Dataset.open(make.brats2015(tmp_path))
    assert dataset.channels == ("flair", "t1", "t1c", "t2")
    assert dataset.regions["tumour core"] == ("necrosis", "non-enhancing tumor", "enhancing tumour")
    for case in dataset:
        shows(case, (1, 2, 3, 4), channel=2)
    assert dataset.cases[0].subject == "brats_2013_pat0001"


def test_pancreas_labels_follow_the_images_not_their_header(tmp_path):
    dataset = Dataset.open(make.pancreas_ct(tmp_path))
    for case in dataset:
        shows(case, (1,))
    case = dataset.cases[0]
    fitting = io.read_labels(case.label).as_stored()
    io.write(fitting.like(np.ascontiguousarray(fitting.array)), case.label.path, overwrite=True)
    shows(case, (1,))  # somebody wrote it again with a header that is right
    case.label.path.unlink()
    with pytest.raises(BadFile, match=r"there is no label0001\.nii\.gz(?s:.*)TCIA_pancreas_labels"):
        Dataset.open(tmp_path)


def test_nnunet(tmp_path):
    dataset = Dataset.open(make.nnunet(tmp_path))
    assert (dataset.layout, dataset.channels, dataset.ignore) == ("nnunet", ("CT", "PET"), ("ignore",))
    assert dataset.labels == {"rim": 1, "soup": 2, "ignore": 3}
    for case in dataset:
        shows(case, (1, 2, 3))
    resolved = resolve(make.recipe(), dataset)
    assert resolved.ignore == ("ignore",)
    assert [s.name for s in resolved.labels] == ["rim", "soup"]
    (tmp_path / "imagesTr" / "bowl_02_0001.nii.gz").unlink()
    with pytest.raises(BadFile, match=r"imagesTr has no bowl_02_0001\.nii\.gz"):
        Dataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text('{"channel_names": {"0": "CT"}, "labels": {"a": "b"}}')
    with pytest.raises(BadFile, match="not a complete description of nnU-Net"):
        Dataset.open(tmp_path)


def test_nnunet_regions(tmp_path):
    named = {"background": 0, "whole tumor": [1, 2, 3], "core": [2, 3], "enhancing": 3}
    dataset = Dataset.open(make.nnunet(tmp_path, labels=named, regions_class_order=[1, 2, 3]))
    assert dataset.labels == {"enhancing": 3, "label 1": 1, "label 2": 2}
    assert dataset.regions == {"whole tumor": ("label 1", "label 2", "enhancing"), "core": ("label 2", "enhancing")}
    recipe = resolve(make.recipe(labels=["whole tumor", "core", "enhancing"], regions=True), dataset)
    assert [s.value for s in recipe.labels] == [1, 2, 3]  # as nnU-Net writes them by its regions_class_order


def test_nnunet_lists_its_files_itself(tmp_path):
    make.nnunet(tmp_path / "raw", cases=2)
    images = [f"../raw/imagesTr/bowl_01_{k:04d}.nii.gz" for k in range(2)]
    entry = {"images": images, "label": "../raw/labelsTr/bowl_01.nii.gz"}
    tree = json.loads((tmp_path / "raw" / "dataset.json").read_text()) | {"dataset": {"one": entry}}
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(tree))
    (case,) = Dataset.open(tmp_path / "d")
    assert case.id == "one"
    shows(case, (1, 2, 3))


def test_splits_that_come_with_the_data(tmp_path):
    make.nnunet(tmp_path)
    ids = [f"bowl_{k:02d}" for k in range(4)]
    folds = [{"train": ids[1:], "val": ids[:1]}, {"train": ids[:1], "val": ids[1:]}]
    (tmp_path / "splits_final.json").write_text(json.dumps(folds))
    dataset = Dataset.open(tmp_path)
    train, validation, test = dataset.parts(Split(given=True, fold=1))
    assert [len(side) for side in (train, validation, test)] == [1, 3, 0]
    again = dataset.parts(Split(file=tmp_path / "splits_final.json", fold=1))
    assert [side.cases for side in again] == [side.cases for side in (train, validation, test)]
    with pytest.raises(BadInput, match=r"the splits of the dataset has 2 split\(s\)"):
        dataset.parts(Split(given=True, fold=2))
    with pytest.raises(BadInput, match="comes without splits"):
        part(dataset.cases, Split(given=True))
    (tmp_path / "splits_final.json").write_text('{"train": []}')
    with pytest.raises(BadFile, match="no list of"):
        Dataset.open(tmp_path)


@pytest.mark.parametrize("masks", [False, True])
def test_bids(tmp_path, masks):
    dataset = Dataset.open(make.bids(tmp_path, masks=masks))
    assert [case.id for case in dataset] == ["sub-01", "sub-02", "sub-03_ses-1", "sub-03_ses-2"]
    assert dataset.cases[-1].subject == "sub-03"
    assert (dataset.channels, dataset.labels) == (("FLAIR", "T1w"), {"cord": 1, "lesion": 2})
    for case in dataset:
        shows(case)
        shows(case, channel=1)
    assert Dataset.open(tmp_path / "derivatives" / "manual").cases == dataset.cases


def test_bids_with_labels_twice_or_a_missing_image(tmp_path):
    make.bids(tmp_path)
    shutil.copytree(tmp_path / "derivatives" / "manual", tmp_path / "derivatives" / "auto")
    with pytest.raises(BadFile, match=r"several derivatives: auto, manual(?s:.*)Open one of them"):
        Dataset.open(tmp_path)
    assert len(Dataset.open(tmp_path / "derivatives" / "auto")) == 4
    shutil.rmtree(tmp_path / "derivatives" / "auto")
    (tmp_path / "sub-02" / "anat" / "sub-02_FLAIR.nii.gz").unlink()
    with pytest.raises(BadFile, match="sub-02 has no FLAIR"):
        Dataset.open(tmp_path)


def test_a_list_as_table(tmp_path):
    dataset = Dataset.open(make.listed(tmp_path))
    assert (dataset.layout, dataset.channels) == ("list", ("FLAIR", "PET"))
    assert [(case.id, case.subject) for case in dataset] == [("c0", "p0"), ("c1", "p0"), ("c2", "p1"), ("c3", "p1")]
    for case in dataset:
        shows(case, channel=1)
    sides = dataset.parts(Split(given=True))
    assert [[case.id for case in side] for side in sides] == [["c0", "c1"], ["c2"], ["c3"]]
    (tmp_path / "names.yaml").write_text("root: cases.csv\nlabels: {rim: 1, soup: 2}\n")
    assert Dataset.open(tmp_path / "names.yaml").labels == {"rim": 1, "soup": 2}


def test_a_list_as_json(tmp_path):
    make.listed(tmp_path)
    rows = [{"case": f"c{k}", "image": [f"x/{k}0.nrrd", f"x/{k}1.nrrd"], "fold": k % 2} for k in range(4)]
    rows = [row | {"label": f"y/truth{k}.nii.gz"} for k, row in enumerate(rows)]
    tree = {
        "cases": rows,
        "channels": ["FLAIR", "PET"],
        "labels": {"rim": 1, "soup": 2},
        "regions": {"all": ["rim", "soup"]},
    }
    (tmp_path / "cases.json").write_text(json.dumps(tree))
    dataset = Dataset.open(tmp_path)
    assert (dataset.labels, dataset.regions) == ({"rim": 1, "soup": 2}, {"all": ("rim", "soup")})
    assert [split["val"] for split in dataset.splits] == [["c0", "c2"], ["c1", "c3"]]
    shows(dataset["c3"], channel=1)
    (tmp_path / "cases.json").write_text(json.dumps(rows))
    assert Dataset.open(tmp_path / "cases.json").channels == ("channel 1", "channel 2")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,image\na,x.nii\na,y.nii\n", "names the case 'a' twice"),
        ("case,image\na,\n", "row 1 has no image"),
        ("case,age\na,4\n", "no column of images among case, age"),
        ("case,image,split\na,x.nii,holdout\n", "has the split 'holdout'"),
        ("case,image\n", "lists no cases"),
    ],
)
def test_a_wrong_list_is_explained(tmp_path, text, message):
    (tmp_path / "l.csv").write_text(text)
    with pytest.raises(BadFile, match=message):
        Dataset.open(tmp_path / "l.csv")


def test_slices_are_volumes_or_cases_but_never_a_guess(tmp_path):
    make.stacks(tmp_path)
    with pytest.raises(BadFile, match=r"can be read in 2 ways(?s:.*)stacks(?s:.*)pairs"):
        Dataset.open(tmp_path)
    volumes = Dataset.open(tmp_path, "stacks")
    assert [case.id for case in volumes] == ["p0", "p1"]
    image, labels = seen(volumes["p1"])
    assert image.shape == (1, 11, 5, 4)
    np.testing.assert_array_equal(image, 100 * labels)
    drawn = np.random.default_rng(1).integers(0, 3, size=(11, 5, 4))
    np.testing.assert_array_equal(labels[0], drawn)  # slice 2 before slice 10
    slices = Dataset.open(tmp_path, "pairs")
    assert (len(slices), {case.subject for case in slices}) == (22, {"p0", "p1"})
    train, held_back = slices.split(folds=2)
    assert {case.subject for case in train}.isdisjoint({case.subject for case in held_back})


def test_tiff_pages_are_slices(tmp_path):
    from PIL import Image

    drawn = np.random.default_rng(0).integers(0, 3, size=(4, 5, 6)).astype(np.uint8)
    for side, factor in (("images", 100), ("labels", 1)):
        (tmp_path / side).mkdir()
        pages = [Image.fromarray(factor * page) for page in drawn]
        pages[0].save(tmp_path / side / "a.tif", save_all=True, append_images=pages[1:])
    (case,) = Dataset.open(tmp_path)
    image, labels = seen(case)
    np.testing.assert_array_equal(labels[0], drawn)
    np.testing.assert_array_equal(image[0], 100 * drawn)


def test_a_manifest_names_labels_regions_and_what_to_ignore(tmp_path):
    make.lits(tmp_path / "data")
    manifest = tmp_path / "m.yaml"
    manifest.write_text(
        "root: data\nlabels: {organ: 1, lesion: 2}\nregions: {all: [organ, lesion]}\nignore: [lesion]\n"
    )
    dataset = Dataset.open(manifest)
    assert (dataset.layout, dataset.labels) == ("lits", {"organ": 1, "lesion": 2})
    assert (dataset.regions, dataset.ignore) == ({"all": ("organ", "lesion")}, ("lesion",))
    manifest.write_text("root: data\nignore: [lesion]\n")
    with pytest.raises(BadFile, match=r"ignore: there is no label 'lesion'(?s:.*)liver, liver tumour"):
        Dataset.open(manifest)


def test_what_reads_datasets_reads_annotations(tmp_path):
    from attentus import score
    from attentus.data.cache import fingerprint, prepare_cases
    from attentus.metrics.cohorts import Cohort
    from attentus.train.farm.command import absolute

    dataset = Dataset.open(make.ircadb(tmp_path / "data"))
    case = dataset.cases[0]
    assert isinstance(case.label, Annotation)
    assert [f for f in dataset.check() if f.severity != "note"] == []
    moved = absolute(dataset)
    assert moved.cases[0].label == case.label.absolute()
    recipe = resolve(make.recipe(labels=["liver", "cancer"]), dataset)
    ready, failures = prepare_cases(dataset, recipe, tmp_path / "cache")
    assert (len(ready), failures) == (2, {})
    key = fingerprint(case, recipe, dict(dataset.labels))
    other = Annotation(case.label.parts[::-1])
    assert fingerprint(type(case)(case.id, case.images, other), recipe, dict(dataset.labels)) != key
    truth = Cohort({c.id: c.label for c in dataset}, {"liver": (1,)})
    io.write(io.read_labels(case.label), tmp_path / "p" / f"{case.id}.nii.gz")
    assert score({case.id: tmp_path / "p" / f"{case.id}.nii.gz"}, truth).value(case.id, "liver", "dice") == 1


SHIPPED = [
    *(("lits", f"{net}") for net in ("anu-net-lits", "dpc-net-lits", "ra-unet-liver", "ra-unet-tumour")),
    ("3dircadb", "ra-unet-tumour"),
    *(("chaos-mr", f"anu-net-chaos-{organ}") for organ in ("liver", "kidney", "spleen")),
    *(("brats", name) for name in ("ra-unet-brats", "msconvlstm-att-brats")),
    ("pancreas-ct", "attention-unet-ct82"),
]


@pytest.mark.parametrize(("layout", "name"), SHIPPED)
def test_recipes_of_papers_find_their_labels(tmp_path, layout, name):
    dataset = Dataset.open(MINIATURES[layout](tmp_path), layout)
    recipe = resolve(Recipe.load(name), dataset)
    for structure in recipe.labels:
        assert structure.parts
        assert set(structure.parts) <= set(dataset.labels)


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - set(GENERAL)))
def test_no_layout_takes_what_it_is_asked_to_but_cannot(tmp_path, layout):
    (tmp_path / "readme.txt").write_text("nothing")
    with pytest.raises(BadFile):
        Dataset.open(tmp_path, layout)


def test_every_layout_is_in_the_help_and_has_a_name_for_messages():
    from attentus.cli.data import Layout

    (option,) = Layout.__metadata__
    listed = option.help.split(": ", 1)[1].rstrip(".").split(", ")
    assert listed == list(LAYOUTS)
    assert all(layout.LOOKS_LIKE for layout in LAYOUTS.values())

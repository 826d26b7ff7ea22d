"""Layouts on real scans, where they are at hand: labels lie on what they show."""

from __future__ import annotations

import make
import numpy as np
import pytest

from attentus import Dataset, io
from attentus.data.resolve import resolve
from attentus.data.splits import deal
from attentus.recipes import Recipe


def seen(case):
    image, labels = io.read_case(case), io.read_labels(case.label)
    image.grid.require_match(labels.grid, case.id)
    return image, labels


def test_chaos_ct_liver_lies_on_liver():
    dataset = Dataset.open(make.real_data("chaos-ct-liver"))
    assert (dataset.layout, dataset.labels, len(dataset)) == ("chaos-ct", {"liver": 1}, 1)
    image, labels = seen(dataset.cases[0])
    assert image.grid.shape == (78, 512, 512)
    assert image.grid.spacing == pytest.approx((2.0, 0.7266, 0.7266), abs=1e-3)
    liver = labels.array[0] == 1
    hu = image.array[0]
    turned = {"as read": liver, "feet first": liver[::-1], "mirrored": liver[:, :, ::-1], "upside down": liver[:, ::-1]}
    spread = {how: float(hu[mask].std()) for how, mask in turned.items()}
    assert spread.pop("as read") < 35
    assert min(spread.values()) > 100
    assert 100 < np.median(hu[liver]) < 180  # after contrast
    # slices 7 to 77 in file order, which runs from head to feet: the liver touches the lowest one
    rows = np.flatnonzero(liver.any(axis=(1, 2)))
    assert (rows.min(), rows.max()) == (0, 77 - 7)
    x = np.argwhere(liver)[:, 2]
    assert x.mean() < 256  # on the patient's right


def test_brats_2015():
    dataset = Dataset.open(make.real_data("brats2015"))
    assert (dataset.layout, dataset.channels, len(dataset)) == ("brats2015", ("flair", "t1c"), 2)
    for case in dataset:
        image, labels = seen(case)
        assert image.channels == 2
        flair, contrast = image.array
        values = dataset.labels
        assert flair[labels.array[0] == values["edema"]].mean() > flair[flair > flair.min()].mean() + 0.5
        assert contrast[labels.array[0] == values["enhancing tumour"]].mean() > 1.5
    recipe = resolve(Recipe.load("brats2015-attention-unet"), dataset)
    assert [s.name for s in recipe.labels] == ["WT", "TC", "ET"]
    assert {s.name: s.parts for s in recipe.labels}["TC"] == ("non-enhancing tumor", "necrosis", "enhancing tumour")


@pytest.mark.parametrize(
    ("folder", "layout", "cases", "subjects"),
    [
        ("hippocampus", "msd", 208, 208),
        ("left-atrium", "pairs", 3, 3),
        ("em-membrane-2d", "pairs", 6, 6),
        ("liver-2d", "pairs", 277, 277),
        ("sarcoma-ct-mr-pet/nifti", "pairs", 6, 2),
    ],
)
def test_what_is_recognised(folder, layout, cases, subjects):
    dataset = Dataset.open(make.real_data(*folder.split("/")))
    assert (dataset.layout, len(dataset.labelled)) == (layout, cases)
    assert len({case.subject for case in dataset}) == subjects
    seen(dataset.labelled[0])


def test_liver_slices_of_a_patient_stay_together(tmp_path):
    manifest = tmp_path / "livers.yaml"
    folder = make.real_data("liver-2d")
    manifest.write_text(f"root: {folder}\nlabels: {{liver: 255}}\nsubject: '_(\\d+)_'\n")
    dataset = Dataset.open(manifest)
    assert len({case.subject for case in dataset}) == 98
    assert any("look like slices" in finding.problem for finding in Dataset.open(folder).check())
    assert not [f for f in dataset.check() if "look like slices" in f.problem]
    folds = deal(dataset.labelled, 5, 0)
    homes = [{case.split("_")[1] for case in fold} for fold in folds]
    assert sum(map(len, homes)) == 98


def test_a_list_finds_scans_whose_names_say_nothing(tmp_path):
    """Two labels of one CT, and one of an MR, in a folder without an order."""
    folder = make.real_data("ct-organs")
    rows = ["case,image,label,patient"]
    for case, image, label in (
        ("ct", "example_ct_sm", "example_seg_fast"),
        ("mr", "example_mr_sm", "example_seg_mr"),
    ):
        rows.append(f"{case},{folder / image}.nii.gz,{folder / label}.nii.gz,{case}")
    (tmp_path / "organs.csv").write_text("\n".join(rows))
    for case in Dataset.open(tmp_path / "organs.csv"):
        seen(case)


def test_pairs_among_odd_formats(tmp_path):
    folder = make.real_data("formats")
    dataset = Dataset.open(folder)
    assert {case.id for case in dataset.labelled} >= {"breast1"}
    for case in dataset.labelled:
        seen(case)

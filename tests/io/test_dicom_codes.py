"""Codes of structures: what names mean, whatever their spelling, side and order; what others choose instead."""

from __future__ import annotations

import pytest
from pydicom.sr.codedict import codes

from attentus.errors import BadFile
from attentus.io.dicom_codes import concepts, read_codes
from attentus.recipes import Coding

SCT = codes.SCT
ORGAN, ILL = SCT.AnatomicalStructure, SCT.MorphologicallyAbnormalStructure


def one(name, *others):
    return concepts([name, *others])[name]


@pytest.mark.parametrize(
    ("name", "code"),
    [
        *(("liver", "10200004"), ("Spleen", "78961009"), ("kidneys", "64033007"), ("pancreas", "15776009")),
        *(
            ("aorta", "15825003"),
            ("hippocampus", "5366008"),
            ("left_atrium", "82471001"),
            ("LeftVentricle", "87878005"),
        ),
        *(("oesophagus", "32849002"), ("gall bladder", "28231008"), ("postcava", "64131007"), ("lungs", "39607008")),
        *(("urinary bladder", "89837001"), ("vertebrae_L1", None), ("small bowel", "30315005"), ("brain", "12738006")),
    ],
)
def test_organs(name, code):
    found = one(name)
    assert found.category == ORGAN
    assert code is None or found.type.value == code
    assert (found.region, found.modifier) == (None, None)


@pytest.mark.parametrize("name", ["left kidney", "kidney_left", "Left Kidney", "LeftKidney", "kidneys (left)"])
def test_sides(name):
    found = one(name)
    assert (found.type, found.modifier) == (SCT.Kidney, SCT.Left)


@pytest.mark.parametrize(
    "name", ["liver tumour", "tumor of the liver", "LiverTumor", "liver_cancer", "Liver_Tumours", "liver neoplasm"]
)
def test_tumours_in_organs(name):
    found = one(name)
    assert (found.category, found.type, found.region) == (ILL, SCT.Neoplasm, SCT.Liver)


def test_a_tumour_lies_in_the_only_organ_there_is():
    assert concepts(["liver", "cancer"])["cancer"].region == SCT.Liver
    assert concepts(["liver", "spleen", "cancer"])["cancer"].region is None
    assert concepts(["liver", "kidney cyst"])["kidney cyst"].region == SCT.Kidney
    assert concepts(["GTV"])["GTV"].region is None


@pytest.mark.parametrize(
    "names",
    [
        ("WT", "TC", "ET", "ED"),
        ("whole tumour", "tumour core", "enhancing tumour", "oedema"),
        ("Whole_Tumor", "tumor-core", "GD-enhancing tumor", "peritumoral edema"),
    ],
)
def test_parts_of_gliomas(names):
    found = concepts(names)
    types = [found[name].type for name in names]
    assert types == [SCT.Neoplasm, SCT.Neoplasm, codes.NCIt.EnhancingLesion, SCT.Edema]
    assert {concept.region for concept in found.values()} == {SCT.Brain}


def test_the_decathlons_labels():
    found = concepts(["edema", "non-enhancing tumor", "enhancing tumour"])
    assert found["non-enhancing tumor"].type == codes.NCIt.NonEnhancingLesion
    found = concepts(["Anterior", "Posterior"])
    assert [c.type for c in found.values()] == [SCT.Hippocampus] * 2
    assert [c.modifier for c in found.values()] == [SCT.Anterior, SCT.Posterior]


def test_what_nobody_knows_is_tissue():
    found = concepts(["core", "shell", "Größe", "", "left thing"])
    assert {(c.category, c.type, c.region) for c in found.values()} == {(SCT.Tissue, SCT.Tissue, None)}


def test_colours_differ():
    names = ["liver", "left kidney", "right kidney", "spleen", *(f"thing {k}" for k in range(20))]
    found = concepts(names)
    assert len({concept.colour for concept in found.values()}) == len(names)
    assert found["liver"].colour == (221, 130, 101)


def test_chosen_codes_win():
    given = {
        "thing": Coding(type="99MADE:T:a: thing", category="SCT:49755003:Morphologically Abnormal Structure"),
        "tumour": Coding(region="SCT:15776009:Pancreas", colour=(1, 2, 3)),
        "nobody": Coding(type="SCT:1:x"),
    }
    found = concepts(["liver", "thing", "tumour"], given)
    assert set(found) == {"liver", "thing", "tumour"}
    assert (found["thing"].type.scheme_designator, found["thing"].type.meaning) == ("99MADE", "a: thing")
    assert found["thing"].category == ILL
    assert (found["tumour"].type, found["tumour"].region) == (SCT.Neoplasm, SCT.Pancreas)
    assert found["tumour"].colour == (1, 2, 3)


def test_codes_from_a_file(tmp_path):
    file = tmp_path / "codes.yaml"
    file.write_text('tumour: {type: "SCT:108369006:Neoplasm", colour: [255, 0, 0]}\n')
    assert read_codes(file)["tumour"].colour == (255, 0, 0)
    for text, problem in (
        ('tumour: {type: "108369006"}', r"tumour\.type: .*pattern"),
        ('tumour: {kind: "SCT:1:x"}', r"tumour\.kind"),
        ("[1, 2]", "it: "),
        ("a: [", "cannot be read"),
    ):
        file.write_text(text)
        with pytest.raises(BadFile, match=problem):
            read_codes(file)
    with pytest.raises(BadFile, match="cannot be read"):
        read_codes(tmp_path / "none.yaml")

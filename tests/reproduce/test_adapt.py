"""Recipes fitted to labels, scans and budgets: what changes, and what must not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from attentus import Recipe
from attentus.data.phantom import write_dataset
from attentus.errors import BadInput, RecipeError, UnknownName
from attentus.recipes import differences, load_cascade
from attentus.reproduce import Request, Wish, load_paper, make_plan
from attentus.reproduce.adapt import FOREGROUND, fitted, narrowed, small, spelt_out, to_scans, to_values
from attentus.reproduce.data import hounsfield, label_names, with_absent
from attentus.types import Grid


def grids(shape, spacing):
    return [Grid(shape, spacing, (0.0, 0.0, 0.0))] * 3


def test_labels_are_called_as_the_data_call_them():
    recipe = fitted(Recipe.load("ra-unet-tumour"), {"liver": ("organ",), "cancer": ("lesion a", "lesion b")})
    assert [(s.name, s.parts) for s in recipe.labels] == [("tumour", ("lesion a", "lesion b"))]
    assert recipe.sampling.within == ("organ",)
    assert recipe.sampling.only_with == ("tumour",)


def test_what_the_data_lack_is_left_out_everywhere():
    whole = Recipe.load("attention-unet-ct150", ["sampling.structures=[spleen, pancreas]"])
    recipe = fitted(whole, {"pancreas": ("Anterior", "Posterior")})
    assert [s.name for s in recipe.labels] == ["pancreas"]
    assert recipe.sampling.structures == ("pancreas",)
    cleaned = Recipe.load(
        "dpc-net-lits", ["infer.clean={cancer: {inside: liver}}", "infer.codes={cancer: {region: 'SCT:1:Liver'}}"]
    )
    assert fitted(cleaned, {"cancer": ("tumour",)}).infer.clean["cancer"].inside is None
    with pytest.raises(RecipeError, match="none of tumour"):
        fitted(Recipe.load("ra-unet-tumour"), {"liver": ("organ",)})


def test_fine_tuning_keeps_outputs_that_the_data_lack():
    recipe = fitted(Recipe.load("attention-unet-ct82@aft"), {"pancreas": ("gland",)}, keep=True)
    assert [(s.name, s.parts) for s in recipe.labels][:2] == [("spleen", ("spleen",)), ("pancreas", ("gland",))]


def test_regions_of_which_only_the_inner_part_is_there_stay_apart():
    from attentus.data.resolve import values_in

    names = {"edema": ("core",), "enhancing tumour": ("shell",)}
    recipe = fitted(Recipe.load("msconvlstm-att-brats"), names)
    assert [(s.name, s.parts) for s in recipe.labels] == [
        ("WT", ("core", "shell")),
        ("TC", ("shell",)),
        ("ET", ("shell",)),
    ]
    values = [s.value for s in recipe.labels]
    assert values[0] == values[2] == 0  # the dataset's own
    assert values[1] not in range(60_000)
    assert values_in(recipe)["TC"] == (values[1], 0)


def test_a_cascade_without_tumours_still_finds_livers():
    from attentus.reproduce.plan import _each_stage

    plan = _each_stage(load_cascade("ra-unet-lits"), lambda one: fitted(one, {"liver": ("liver",)}))
    assert list(plan.stages) == ["box", "liver"]
    assert dict(plan.answer) == {"liver": "liver.liver"}


def test_spellings_are_tried_in_order_and_joined():
    source = load_paper("attention-unet").sources["ct150"]
    assert label_names(source, ["Pancreas", "left kidney", "right kidney", "spleen"], {}) == {
        "spleen": ("spleen",),
        "pancreas": ("Pancreas",),
        "kidney": ("right kidney", "left kidney"),
    }
    asked = {"pancreas": "Anterior + Posterior"}
    assert label_names(source, ["Anterior", "Posterior"], asked) == {"pancreas": ("Anterior", "Posterior")}
    assert label_names(source, ["label 255"], {}) == {"spleen": ("label 255",)}  # the only one stands for the first
    assert label_names(source, ["bone", "fat"], {}) == {}


def test_small_recipes_differ_by_the_rules_only():
    whole = Recipe.load("dpc-net-lits@spacor-max")
    recipe = small(whole)
    assert recipe.net.options["widths"] == [8, 16, 32, 64, 128]  # a quarter of the baseline's
    assert (recipe.net.options["pfe"], recipe.net.options["spa_pools"]) == (False, ["max"])
    assert recipe.train.patch == (64, 64, 64)
    assert recipe.prepare.spacing == (4.94, 3.8, 3.8)  # half the voxels, twice as large
    assert recipe.sampling.foreground == FOREGROUND
    changed = {line.split(":")[0].split(".")[0] for line in differences(whole, recipe)}
    assert changed == {"net", "prepare", "sampling", "train", "infer"}  # not loss, augment, labels, split, seed


def test_patches_become_multiples_and_slices_stay_whole():
    assert small(Recipe.load("attention-unet-ct150")).train.patch == (48, 64, 64)
    assert small(Recipe.load("attention-unet-ct150")).prepare.spacing == (4.0, 5.0, 5.0)
    for name in ("msconvlstm-att-brats", "msconvlstm-att-brats@unet"):
        recipe = small(Recipe.load(name))
        assert (recipe.train.patch, recipe.prepare.size) == ((96, 96), (None, 96, 96))
    box = small(Recipe.load("ra-unet-liver-box"))
    assert (box.train.patch, box.prepare.size, box.net.options["momentum"]) == ((96, 96), (None, 96, 96), 0.1)
    liver = small(Recipe.load("ra-unet-liver"))
    assert (liver.train.patch, liver.prepare.size) == ((32, 64, 64), (None, 64, 64))


def test_presets_are_spelt_out_before_widths_are_divided():
    assert spelt_out({"name": "attention-unet", "dims": 2, "options": {"preset": "anu"}}) == (
        "classic-unet",
        {"gated": True},
    )
    net = narrowed({"name": "attention-unet", "dims": 2, "options": {"preset": "anu"}})
    assert (net["name"], net["options"]) == ("classic-unet", {"gated": True, "width": 8})
    assert narrowed({"name": "unet", "dims": 3, "options": {"preset": "huge"}})["options"] == {"feature_scale": 6}
    assert narrowed({"name": "my-own", "dims": 3, "options": {"a": 1}})["options"] == {"a": 1}


def test_scans_of_a_few_centimetres_keep_their_voxels():
    crop = to_scans(Recipe.load("attention-unet-ct150"), grids((35, 51, 35), (1.0, 1.0, 1.0)))
    assert crop.prepare.spacing == "keep"
    assert crop.train.patch == (32, 48, 32)
    body = Recipe.load("attention-unet-ct150")
    assert to_scans(body, grids((100, 512, 512), (5.0, 0.8, 0.8))) == body
    slices = to_scans(Recipe.load("anu-net-lits"), grids((1, 51, 35), (1.0, 1.0, 1.0)))
    assert (slices.prepare.size, slices.train.patch) == ((None, 64, 48), (64, 48))
    assert to_scans(body, []) == body


def test_windows_in_hounsfield_units_are_for_ct():
    ct = Recipe.load("ra-unet-liver")
    assert to_values(ct, hounsfield=True) == ct
    [own] = to_values(ct, hounsfield=False).prepare.intensity
    assert (own.window, own.percentiles, own.normalise) == (None, (0.5, 99.5), "range")
    [own] = to_values(Recipe.load("dpc-net-lits"), hounsfield=False).prepare.intensity
    assert (own.scope, own.percentiles, own.normalise) == ("scan", (0.5, 99.5), "zscore")
    mri = Recipe.load("anu-net-chaos-liver")
    assert to_values(mri, hounsfield=False) == mri


def test_ct_is_told_by_the_channel_or_by_air(tmp_path):
    import make

    from attentus import Dataset

    made = Dataset.open(make.dataset(tmp_path / "data", cases=2))
    assert not hounsfield(made)
    named = {("CT",): True, ("arterial CT",): True, ("T2", "ct_venous"): True, ("actual",): False, ("T1w",): False}
    for channels, expected in named.items():
        assert hounsfield(replace(made, declared_channels=channels)) is expected
    write_dataset(tmp_path / "phantom", 1, coarse=8)
    assert hounsfield(replace(Dataset.open(tmp_path / "phantom"), declared_channels=("image",)))


def test_absent_labels_get_free_integers():
    from attentus import Dataset

    dataset = Dataset("made", None, "pairs", (), ("CT",), {"pancreas": 255})
    assert with_absent(dataset, ["spleen", "kidney"]).labels == {"pancreas": 255, "spleen": 254, "kidney": 253}


def test_data_for_a_part_of_the_paper_serve_that_part(tmp_path):
    import make

    folder = make.dataset(tmp_path / "data", cases=4)
    paper, wish = load_paper("ra-unet"), Wish((), 5.0, "small", 1)
    asked = Request({"": folder}, {"liver": "core"}, 24, 3.0)
    plan = make_plan(paper, asked, wish, tmp_path / "out", None)
    why = {step.key: step.why for step in plan.steps}
    assert why["lits-cascade"] == why["lits-unet-2d"] == ""
    assert "none of the labels edema" in why["brats"]
    halves = [{m.dataset[c.id].id for c in m.dataset} for key, m in plan.materials.items() if key != "brats"]
    assert len(halves[0]) == len(halves[1]) == 2
    assert not halves[0] & halves[1]  # what is tried on other data has not seen them
    assert any("core stands in for liver" in line for line in plan.differs())
    assert any("have no cancer" in line for line in plan.differs())
    assert any("values have no unit here" in line for line in plan.differs())
    one = make_plan(paper, Request({"lits": folder}, {"liver": "core"}, 24, 3.0), wish, tmp_path / "out", None)
    assert "no data are given" in {step.key: step.why for step in one.steps}["ircadb-cascade"]


def test_wishes_that_cannot_be_met_are_refused_before_anything_runs(tmp_path):
    import make

    folder = make.dataset(tmp_path / "data", cases=4)
    paper, wish = load_paper("anu-net"), Wish(("2",), 5.0, "small", 1)

    def plan(data, structures):
        return make_plan(paper, Request(data, structures, 24, 3.0), wish, tmp_path / "out", None)

    with pytest.raises(UnknownName, match=r"source of data in the paper 'anu-net'"):
        plan({"brats": folder}, {})
    with pytest.raises(UnknownName, match="structure in the recipes"):
        plan({"": folder}, {"pancreas": "core"})
    with pytest.raises(BadInput, match="no such label"):
        plan({"": folder}, {"liver": "kore"})
    with pytest.raises(BadInput, match="--structure 'liver=core\\+shell'"):
        plan({"": folder}, {})

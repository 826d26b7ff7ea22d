"""Post-processing chosen by measuring, with a net that says what the scan shows, islands and all."""

from __future__ import annotations

import json

import make
import numpy as np
import pytest
import torch
from torch import nn

from attentus import Dataset, Model, io
from attentus.data.resolve import resolve
from attentus.errors import BadFile, BadInput
from attentus.recipes import Clean, Recipe, dump
from attentus.train.evaluate import evaluate
from attentus.train.fitting import _continue_or_begin
from attentus.train.heldback import Held, runs_of
from attentus.train.postprocess import BEFORE, just_above, tune
from attentus.types import Volume

CUTS = {"island": (0, (2, 2, 2)), "hole": (1, (1, 1, 1))}


class Echo(nn.Module):
    """Sees 0 in the scan as background, 1 as class 1, 1.8 as probably class 2."""

    def __init__(self, classes):
        super().__init__()
        self.weight = nn.Parameter(torch.arange(float(classes)))

    def forward(self, x):
        centres = self.weight.view(1, -1, *([1] * (x.ndim - 2)))
        return (-8 * (x - centres) ** 2,)


def scene(k: int):
    """A liver with a tumour in it; the scan also shows islands of both far off, a hole, and a tumour's faint rim."""
    labels = np.zeros((10, 20, 24), np.uint8)
    labels[2:8, 3:15, 3:15] = 1
    labels[3:6, 6 : 9 + k % 2, 6:10] = 2
    image = labels.astype(np.float32)
    image[2:4, 10:12, 18:20] = 1  # 8 voxels of false liver
    image[6:8, 16:18, 4 + k : 7 + k] = 2  # false tumour outside
    image[6, 12, 12] = 2  # false tumour inside
    image[4:6, 11:13, 5] = 0  # a hole
    image[3:6, 6 : 9 + k % 2, 9] = 1.45  # more likely liver
    return image, labels


def build(tmp_path, cases=4, **changes):
    """A dataset of scenes and an echoing model whose held-back cases are all of them."""
    names = {"liver": 1, "tumour": 2}
    entries = []
    for k in range(cases):
        for part, array in zip(("images", "labels"), scene(k), strict=True):
            volume = Volume.from_array(array, (2.0, 5.0, 5.0))
            io.write(volume, tmp_path / "data" / f"{part}Tr" / f"c{k}.nii.gz")
        entries.append({part: f"./{part}sTr/c{k}.nii.gz" for part in ("image", "label")})
    labels = {"0": "background", **{str(v): n for n, v in names.items()}}
    facts = {"name": "Scenes", "modality": {"0": "CT"}, "labels": labels, "training": entries}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(facts))
    data = Dataset.open(tmp_path / "data")
    keep = {"prepare__spacing": "keep", "prepare__intensity": [{"normalise": "none"}], "infer__overlap": 0.0}
    return data, resolve(make.recipe(**keep, split__folds=2, **changes), data)


def save(folder, data, recipe, held=None):
    Model(recipe, Echo(len(recipe.outputs))).save(folder)
    ids = [case.id for case in data] if held is None else held
    (folder / "data.json").write_text(json.dumps({"labels": dict(data.labels), "validation": dict.fromkeys(ids, "")}))
    (folder / "scores.json").write_text("{}")
    return folder


@pytest.fixture(autouse=True)
def _echoes(monkeypatch):
    monkeypatch.setattr("attentus.infer.model.create_net", lambda recipe: Echo(len(recipe.outputs)))


@pytest.fixture
def echo(tmp_path):
    data, recipe = build(tmp_path)
    return data, save(tmp_path / "model", data, recipe)


def test_what_helps_is_found_and_put_into_the_model(echo):
    data, folder = echo
    before = (folder / "recipe.yaml").read_text()
    tuned = tune(folder, data)
    found = {name: how.model_dump(exclude_defaults=True) for name, how in tuned.clean.items()}
    assert tuned.taken
    assert found["tumour"] == {"inside": "liver", "largest": True}
    assert found["liver"] == {"threshold": 0.7, "largest": True, "fill_holes": True}  # the rim is liver by 0.69
    assert all(states["chosen"] == 1 for states in tuned.dice.values())
    assert all(states["raw"] < 0.99 for states in tuned.dice.values())
    assert tuned.gain("honest") == pytest.approx(tuned.gain())
    assert (tuned.parts, tuned.agreement) == (4, 4)
    assert Recipe.load(folder / "recipe.yaml").infer.clean == tuned.clean
    assert (folder / BEFORE).read_text() == before
    facts = json.loads((folder / "postprocess.json").read_text())
    assert facts["clean"] == found
    assert {trial["kept"] for trial in facts["trials"]} == {True, False}
    case = data["c1"]
    np.testing.assert_array_equal(
        Model.load(folder).predict(case).labels.array, io.read_labels(case.label).array.astype(np.uint8)
    )


def test_twice_changes_nothing_more(echo):
    data, folder = echo
    tune(folder, data)
    once = (folder / "recipe.yaml").read_text(), (folder / BEFORE).read_text()
    again = tune(folder, data)
    assert not again.taken
    assert "nothing changes" in again.verdict
    assert again.gain() == 0
    assert ((folder / "recipe.yaml").read_text(), (folder / BEFORE).read_text()) == once


def test_a_dry_run_writes_nothing(echo):
    data, folder = echo
    files = {path: path.read_bytes() for path in folder.iterdir()}
    assert tune(folder, data, write=False).taken
    assert {path: path.read_bytes() for path in folder.iterdir()} == files


def test_without_thresholds_the_rim_stays_lost(echo):
    tuned = tune(echo[1], echo[0], thresholds=False, write=False)
    assert all(how.threshold is None for how in tuned.clean.values())
    assert not any("threshold" in trial.change for trial in tuned.trials)
    assert tuned.dice["tumour"]["chosen"] < 0.95


def test_a_large_margin_keeps_nothing(echo):
    tuned = tune(echo[1], echo[0], margin=0.5)
    assert tuned.clean == {}
    assert not tuned.taken
    assert not any(trial.kept for trial in tuned.trials)
    assert not (echo[1] / BEFORE).exists()


def test_folds_are_tuned_together_by_the_model_that_has_not_seen_the_case(tmp_path):
    data, recipe = build(tmp_path)
    for fold, held in enumerate((["c0", "c2"], ["c1", "c3"])):
        save(tmp_path / "cv" / f"fold{fold}", data, recipe, held)
    tuned = tune(tmp_path / "cv", data)
    assert tuned.cases == 4
    for fold in ("fold0", "fold1"):
        assert Recipe.load(tmp_path / "cv" / fold / "recipe.yaml").infer.clean == tuned.clean
        assert (tmp_path / "cv" / fold / BEFORE).is_file()
    facts = [(tmp_path / "cv" / at / "postprocess.json").read_text() for at in ("", "fold0", "fold1")]
    assert len(set(facts)) == 1


def test_a_case_of_two_seeds_counts_twice_and_never_on_both_sides(tmp_path):
    data, recipe = build(tmp_path, cases=2)
    for name in ("fold0", "fold0-seed1"):
        save(tmp_path / "cv" / name, data, recipe)
    tuned = tune(tmp_path / "cv", data, write=False, thresholds=False)
    assert (tuned.cases, tuned.parts) == (4, 2)


def test_one_subject_cannot_tell_what_a_choice_is_worth(tmp_path):
    data, recipe = build(tmp_path)
    tuned = tune(save(tmp_path / "model", data, recipe, ["c0"]), data, thresholds=False)
    assert tuned.parts == 0
    assert tuned.gain("honest") is None
    assert tuned.taken
    assert "one subject alone" in tuned.verdict
    assert json.loads((tmp_path / "model" / "postprocess.json").read_text())["honest gain"] is None


def test_regions(tmp_path):
    parts = {"liver": ["liver", "tumour"], "tumour": ["tumour"]}
    data, recipe = build(tmp_path, regions=True, labels=parts)

    class Regions(Echo):
        def forward(self, x):
            return (torch.cat([20 * (x - 0.5), 20 * (x - 1.47)], 1),)

    import attentus.infer.model as module

    module.create_net = lambda recipe: Regions(2)  # undone by the fixture
    tuned = tune(save(tmp_path / "model", data, recipe), data)
    found = {name: how.model_dump(exclude_defaults=True) for name, how in tuned.clean.items()}
    assert found["tumour"]["threshold"] in (0.3, 0.4)  # the rim has sigmoid(-0.4) = 0.401
    assert found["liver"]["largest"]
    assert tuned.dice["liver"]["chosen"] == 1
    assert tuned.taken


def test_a_choice_that_follows_chance_is_not_taken(tmp_path, monkeypatch):
    data, recipe = build(tmp_path, cases=2)
    folder = save(tmp_path / "model", data, recipe)

    def dice(self, how):
        helps = 0.1 if self.id == "c0" else -0.05
        return [0.8 + helps * bool("liver" in how and how["liver"].largest), 0.8]

    monkeypatch.setattr(Held, "dice", dice)
    tuned = tune(folder, data)
    assert tuned.gain() == pytest.approx(0.0125)
    assert tuned.gain("honest") == pytest.approx(-0.0125)  # c0 alone would take it, c1 alone would not
    assert "may be chance" in tuned.verdict
    assert not (folder / BEFORE).exists()


def test_a_structure_that_is_never_found_is_not_deleted_to_please_cases_without_it(tmp_path):
    data, recipe = build(tmp_path, cases=3)
    for k in range(3):
        image, labels = scene(k)
        image[image > 1.2] = 1  # the tumour is missed
        image[6:8, 16:18, 4:20] = 2  # and seen elsewhere
        labels[labels == 2] = 2 if k == 0 else 1
        for part, array in (("images", image), ("labels", labels)):
            file = tmp_path / "data" / f"{part}Tr" / f"c{k}.nii.gz"
            io.write(Volume.from_array(array, (2.0, 5.0, 5.0)), file, overwrite=True)
    tuned = tune(save(tmp_path / "model", data, recipe), data, thresholds=False)
    assert not any("min_ml" in trial.change for trial in tuned.trials if trial.structure == "tumour")
    assert any("min_ml" in trial.change for trial in tuned.trials if trial.structure == "liver")


@pytest.mark.parametrize("changes", [{}, {"ignore": ["tumour"]}], ids=["all", "ignore"])
def test_it_measures_what_the_evaluation_of_a_training_measures(tmp_path, changes):
    data, recipe = build(tmp_path, infer__clean={"liver": {"min_ml": 0.3}}, **changes)
    folder = save(tmp_path / "model", data, recipe)
    scores = evaluate(Model.load(folder), data, tmp_path / "scores")
    tuned = tune(folder, data, write=False)
    for name, states in tuned.dice.items():
        assert states["present"] == pytest.approx(scores.mean("dice", name))
        assert states["present"] < 1


def test_a_recipe_that_is_better_already_stays(tmp_path):
    data, recipe = build(tmp_path)
    best = tune(save(tmp_path / "first", data, recipe), data).clean
    own = {**best, "liver": best["liver"].model_copy(update={"connectivity": "faces"})}
    how = recipe.infer.model_copy(update={"clean": own})
    folder = save(tmp_path / "model", data, recipe.model_copy(update={"infer": how}))
    tuned = tune(folder, data)
    assert "the recipe's own is as good" in tuned.verdict
    assert Recipe.load(folder / "recipe.yaml").infer.clean == own


def test_thresholds_of_the_recipe_are_measured_even_where_none_are_tried(tmp_path):
    data, recipe = build(tmp_path, infer__clean={"tumour": {"threshold": 0.2}})
    tuned = tune(save(tmp_path / "model", data, recipe), data, thresholds=False, write=False)
    assert tuned.dice["tumour"]["present"] > tuned.dice["tumour"]["raw"]


def test_a_case_that_fails_is_listed(echo):
    data, folder = echo
    (data.root / "imagesTr" / "c2.nii.gz").write_bytes(b"")
    tuned = tune(folder, data, write=False, thresholds=False)
    assert tuned.cases == 3
    assert "c2.nii.gz" in tuned.failures["c2"]
    for k in (0, 1, 3):
        (data.root / "imagesTr" / f"c{k}.nii.gz").write_bytes(b"")
    with pytest.raises(BadInput, match="No held-back case can be predicted"):
        tune(folder, data)


def test_a_tuned_run_is_still_the_run_of_its_recipe(echo):
    data, folder = echo
    recipe = Recipe.load(folder / "recipe.yaml")
    tune(folder, data)
    _continue_or_begin(folder, recipe)


def test_what_cannot_be_tuned_is_refused(echo, tmp_path):
    data, folder = echo
    with pytest.raises(BadFile, match="is no model folder and holds none"):
        tune(tmp_path, data)
    other = Dataset.open(make.dataset(tmp_path / "other", cases=3))
    with pytest.raises(BadInput, match="was trained on labels"):
        tune(folder, other)
    with pytest.raises(BadInput, match="lacks held-back case"):
        runs_of(folder, data.subset(["c0", "c1"]))
    (folder / "scores.json").unlink()
    with pytest.raises(BadFile, match="is not finished"):
        tune(folder, data)
    (folder / "data.json").unlink()
    with pytest.raises(BadFile, match="does not say which cases were held back"):
        tune(folder, data)


def test_folds_must_agree(tmp_path):
    data, recipe = build(tmp_path)
    save(tmp_path / "cv" / "fold0", data, recipe)
    how = recipe.infer.model_copy(update={"clean": {"liver": Clean(largest=True)}})
    save(tmp_path / "cv" / "fold1", data, recipe.model_copy(update={"infer": how}))
    with pytest.raises(BadInput, match=r"fold1 has other structures or another infer\.clean"):
        tune(tmp_path / "cv", data)


@pytest.mark.parametrize(("size", "above"), [(0.1, 0.11), (0.099, 0.1), (1.0, 1.1), (0.00123, 0.0013), (347.0, 350.0)])
def test_sizes_are_rounded_up(size, above):
    assert just_above(size) == pytest.approx(above)
    assert just_above(size) > size


def test_the_command_shows_what_it_found(echo, capsys):
    from attentus.cli.main import run

    data, folder = echo
    call = ["tune-postprocess", str(folder), str(data.root)]
    assert run([*call, "--dry-run", "--no-thresholds"]) == 0
    out = capsys.readouterr().out
    assert "liver: largest True" in out
    assert "infer.clean.liver: largest True, fill_holes True" in out
    assert "nothing was written" in out
    assert not (folder / BEFORE).exists()
    assert run([*call, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["taken"]
    assert facts["written"]
    assert (folder / BEFORE).is_file()
    scan = str(data["c0"].images[0])
    volumes = []
    for options in ([], ["--no-clean"]):
        assert (
            run(["predict", str(folder), scan, "-o", str(folder / "x.nii.gz"), "--overwrite", "--json", *options]) == 0
        )
        volumes.append(json.loads(capsys.readouterr().out)["scans"]["c0"])
    assert volumes[0]["removed_ml"]["liver"] == pytest.approx(8 * 0.05)
    assert volumes[0]["added_ml"]["liver"] > 0
    assert volumes[1]["removed_ml"] == volumes[1]["added_ml"] == {}
    assert run(["predict", str(folder), scan, "-o", str(folder / "y.nii.gz")]) == 0
    assert "(cleaned: +" in capsys.readouterr().out
    (data.root / "imagesTr" / "c2.nii.gz").write_bytes(b"")
    assert run([*call, "--no-thresholds"]) == 1
    assert run(["tune-postprocess", str(data.root), str(data.root)]) == 2


def test_the_recipe_before_is_a_recipe(echo):
    data, folder = echo
    before = Recipe.load(folder / "recipe.yaml")
    tune(folder, data, thresholds=False)
    assert Recipe.load(folder / BEFORE) == before
    assert dump(before) == (folder / BEFORE).read_text()

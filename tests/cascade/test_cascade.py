"""Cascades: where a stage looks, what becomes of what it says, and training one stage after another."""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import product

import make
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import attentus as at
from attentus import io
from attentus.cascade import assemble
from attentus.cascade.boxes import Region, bounds, widened
from attentus.cascade.model import Cascade, Found
from attentus.cascade.views import cuts_of
from attentus.cli.main import run
from attentus.errors import BadFile, BadInput, RecipeError
from attentus.recipes import Box, Recipe, build_cascade, dump, load_any, load_cascade, shipped
from attentus.types import Grid, Prediction, Volume

LABELS = {"core": ["core"], "shell": ["shell"]}


def stage(name, **changes):
    return {
        "recipe": make.recipe(name=name, **changes).model_dump(),
    }


def plan(**changes):
    """All that is bright or dark in the whole scan; then what is dark in a box around it."""
    tree = {
        "name": "both",
        "stages": {
            "first": {"recipe": make.recipe(labels={"thing": ["core", "shell"]}, train__steps=8).model_dump()},
            "second": {
                "recipe": make.recipe(labels=["shell"], train__steps=8).model_dump(),
                "box": {"around": "first.thing", "margin": 2},
                "inside": "first.thing",
            },
        },
        "answer": {"thing": "first.thing", "shell": "second.shell"},
        "split": {"folds": 2},
    }
    return build_cascade({**tree, **changes}, "both")


# Boxes ----------------------------------------------------------------------------------------------------------------


def test_a_box_holds_its_mask_and_is_as_small_as_can_be():
    mask = np.zeros((9, 8, 7), bool)
    mask[2:5, 3, 1] = mask[4, 6, 5] = True
    assert bounds(mask) == Region((2, 3, 1), (5, 7, 6))
    assert bounds(np.zeros((3, 3, 3), bool)) is None


@pytest.mark.parametrize(
    ("how", "start", "stop"),
    [
        ({"margin": 10}, (30, 30, 30), (62, 62, 62)),
        ({"margin": (0, 45, 60)}, (40, 0, 0), (52, 97, 100)),
        ({"margin": 10, "unit": "mm"}, (36, 30, 25), (56, 62, 67)),
        ({"margin": 0}, (40, 40, 40), (52, 52, 52)),
    ],
)
def test_margins_are_voxels_or_millimetres_and_end_at_the_scan(how, start, stop):
    """Specification 3.1: lo = max(0, min - 10), hi = min(size, max + 11)."""
    where = Grid((100, 100, 100), (2.5, 1.0, 0.7))
    found = widened(Region((40, 40, 40), (52, 52, 52)), where, Box(around="a", **how))
    assert (found.start, found.stop) == (start, stop)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4)), min_size=6, max_size=6))
def test_a_mask_means_the_same_on_every_region(pairs):
    starts, sizes = zip(*pairs, strict=True)
    mine, other = (Region(starts[k : k + 3], tuple(np.add(starts, sizes)[k : k + 3].tolist())) for k in (0, 3))
    labels = np.random.default_rng(0).integers(0, 3, mine.shape).astype(np.uint8)
    volume = Volume(labels[None], Grid(mine.shape, (1, 1, 1)))
    found = Found(mine, Prediction(volume, {"a": 1, "b": 2}), {"a": (1,), "b": (2,)})
    whole = np.zeros((10, 10, 10), bool)
    whole[mine.slices] = labels == 2
    assert np.array_equal(found.mask_in(other, "b"), whole[other.slices])


# Predicting -----------------------------------------------------------------------------------------------------------


@dataclass
class Says:
    """Finds what lies between two values; remembers on what grid it was asked."""

    recipe: Recipe
    low: float
    high: float
    asked: list
    fingerprint: str = "says"

    def predict(self, scan, *, clean=True, probabilities=False, attention=False, max_ram=None, progress=None):
        self.asked.append(scan.grid)
        found = (scan.array > self.low) & (scan.array < self.high)
        share = scan.like(np.concatenate([~found, found]).astype(np.float16)) if probabilities else None
        maps = {"gate": scan.like(scan.array.astype(np.float16))} if attention else {}
        names = {s.name: s.value for s in self.recipe.labels}
        value = next(iter(names.values()))
        return Prediction(scan.like(found.astype(np.uint8) * value), names, share, maps)


def cascade(first=(50, 1e9), second=(-1e9, -50), **box):
    tree = plan().model_dump()
    tree["stages"]["second"]["box"] |= box
    tree["stages"]["second"]["inside"] = box.pop("inside", None)
    tree["stages"]["second"]["box"].pop("inside", None)
    for name, value in (("first", 1), ("second", 2)):
        tree["stages"][name]["recipe"]["labels"][0]["value"] = value
        tree["stages"][name]["recipe"]["channels"] = ("channel 0",)
    ready = build_cascade({**tree, "values": {"thing": 1, "shell": 2}}, "both")
    models = {
        name: Says(ready.stages[name].recipe, *limits, []) for name, limits in (("first", first), ("second", second))
    }
    return Cascade(ready, models)


@pytest.mark.parametrize("number", [0, 7, 30])
def test_a_stage_looks_in_the_box_of_the_one_before(number):
    scan, truth = make.case(number)
    turned = make.ORIENTATIONS[number]
    stored = Volume(turned.apply(scan.array), scan.grid.reoriented(turned)).canonical()
    whole = cascade(first=(50, 1e9), margin=3)
    found = whole.predict(stored)
    core = bounds(scan.array[0] > 50)
    expected = widened(core, scan.grid, Box(around="first", margin=3))
    grid = whole.models["second"].asked[0]
    assert grid.shape == expected.shape
    assert np.allclose(grid.origin, scan.grid.cropped(expected.start, expected.stop).origin, atol=1e-4)
    labels = np.where(scan.array[0] > 50, 1, 0)
    inside = np.zeros(scan.grid.shape, bool)
    inside[expected.slices] = True
    labels[inside & (scan.array[0] < -50)] = 2
    assert np.array_equal(found.labels.array[0], labels)
    assert found.labels.as_stored().grid.shape == turned.apply(scan.array).shape[1:]
    assert found.names == {"thing": 1, "shell": 2}
    assert not found.notes
    assert truth.grid == scan.grid


def test_nothing_is_found_outside_of_what_it_must_lie_in():
    scan, _ = make.case(3)
    free, bound = cascade(second=(-1e9, 1e9)), cascade(second=(-1e9, 1e9), inside="first.thing")
    core = scan.array[0] > 50
    assert (free.predict(scan).labels.array == 2).sum() > core.sum()
    kept = bound.predict(scan, probabilities=True)
    assert np.array_equal(kept.labels.array[0] == 2, core)
    assert np.array_equal(kept.probabilities.array[1] > 0, core)
    assert kept.removed_ml["shell"] > 0


def test_where_nothing_is_found_the_result_is_empty_and_says_so():
    scan, _ = make.case(3)
    none = cascade(first=(1e8, 1e9))
    found = none.predict(scan, probabilities=True)
    assert not found.labels.array.any()
    assert not found.probabilities.array.any()
    assert found.notes == ("stage 'first' found no thing, so stage 'second' was left out, what it would find is empty",)
    assert none.models["second"].asked == []
    whole = cascade(first=(1e8, 1e9), if_empty="whole").predict(scan)
    assert (whole.labels.array == 2).sum() == (scan.array < -50).sum()
    assert "looked at the whole scan" in whole.notes[0]


def test_attention_and_probabilities_of_every_stage():
    scan, _ = make.case(1)
    found = cascade().predict(scan, probabilities=True, attention=True)
    assert list(found.attention) == ["first.gate", "second.gate"]
    inner = found.attention["second.gate"]
    start = scan.grid.offset_of(inner.grid)
    region = Region((0, 0, 0), inner.grid.shape).moved(start)
    assert np.array_equal(inner.array[0], scan.array[(0, *region.slices)].astype(np.float16))
    assert np.array_equal(found.probabilities.array[0], scan.array[0] > 50)
    assert found.probabilities.array.dtype == np.float16


# Recipes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answer": {"thing": "frist.thing"}}, "answer.thing: there is no stage 'frist'"),
        ({"answer": {"thing": "first"}}, "write STAGE.STRUCTURE, e.g. first.thing"),
        ({"answer": {"thing": "first.thnig"}}, "stage 'first' finds no 'thnig'. Did you mean 'thing'?"),
        ({"answer": {}}, "at least one stage, and an answer"),
        ({"values": {"liver": 3}}, "values: liver is not in the answer"),
        ({"learn_form": "reference"}, "there is no such field. Did you mean 'learn_from'?"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(RecipeError, match="the cascade has") as caught:
        build_cascade({**plan().model_dump(), **changes}, "both")
    assert message in str(caught.value)


def test_a_stage_looks_at_earlier_ones_only():
    tree = plan().model_dump()
    tree["stages"] = dict(reversed(tree["stages"].items()))
    with pytest.raises(RecipeError, match=r"stages.second.box.around: there is no earlier stage 'first'"):
        build_cascade(tree, "both")


def test_fields_of_stages_are_set_by_name():
    changed = load_cascade("ra-unet-phantom", ["stages.tumour.train.steps=7", "stages.liver.box.margin=4", "name=x"])
    assert changed.stages["tumour"].recipe.train.steps == 7
    assert changed.stages["liver"].box.margin == 4
    assert changed.stages["liver"].recipe.train.steps != 7
    assert changed.name == "x"


def test_a_cascade_survives_its_file(tmp_path):
    (tmp_path / "c.yaml").write_text(dump(plan()), encoding="utf-8")
    assert load_any(tmp_path / "c.yaml") == plan()
    with pytest.raises(RecipeError, match="is a cascade of several recipes"):
        Recipe.load(tmp_path / "c.yaml")


def test_the_papers_cascade():
    """RA-UNet, specification 3: 10 voxels around, tumours inside the liver, five folds."""
    lits = load_cascade("ra-unet-lits")
    assert [s.recipe.name for s in lits.stages.values()] == ["ra-unet-liver-box", "ra-unet-liver", "ra-unet-tumour"]
    assert [s.box and (s.box.around, s.box.margins, s.box.unit) for s in lits.stages.values()] == [
        None,
        ("box.liver", (10, 10, 10), "voxels"),
        ("liver.liver", (10, 10, 10), "voxels"),
    ]
    assert lits.stages["tumour"].inside == "liver.liver"
    assert lits.split.folds == 5
    assert load_cascade("ra-unet-lits@reference-boxes").learn_from == "reference"
    assert "ra-unet-lits" in shipped()


# Training -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return at.Dataset.open(make.dataset(tmp_path_factory.mktemp("data"), cases=6))


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    return at.fit_cascade(plan(), data, tmp_path_factory.mktemp("runs") / "both")


def test_every_stage_is_trained_and_every_case_is_judged_once(trained, data):
    for name, fold in product(["first", "second"], [0, 1]):
        assert (trained.folder / "stages" / name / f"fold{fold}" / "weights.safetensors").is_file()
    assert sorted(trained.scores.cases) == [case.id for case in data]
    assert trained.scores.structures == ["thing", "shell"]
    assert not trained.failures
    card = (trained.folder / "card.md").read_text()
    assert "- Boxes in which stage second learned: " in card
    assert "- Of shell inside the boxes of stage second: " in card


def test_later_stages_learn_where_earlier_ones_looked(trained, data):
    """The box of a case comes from the model that had not seen it, on the case's own voxels."""
    first = trained.folder / "stages" / "first"
    cuts = cuts_of(trained.folder, "second")
    assert cuts.keys() == {case.id for case in data}
    for case in data:
        (run_,) = (f for f in first.glob("fold*") if case.id in json.loads((f / "data.json").read_text())["validation"])
        said = io.read_labels(run_ / "validation" / f"{case.id}.nii.gz").array[0]
        region = bounds(said > 0)
        cut, truth = cuts[case.id], io.read_labels(case.label)
        if region is None:
            assert "nothing was found" in cut.origin
            region = bounds(truth.array[0] > 0)
        else:
            assert cut.origin == "predicted"
        assert cut.region == widened(region, truth.grid, Box(around="first", margin=2))
        shell = truth.array[0] == 2
        assert cut.recall["shell"] == pytest.approx(shell[cut.region.slices].sum() / shell.sum())
        seen = io.read(trained.folder / "views/second/images" / f"{case.id}.nii.gz")
        assert np.array_equal(seen.array[0], io.read(case.images[0]).array[0][cut.region.slices])


def test_sides_are_the_same_in_all_stages(trained):
    each = [
        json.loads((trained.folder / "stages" / name / "fold0" / "data.json").read_text())["validation"].keys()
        for name in ("first", "second")
    ]
    assert each[0] == each[1]


def test_the_same_again_changes_no_model(trained, data):
    files = {p: p.stat().st_mtime_ns for p in trained.folder.rglob("*.safetensors")}
    again = at.fit_cascade(plan(), data, trained.folder)
    assert {p: p.stat().st_mtime_ns for p in trained.folder.rglob("*.safetensors")} == files
    assert again.scores.mean("dice") == pytest.approx(trained.scores.mean("dice"))
    with pytest.raises(RecipeError, match=r"stages.first.recipe.train.steps: 8 -> 9"):
        at.fit_cascade(
            load_cascade(trained.folder / "cascade.yaml", ["stages.first.train.steps=9"]), data, trained.folder
        )


def test_a_folder_of_something_else_is_left_alone(data, tmp_path):
    (tmp_path / "letter.txt").write_text("x")
    with pytest.raises(BadFile, match="holds no cascade"):
        at.fit_cascade(plan(), data, tmp_path)


def test_the_folds_vote_as_one_model(trained, data, tmp_path):
    model = at.load(trained.folder)
    assert isinstance(model, Cascade)
    case = data.cases[0]
    found = model.predict(case)
    assert found.labels.grid.matches(io.read_labels(case.label).grid)
    assert model.fingerprint != Cascade.load(trained.folder, fold=0).fingerprint
    forecast = model.forecast(case)
    assert forecast.windows >= 4
    at.write(found.labels, tmp_path / "out.nii.gz")
    assert io.read_labels(tmp_path / "out.nii.gz").array.max() <= 2


def test_boxes_of_the_reference(data, tmp_path):
    done = at.fit_cascade(plan(learn_from="reference"), data, tmp_path / "r", folds=[1])
    cuts = cuts_of(done.folder, "second")
    assert {cut.origin for cut in cuts.values()} == {"reference, as the cascade says"}
    assert all(cut.recall == {"shell": 1.0} for cut in cuts.values())
    assert len(done.scores.cases) == 3


def test_cases_that_no_fold_held_back_take_the_reference(data, tmp_path):
    done = at.fit_cascade(plan(), data, tmp_path / "one", folds=[0])
    held = json.loads((done.folder / "data.json").read_text())["validation"]
    for case, cut in cuts_of(done.folder, "second").items():
        assert ("no fold that was trained" in cut.origin) == (case not in held)


def test_stages_that_do_not_fit_the_data_are_named(data, tmp_path):
    tree = plan().model_dump()
    tree["stages"]["second"]["recipe"]["labels"] = [{"name": "shell", "parts": ["shel"]}]
    with pytest.raises(RecipeError, match="stage 'second': labels: the dataset has no label 'shel'"):
        at.fit_cascade(build_cascade(tree, "both"), data, tmp_path / "x")
    with pytest.raises(RecipeError, match="written as the same integer"):
        at.fit_cascade(plan(values={"thing": 2}), data, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_from_the_command_line(data, tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(dump(plan()), encoding="utf-8")
    out = tmp_path / "run"
    assert run(["train", str(tmp_path / "c.yaml"), str(data.root), "-o", str(out), "--fold", "0", "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)["dice"]) == {"thing", "shell"}
    assert run(["predict", str(out), str(data.root / "imagesTr"), "-o", str(tmp_path / "masks"), "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["scans"]) == 6
    assert json.loads((tmp_path / "masks" / "labels.json").read_text())["labels"] == {"thing": [1, 2], "shell": 2}
    assert run(["report", str(out)]) == 0
    page = (out / "report.html").read_text()
    assert "Boxes in which stage second learned" in page
    assert "Where the later stages of the cascade looked" in page
    assert run(["figure", "box", str(out), "-o", str(tmp_path / "box.svg")]) == 0
    capsys.readouterr()
    drawn = (tmp_path / "box.svg").read_text()
    assert 'class="frame' in drawn
    assert ">second</text>" in drawn
    assert run(["recipe", "check", str(tmp_path / "c.yaml")]) == 0
    assert "both, stage second" in capsys.readouterr().out


@pytest.mark.parametrize("option", [["--rehearse"], ["--from", "x"], ["--seeds", "1"], ["--devices", "2"]])
def test_options_of_a_single_training_are_refused(data, tmp_path, capsys, option):
    assert run(["train", "ra-unet-phantom", str(data.root), "-o", str(tmp_path / "r"), *option]) == 2
    assert f"to which {option[0]} cannot be applied" in " ".join(capsys.readouterr().err.split())


def test_a_scan_in_which_nothing_is_found_is_flagged(data, tmp_path, capsys, monkeypatch):
    from attentus import cascade as room

    monkeypatch.setattr(room, "load_at", lambda *_, **__: cascade(first=(1e8, 1e9)))
    out = tmp_path / "out"
    assert run(["predict", "model", str(data.root / "imagesTr" / "case_00.nii.gz"), "-o", str(out)]) == 0
    assert "look at it: stage 'first' found no thing" in capsys.readouterr().out
    entry = json.loads((out / "labels.json").read_text())["results"]["case_00.nii.gz"]
    assert entry["notes"] == list(cascade(first=(1e8, 1e9)).predict(make.case(0)[0]).notes)


def test_half_a_cascade_is_no_model(data, tmp_path):
    (tmp_path / "cascade.yaml").write_text(dump(plan()))
    with pytest.raises(BadFile, match="did not come to this stage"):
        at.load(tmp_path)
    with pytest.raises(BadInput):
        at.fit_cascade(plan(split={"folds": 50}), data, tmp_path / "y")


def test_models_trained_on_their_own_become_a_cascade(trained, data, tmp_path):
    first, second = trained.folder / "stages" / "first", trained.folder / "stages" / "second" / "fold0"
    stages = {
        "first": {"model": first},
        "second": {"model": second, "box": {"around": "first.thing", "margin": 2}, "inside": "first.thing"},
    }
    answer = {"thing": "first.thing", "shell": "second.shell"}
    made = assemble(stages, answer, tmp_path / "made")
    assert made.names == {"thing": 1, "shell": 2}
    original = at.load(trained.folder)
    original.models["second"] = at.Model.load(second)
    case = data.cases[1]
    assert np.array_equal(made.predict(case).labels.array, original.predict(case).labels.array)
    with pytest.raises(BadFile, match="is not empty"):
        assemble(stages, answer, tmp_path / "made")
    with pytest.raises(BadInput, match="the same integer"):
        assemble(stages, answer, tmp_path / "other", values={"thing": 1, "shell": 1})
    with pytest.raises(BadFile, match="is a cascade of several models"):
        at.Model.load(tmp_path / "made")

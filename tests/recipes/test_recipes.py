from __future__ import annotations

import pytest
import yaml

from attentus import recipes
from attentus.errors import RecipeError
from attentus.recipes import Recipe, Structure

SMALL = {"name": "x", "net": {"name": "unet"}, "train": {"patch": [16, 16, 16]}}


def build(**changes):
    return recipes.build({**SMALL, **changes}, "test")


@pytest.mark.parametrize("name", recipes.shipped())
def test_shipped_recipes_load_and_survive_a_round_trip(name):
    recipe = recipes.load_any(name)
    assert recipe.name == name
    assert recipe.about
    again = recipes.build_cascade if recipes.is_cascade(name) else recipes.build
    assert again(yaml.safe_load(recipes.dump(recipe)), name) == recipe
    assert recipes.shipped()[name]


def test_every_field_is_documented():
    from pydantic import BaseModel

    from attentus.recipes import schema

    models = [
        m for m in vars(schema).values() if isinstance(m, type) and issubclass(m, BaseModel) and m is not BaseModel
    ]
    assert len(models) > 8
    for model in models:
        for name, field in model.model_fields.items():
            nested = isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
            assert field.description or nested, f"{model.__name__}.{name}"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("all", ()),
        (["liver", "spleen"], (Structure(name="liver"), Structure(name="spleen"))),
        (
            {"kidneys": ["left", "right"], "liver": None},
            (Structure(name="kidneys", parts=("left", "right")), Structure(name="liver")),
        ),
        ({"organ": "liver"}, (Structure(name="organ", parts=("liver",)),)),
    ],
)
def test_spellings_of_labels(labels, expected):
    assert build(labels=labels).labels == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trian": {}}, r"trian: there is no such field\. Did you mean 'train'"),
        ({"train": {"patch": [16, 16, 16], "lerning_rate": 1}}, r"train\.lerning_rate: .*Did you mean 'learning_rate'"),
        ({"train": {"patch": [16, 16, 16], "schedule": {"warmup": 0.1}}}, r"train\.schedule\.warmup: .*'warm_up'"),
        ({"prepare": {"intensity": [{"windw": [0, 1]}]}}, r"prepare\.intensity\.0\.windw: .*Did you mean 'window'"),
        ({"train": {}}, r"train\.patch: is required"),
        ({"train": {"patch": [16, 16, 16], "batch": 0}}, r"train\.batch: .*greater than or equal to 1 \(got 0\)"),
        ({"net": {"name": "unet", "dims": 4}}, r"net\.dims: "),
        ({"train": {"patch": [16, 16]}}, r"patch has 2 sizes but net\.dims is 3"),
        ({"prepare": {"intensity": [{"window": [0, 1], "percentiles": [0, 1]}]}}, "exclude each other"),
        ({"prepare": {"crop_block": 10}}, "give crop_above, too"),
        ({"prepare": {"intensity": [{"window": [5, 1]}]}}, "runs from low to high"),
        ({"augment": {"affine": 0.5}}, "allow no change"),
        ({"augment": {"intensity": 0.5}}, "allow no change"),
        ({"split": {"folds": 3, "fold": 3}}, "fold 3 does not exist"),
        ({"labels": ["a", "a"]}, "a structure twice"),
        ({"channels": ["a", "b", "c"], "prepare": {"intensity": [{}, {}]}}, "2 entries for 3 channels"),
        (
            {"net": {"name": "unet", "dims": 2}, "train": {"patch": [16, 16]}, "augment": {"flip": ["z"]}},
            "only turn about z",
        ),
    ],
)
def test_mistakes_name_the_field(changes, message):
    with pytest.raises(RecipeError, match=message):
        build(**changes)


def test_all_problems_are_told_at_once():
    with pytest.raises(RecipeError, match=r"2 problem(?s:.*)batch(?s:.*)steps"):
        build(train={"patch": [16, 16, 16], "batch": 0, "steps": -1})


def test_overrides():
    recipe = Recipe.load(
        "hippocampus-unet", ["train.steps=7", "prepare.spacing=[null, 2, 2]", "loss.name=dice", "seed=3"]
    )
    assert recipe.train.steps == 7
    assert recipe.prepare.spacing == (None, 2.0, 2.0)
    assert recipe.loss.name == "dice"
    assert recipe.seed == 3
    assert Recipe.load("hippocampus-unet", ["infer.batch=2"]).infer.overlap == 0.5
    with pytest.raises(RecipeError, match="write FIELD=VALUE"):
        Recipe.load("unet", ["train.steps"])
    with pytest.raises(RecipeError, match="'name' holds a value"):
        Recipe.load("unet", ["name.x=1"])
    with pytest.raises(RecipeError, match=r"train\.stepz: there is no such field"):
        Recipe.load("unet", ["train.stepz=1"])


def test_files(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(recipes.text_of("unet"))
    assert Recipe.load(file) == Recipe.load("unet")
    file.write_text("name: [")
    with pytest.raises(RecipeError, match=r"mine\.yaml: is not valid YAML"):
        Recipe.load(file)
    file.write_text("- a\n")
    with pytest.raises(RecipeError, match="a recipe is a mapping"):
        Recipe.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="cannot be read as a text file"):
        Recipe.load(file)
    with pytest.raises(RecipeError, match=r"No recipe is called 'atention-unet'.*Did you mean 'attention-unet'"):
        Recipe.load("atention-unet")


def test_differences_name_fields_and_values():
    old, new = build(), build(train={"patch": [16, 16, 16], "batch": 4})
    assert recipes.differences(old, old) == []
    assert recipes.differences(old, new) == ["train.batch: 2 -> 4"]


def test_recipes_need_no_torch():
    import subprocess
    import sys

    code = "import sys, attentus; attentus.Recipe.load('unet'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

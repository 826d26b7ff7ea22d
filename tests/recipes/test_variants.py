"""Recipes with variants: how they merge, and how one is named."""

from __future__ import annotations

import pytest
import yaml

from attentus import recipes
from attentus.errors import RecipeError
from attentus.recipes import Recipe

TEXT = """\
# Two lines
# of header.
name: base
about: The base.
labels: {a: [x, y], b: [z]}
net: {name: unet, dims: 3, options: {feature_scale: 8, deep_supervision: aux}}
loss: {name: dice-cross-entropy, options: {dice: 2.0}}
prepare:
  spacing: [1, 1, 1]
  intensity: [{window: [0, 1], normalise: range}]
train: {patch: [16, 16, 16], batch: 3, schedule: {name: step, every: 0.5}}
variants:
  wide:
    about: Wider.
    net: {options: {feature_scale: 4}}
  other-net:
    net: {name: ra-unet, options: {attention: false}}
    train: {patch: [32, 32, 32]}
  bare-net:
    net: {name: classic-unet}
  same-net:
    net: {name: unet, options: {feature_scale: 4}}
  other-loss:
    loss: {name: cross-entropy}
  deep:
    labels: {c: [x]}
    prepare: {intensity: [{normalise: zscore}]}
    train: {schedule: {every: 0.25}}
    split: {folds: 3}
  named:
    name: renamed
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT)
    return path


def test_a_variant_is_the_recipe_with_changes(file):
    base, wide = Recipe.load(file), Recipe.load(f"{file}@wide")
    assert base.name == "base"
    assert recipes.differences(base, wide) == [
        "name: base -> base@wide",
        "about: The base. -> Wider.",
        "net.options.feature_scale: 8 -> 4",
    ]


def test_mappings_merge_and_lists_are_replaced(file):
    deep = Recipe.load(f"{file}@deep")
    assert deep.train.schedule.name == "step"
    assert deep.train.schedule.every == 0.25
    assert deep.train.batch == 3
    assert deep.prepare.spacing == (1, 1, 1)
    assert deep.prepare.intensity[0].normalise == "zscore"
    assert deep.prepare.intensity[0].window is None
    assert deep.split.folds == 3
    assert [structure.name for structure in deep.labels] == ["c"]


@pytest.mark.parametrize(
    ("variant", "name", "options"),
    [
        ("wide", "unet", {"feature_scale": 4, "deep_supervision": "aux"}),
        ("same-net", "unet", {"feature_scale": 4, "deep_supervision": "aux"}),
        ("other-net", "ra-unet", {"attention": False}),
        ("bare-net", "classic-unet", {}),
    ],
)
def test_another_net_starts_without_the_options_of_the_first(file, variant, name, options):
    net = Recipe.load(f"{file}@{variant}").net
    assert (net.name, net.dims, net.options) == (name, 3, options)


def test_another_loss_starts_without_the_options_of_the_first(file):
    loss = Recipe.load(f"{file}@other-loss").loss
    assert (loss.name, loss.options) == ("cross-entropy", {})


def test_a_variant_may_have_a_name_of_its_own(file):
    assert Recipe.load(f"{file}@named").name == "renamed"


def test_overrides_come_after_the_variant(file):
    recipe = Recipe.load(f"{file}@wide", ["net.options.feature_scale=2", "train.batch=1"])
    assert recipe.net.options["feature_scale"] == 2
    assert recipe.train.batch == 1
    with pytest.raises(RecipeError, match="variants: there is no such field"):
        Recipe.load(file, ["variants.wide.seed=1"])


@pytest.mark.parametrize("wrong", ["wid", ""])
def test_an_unknown_variant_is_answered_with_the_nearest(file, wrong):
    with pytest.raises(RecipeError, match=r"mine\.yaml' has no variant.*Known: bare-net, deep, named") as caught:
        Recipe.load(f"{file}@{wrong}")
    assert ("Did you mean 'wide'" in str(caught.value)) == bool(wrong)
    with pytest.raises(RecipeError, match=r"'demo' has no variant 'x'\. Known: none"):
        Recipe.load("demo@x")
    with pytest.raises(RecipeError, match=r"No recipe is called 'dem@x'.*Did you mean 'demo'"):
        Recipe.load("dem@x")


def test_paths_may_hold_an_at(tmp_path):
    folder = tmp_path / "runs@home"
    folder.mkdir()
    plain, odd = folder / "mine.yaml", folder / "mine.yaml@wide"
    plain.write_text(TEXT)
    assert Recipe.load(plain).name == "base"
    assert Recipe.load(f"{plain}@wide").name == "base@wide"
    odd.write_text(TEXT.replace("name: base", "name: odd"))
    assert Recipe.load(odd).name == "odd"  # a file of that very name goes first
    assert Recipe.load(f"{odd}@wide").name == "odd@wide"
    with pytest.raises(RecipeError, match="No recipe is called"):
        Recipe.load(folder / "other.yaml")


def test_variants_are_listed_and_are_no_part_of_a_recipe(file):
    assert recipes.variants(file)["wide"] == "Wider."
    assert list(recipes.variants(file)) == [
        *("wide", "other-net", "bare-net", "same-net", "other-loss", "deep", "named"),
    ]
    assert recipes.variants(f"{file}@wide") == {}
    assert "variants" not in yaml.safe_load(recipes.dump(Recipe.load(file)))
    assert recipes.build(yaml.safe_load(TEXT), "test") == Recipe.load(file)


def test_the_text_of_a_variant_is_a_recipe_of_its_own(file, tmp_path):
    assert recipes.text_of(file) == TEXT
    text = recipes.text_of(f"{file}@wide")
    assert text.startswith("# Two lines\n# of header.\n# Variant 'wide' of that recipe")
    copy = tmp_path / "copy.yaml"
    copy.write_text(text)
    assert Recipe.load(copy) == Recipe.load(f"{file}@wide")


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ("[a]", "variants are a mapping"),
        ("{a: 1}", "variants are a mapping"),
        ("{a@b: {}}", "cannot be called 'a@b'"),
        ("{1: {}}", "cannot be called '1'"),
    ],
)
def test_malformed_variants(file, variants, message):
    file.write_text(TEXT[: TEXT.index("variants:")] + f"variants: {variants}\n")
    with pytest.raises(RecipeError, match=message):
        Recipe.load(file)


def test_mistakes_in_a_variant_name_it(file):
    file.write_text(TEXT + "  broken:\n    train: {batc: 1}\n")
    assert Recipe.load(file).name == "base"
    with pytest.raises(RecipeError, match=r"@broken: the recipe has 1 problem(?s:.*)batc: .*Did you mean 'batch'"):
        Recipe.load(f"{file}@broken")


def command(capsys, *arguments):
    from attentus.cli.main import run

    code = run([str(a) for a in arguments])
    return code, *capsys.readouterr()


def test_the_command_line_lists_shows_copies_and_checks_variants(file, tmp_path, capsys):
    import json

    _, out, _ = command(capsys, "recipe", "list")
    assert "  @unet++ " in out
    _, out, _ = command(capsys, "recipe", "list", "--json")
    assert json.loads(out)["anu-net-lits@unet++"].startswith("UNet++")
    _, out, _ = command(capsys, "recipe", "show", f"{file}@wide")
    assert yaml.safe_load(out)["net"]["options"]["feature_scale"] == 4
    _, out, _ = command(capsys, "recipe", "show", f"{file}@wide", "--full")
    assert yaml.safe_load(out)["name"] == "base@wide"
    copy = tmp_path / "copy.yaml"
    assert command(capsys, "recipe", "copy", f"{file}@wide", copy)[0] == 0
    assert Recipe.load(copy).name == "base@wide"

    code, out, _ = command(capsys, "recipe", "check", file)
    assert code == 0
    assert [line.partition(":")[0] for line in out.splitlines()] == [
        *("base", "base@wide", "base@other-net", "base@bare-net", "base@same-net", "base@other-loss", "base@deep"),
        "renamed",
    ]
    _, out, _ = command(capsys, "recipe", "check", file, "--json")
    assert json.loads(out)["variants"].keys() >= {"base@wide", "renamed"}
    for arguments in ([f"{file}@wide"], [file, "--set", "train.batch=1"]):
        _, out, _ = command(capsys, "recipe", "check", *arguments)
        assert len(out.splitlines()) == 1
    file.write_text(TEXT + "  broken:\n    net: {name: ra-unet}\n")
    code, _, err = command(capsys, "recipe", "check", file)
    assert code == 2
    assert "mine.yaml@broken: train.patch" in err

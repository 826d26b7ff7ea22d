"""Every recipe in the package, and every variant of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
import yaml

from attentus import losses, nets, recipes
from attentus.recipes import Recipe
from attentus.train.fitting import check_buildable

NAMES = list(recipes.shipped())
SINGLE = [name for name in NAMES if not recipes.is_cascade(name)]
VARIANTS = [f"{name}@{variant}" for name in SINGLE for variant in recipes.variants(name)]
ALL = [*SINGLE, *VARIANTS]
PUBLISHED = {
    "anu-net-lits": 8_950_594,  # Table 6: 8.9506 M
    "anu-net-lits@l3": 2_191_829,  # 2.1918 M
    "anu-net-lits@l2": 513_387,  # 0.5134 M
    "anu-net-lits@l1": 103_812,  # 0.1038 M
    "attention-unet-ct150": 6_407_018,  # Table 1: 6.40 M
    "attention-unet-ct150@unet": 5_888_004,  # 5.88 M
    "attention-unet-ct150@unet-capacity": 6_444_328,  # Table 2: 6.44 M
    "attention-unet-ct150@unet-huge": 10_403_190,  # 10.40 M
    "ra-unet-liver": 4_420_849,  # "4M"
    "dpc-net-lits@baseline": 22_584_175,  # Table 4: 22.58 M
    "dpc-net-lits@spacor-semcor": 23_104_003,  # + 0.52 M
    "dpc-net-lits@ag": 22_584_175 + 1_022_915,  # + 1.02 M
}
REASONS = ("Paper:", "Dataset:", "Published:", "Measured here:")


def test_every_paper_has_its_recipes():
    papers = {
        *("anu-net-lits", "anu-net-chaos-liver", "anu-net-chaos-kidney", "anu-net-chaos-spleen"),
        *("attention-unet-ct150", "attention-unet-ct82", "msconvlstm-att-brats", "dpc-net-lits"),
        *("ra-unet-liver-box", "ra-unet-liver", "ra-unet-tumour", "ra-unet-brats"),
    }
    assert papers <= set(NAMES)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_loads_and_survives_a_round_trip(name):
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert recipe.about
    tree = yaml.safe_load(recipes.dump(recipe))
    assert "variants" not in tree
    assert recipes.build(tree, name) == recipe
    assert recipes.build(yaml.safe_load(recipes.text_of(name)), name) == recipe


@pytest.mark.parametrize("name", ALL)
def test_net_and_loss_can_be_built(name):
    parameters = check_buildable(Recipe.load(name))
    assert parameters == PUBLISHED.get(name, parameters)


@pytest.mark.parametrize("name", ALL)
def test_the_loss_takes_what_the_recipe_makes(name):
    recipe = Recipe.load(name)
    count = max(1, len(recipe.labels))
    loss = losses.create(recipe.loss.name, **recipe.loss.options)
    generator = torch.Generator().manual_seed(0)
    if recipe.regions:
        logits = torch.randn(2, count, 8, 8, generator=generator, requires_grad=True)
        target = torch.randint(0, 2, logits.shape, generator=generator, dtype=torch.uint8)
    else:
        logits = torch.randn(2, 1 + count, 8, 8, generator=generator, requires_grad=True)
        target = torch.randint(0, 1 + count, (2, 8, 8), generator=generator)
    value = loss(logits, target)
    value.backward()
    assert value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_a_header_tells_where_it_comes_from_and_what_to_expect(name):
    lines = recipes.text_of(name).splitlines()
    header = lines[: next(k for k, line in enumerate(lines) if not line.startswith("#"))]
    assert recipes.shipped()[name] == header[0].removeprefix("# ")
    for word in REASONS:
        assert sum(line.startswith(f"# {word}") for line in header) == 1, word
    assert any(f"attentus train {name} " in line or line == f"# Run: attentus {name}" for line in header)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("name", NAMES)
def test_variants_say_what_they_are_and_change_something(name):
    base = recipes.load_any(name)
    for variant, about in recipes.variants(name).items():
        changed = recipes.differences(base, recipes.load_any(f"{name}@{variant}"))
        assert about.endswith("."), variant
        assert {line.partition(":")[0] for line in changed} - {"name", "about"}, variant


def test_the_page_lists_every_recipe_and_the_multiples_of_patches():
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "recipes.md").read_text(encoding="utf-8")
    for name in NAMES:
        [row] = re.findall(rf"^\| `{name}` \| .+ \| (.+) \|$", page, re.MULTILINE)
        assert re.findall(r"`([^`]+)`", row) == list(recipes.variants(name)), name
    multiples = {}
    for row in re.findall(r"^\| (`.+`) \| (\d+) \|$", page, re.MULTILINE):
        multiples |= dict.fromkeys(re.findall(r"`([^`]+)`", row[0]), int(row[1]))
    assert set(multiples) == set(nets.CARDS)
    for name, card in nets.CARDS.items():
        with torch.device("meta"):
            net = nets.create(name, card.dims[-1], card.channels, 2)
        assert getattr(net, "multiple", 1) == multiples[name], name

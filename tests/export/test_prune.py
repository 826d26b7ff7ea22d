"""Pruned models: the same answers as the head they end in, complete folders, clear refusals."""

from __future__ import annotations

import make
import numpy as np
import pytest
import torch
from netting import count, equal, stirred

from attentus import Dataset, Model, nets
from attentus.data.resolve import resolve
from attentus.errors import BadInput
from attentus.export.prune import levels, prunable, prune
from attentus.infer.model import create_net
from attentus.train.fitting import check_buildable


def model(tmp_path, name="anu-net", options=None, **changes):
    """A model that has learned nothing, its normalisations stirred."""
    given = {"preset": "tiny"} if options is None else options
    recipe = make.recipe(net__name=name, net__options=given, **changes)
    resolved = resolve(recipe, Dataset.open(make.dataset(tmp_path / "data", cases=3)))
    torch.manual_seed(0)
    return Model(resolved, stirred(create_net(resolved)).eval())


@pytest.mark.parametrize("name", ["anu-net", "unet++"])
@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_pruned_model_is_saved_loaded_and_says_what_its_head_said(tmp_path, name, level):
    whole = model(tmp_path, name)
    prune(whole, level).save(tmp_path / "small")
    small = Model.load(tmp_path / "small", device="cpu")
    x = torch.randn(1, 1, 16, 16, 16)
    with torch.no_grad():
        nodes = whole.net._nodes(x)
        equal(small.net(x)[0], whole.net.heads[f"x0_{level}"](nodes[f"x0_{level}"]))
    assert small.names == whole.names
    scan, _ = make.case(1)
    np.testing.assert_array_equal(small.predict(scan).labels.array, prune(whole, level).predict(scan).labels.array)
    check_buildable(small.recipe)  # and could be trained further
    assert nets.create(small.recipe.net.name, 3, 1, 3, **small.recipe.net.options).levels == level


def test_parameters_of_table_6(tmp_path):
    recipe = make.recipe(net__name="anu-net", net__dims=2, train__patch=[16, 16], labels=["core"], regions=True)
    recipe = recipe.model_copy(update={"channels": ("image",), "net": recipe.net.model_copy(update={"options": {}})})
    with torch.device("meta"):
        whole = Model(recipe, create_net(recipe))
        found = [count(prune(whole, level).net) for level in levels(whole)]
    assert found == [103_812, 513_387, 2_191_829, 8_950_594]


def test_the_recipe_follows(tmp_path):
    whole = model(tmp_path, loss__head_weights=[1.0, 0.5, 0.25, 0.125], infer__early_exit=0.9)
    small = prune(whole, 3).recipe
    assert small.loss.head_weights == (0.5, 0.25, 0.125)  # deepest first: X03, X02, X01
    assert (small.name, small.infer.early_exit) == ("made-l3", 0.9)
    assert small.about == "for a test Pruned to level 3 of 4."
    assert prune(whole, 2).recipe.infer.early_exit is None
    assert prune(whole, 4).recipe == whole.recipe
    again = prune(prune(whole, 3), 1)
    assert again.recipe.loss.head_weights == (0.125,)
    assert levels(again) == [1]


def test_only_heads_that_learned_are_offered(tmp_path):
    assert levels(model(tmp_path)) == [1, 2, 3, 4]
    silent = model(tmp_path / "b", loss__head_weights=[1.0, 1.0, 0.0, 1.0])
    assert levels(silent) == [1, 3, 4]
    with pytest.raises(BadInput, match="made cannot be pruned to level 2; its levels are 1, 3 and 4"):
        prune(silent, 2)
    single = model(tmp_path / "c", options={"preset": "tiny", "deep_supervision": False})
    assert levels(single) == [4]


def test_other_nets_are_refused_with_the_names_of_those_that_can(tmp_path):
    assert prunable() == ["anu-net", "unet++"]
    with pytest.raises(BadInput, match=r"'plain-unet' cannot be pruned: .*\n  Nets that can: anu-net and unet\+\+"):
        levels(model(tmp_path, "plain-unet"))

"""Models made smaller after training: nested nets cut to a level (Li 2020, section 3.5), nets without attention."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from attentus import nets
from attentus.errors import BadInput
from attentus.infer.model import Model
from attentus.nets.anu_net import ANUNet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.recipes import Recipe


def levels(model: Model) -> list[int]:
    """The levels a model can be pruned to, smallest first, ending in its own.

    A level is left out if the model has no head for it, or if training gave that head no weight.

    Raises:
        BadInput: its net cannot be pruned; the message names those that can.
    """
    net = _nested(model)
    weights = model.recipe.loss.head_weights or net.supervision  # deepest head first
    learnt = {
        int(name.removeprefix("x0_")) for name, weight in zip(list(net.heads)[::-1], weights, strict=True) if weight
    }
    return sorted({*learnt, net.levels})


def prune(model: Model, level: int) -> Model:
    """The sub-network of a level as a model of its own: no retraining, a subset of the weights.

    In evaluation its output is that of head `level` of the whole net, bit for bit where neither has to pad the window.
    Its recipe is the same with the net's option `levels`; weights of the heads that went are dropped.

    Args:
        model: of a nested net that was trained with deep supervision.
        level: one of `levels(model)`.

    Raises:
        BadInput: no such level, or a net that cannot be pruned.
    """
    known = levels(model)
    if level not in known:
        raise BadInput(f"{model.recipe.name} cannot be pruned to level {level}; its levels are {_listed(known)}.")
    pruned = _nested(model).prune(level)
    return Model(_recipe(model.recipe, level, _nested(model).levels, nets.left_out(pruned)), pruned)


def without(model: Model, modules: Sequence[str]) -> Model:
    """The same model without some of its attention modules: no retraining, the weights of the others.

    Its recipe says so in the net's option `without`, so that it is saved, loaded and exported as what it is.

    Args:
        model: with attention.
        modules: as `nets.taps` names them; see `nets.leave_out` for what passes instead.

    Raises:
        UnknownName: no such module.
    """
    net = nets.leave_out(copy.deepcopy(model.net), modules)
    options = {**model.recipe.net.options, "without": nets.left_out(net)}
    count = f"{len(modules)} attention module{'' if len(modules) == 1 else 's'}"
    recipe = model.recipe.model_copy(
        update={
            "name": f"{model.recipe.name}-pruned",
            "about": f"{model.recipe.about} Without {count}.".strip(),
            "net": model.recipe.net.model_copy(update={"options": options}),
        }
    )
    return Model(recipe, net)


def prunable() -> list[str]:
    """Names of the built-in nets that can be pruned."""
    names = []
    for name in nets.names():
        card = nets.card(name)
        if card is None:
            continue
        with torch.device("meta"):
            if isinstance(nets.create(name, card.dims[0], 1, 2, preset="tiny"), ANUNet):
                names.append(name)
    return names


def _nested(model: Model) -> ANUNet:
    if not isinstance(model.net, ANUNet):
        raise BadInput(
            f"The net '{model.recipe.net.name}' cannot be pruned: only in nested nets does a part of the net give an"
            f" answer on the full grid.\n  Nets that can: {_listed(prunable())}."
        )
    return model.net


def _recipe(recipe: Recipe, level: int, whole: int, left_out: list[str]) -> Recipe:
    if level == whole:
        return recipe
    options = {**recipe.net.options, "levels": level}
    if "without" in options:  # modules of the levels that went are no longer known
        options["without"] = left_out
    net = recipe.net.model_copy(update={"options": options})
    weights = recipe.loss.head_weights
    loss = recipe.loss.model_copy(update={"head_weights": weights and weights[-level:]})  # the deepest comes first
    stop = recipe.infer.early_exit if level > 2 else None  # two levels have nothing to leave out
    return recipe.model_copy(
        update={
            "name": f"{recipe.name}-l{level}",
            "about": f"{recipe.about} Pruned to level {level} of {whole}.".strip(),
            "net": net,
            "loss": loss,
            "infer": recipe.infer.model_copy(update={"early_exit": stop}),
        }
    )


def _listed(items: list[str] | list[int]) -> str:
    return " and ".join(map(str, items)) if len(items) < 3 else f"{', '.join(map(str, items[:-1]))} and {items[-1]}"

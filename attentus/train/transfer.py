"""Fine-tuning: weights of a trained model in a new net, outputs matched by structure and inputs by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from attentus import nets
from attentus.errors import RecipeError
from attentus.infer.model import Model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from attentus.recipes import Recipe


@dataclass(frozen=True)
class Taken:
    """What became of one tensor of the new net."""

    name: str
    elements: int
    how: str
    """"whole"; "background, liver of 3 outputs" or the like; "new" if nothing was taken."""


def transfer(net: nn.Module, recipe: Recipe, donor: Path) -> list[Taken]:
    """Fill a net with a model's weights.

    Tensors are matched by name. One that has rows or columns per output takes those of the structures both know by
    name, one that has columns per input those of the channels both know; everything else is taken whole where shapes
    agree, and otherwise left as it was initialised. So a U-Net's weights go into an Attention U-Net, and a model of
    four organs into one of two.

    Args:
        net: of `recipe`, freshly initialised; changed in place.
        recipe: resolved.
        donor: model folder.

    Returns:
        One entry per tensor of the net.

    Raises:
        BadFile: no model folder.
        RecipeError: nothing fits.
    """
    model = Model.load(donor, device="cpu")
    old, new = model.net.state_dict(), net.state_dict()
    axes = _varying(recipe)
    names = {kind: (_names(model.recipe, kind), _names(recipe, kind)) for kind in ("outputs", "inputs")}
    told: list[Taken] = []
    with torch.no_grad():
        for name, tensor in new.items():
            how = "new"
            if name in old and name in axes:
                how = _take_some(tensor, old[name], axes[name], names)
            elif name in old and old[name].shape == tensor.shape:
                tensor.copy_(old[name])
                how = "whole"
            told.append(Taken(name, tensor.numel(), how))
    if all(one.how == "new" for one in told):
        raise RecipeError(
            f"start.model: no weight of '{recipe.net.name}' has its like in {donor} ({model.recipe.net.name}).\n"
            "  Fine-tune the same net, or one built from the same parts."
        )
    return told


def describe(told: Sequence[Taken]) -> list[str]:
    """A few lines for people: how much was taken whole, in part, not at all."""
    total = sum(one.elements for one in told)
    lines = []
    for title, chosen in (
        ("taken", [one for one in told if one.how == "whole"]),
        ("taken in part", [one for one in told if one.how not in ("whole", "new")]),
        ("new", [one for one in told if one.how == "new"]),
    ):
        if chosen:
            share = sum(one.elements for one in chosen) / total
            how = "" if title != "taken in part" else f" ({'; '.join(sorted({one.how for one in chosen}))})"
            parts = ", ".join(dict.fromkeys(".".join(one.name.split(".")[:2]) for one in chosen))
            where = "" if title == "taken" else f": {parts}"
            lines.append(f"{title}: {len(chosen)} of {len(told)} tensors, {share:.1%} of the numbers{how}{where}")
    return lines


def _names(recipe: Recipe, kind: str) -> list[str]:
    """What a net's outputs or inputs stand for."""
    return list(recipe.channels if kind == "inputs" else recipe.outputs)


def _take_some(tensor: Tensor, old: Tensor, axes: dict[int, str], names: dict[str, tuple[list[str], list[str]]]) -> str:
    """Copy what both tensors have along the axes that stand for outputs or inputs; all else stays."""
    source = [torch.arange(n) for n in old.shape]
    target = [torch.arange(n) for n in tensor.shape]
    for axis, kind in axes.items():
        before, now = names[kind]
        shared = [(before.index(name), place) for place, name in enumerate(now) if name in before]
        blocks = tensor.shape[axis] // len(now)
        if not shared or old.shape[axis] != blocks * len(before):
            return "new"
        pairs = [(b * len(before) + i, b * len(now) + k) for b in range(blocks) for i, k in shared]
        source[axis], target[axis] = torch.tensor(pairs).T
    if [len(index) for index in source] != [len(index) for index in target]:
        return "new"
    tensor[_grid(target)] = old[_grid(source)]
    if all(names[kind][0] == names[kind][1] for kind in axes.values()):
        return "whole"
    return "; ".join(_told(kind, *names[kind]) for kind in dict.fromkeys(axes.values()))


def _told(kind: str, before: list[str], now: list[str]) -> str:
    return f"{', '.join(name for name in now if name in before)} of {len(now)} {kind}"


def _grid(places: list[Tensor]) -> tuple[Tensor, ...]:
    """Indices along each axis as indices of a block."""
    return torch.meshgrid(*places, indexing="ij")


def _varying(recipe: Recipe) -> dict[str, dict[int, str]]:
    """For each tensor with axes that grow with the outputs or the inputs of the net: which of the two, by axis."""
    how = recipe.net
    inputs, outputs = len(recipe.channels), len(recipe.outputs)

    def shapes(inputs: int, outputs: int) -> dict[str, torch.Size]:
        with torch.device("meta"):
            net = nets.create(how.name, how.dims, inputs, outputs, **how.options)
        return {name: tensor.shape for name, tensor in net.state_dict().items()}

    usual = shapes(inputs, outputs)
    found: dict[str, dict[int, str]] = {}
    for kind, count, varied in (
        ("inputs", inputs, shapes(inputs + 1, outputs)),
        ("outputs", outputs, shapes(inputs, outputs + 1)),
    ):
        for name, shape in usual.items():
            for axis, (n, m) in enumerate(zip(shape, varied.get(name, shape), strict=True)):
                if n != m and n == count * (m - n):
                    found.setdefault(name, {})[axis] = kind
    return found

"""A net without attention that has as many parameters as one with it, so that size is no excuse."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from attentus import nets

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from attentus.recipes import Recipe

WIDTHS = ("width", "widths", "channels", "level_width", "fused_width")
"""Options of nets that grow with a net; "feature_scale" shrinks."""
NEAR = 0.02
"""How far from a number of parameters still counts as the same, as a share of it."""
TRIES = 16
"""Halvings of the interval of factors."""


class Matched(NamedTuple):
    """Options of a net, and what they amount to."""

    name: str
    options: dict[str, Any]
    """With every width written out, and without a preset."""
    factor: float
    """What the widths were multiplied by."""
    parameters: int


def parameters(recipe: Recipe, name: str | None = None, options: Mapping[str, Any] | None = None) -> int:
    """What a recipe's net learns, or what it would with another name and options."""
    return sum(p.numel() for p in _on_meta(recipe, name, options).parameters())


def matched(recipe: Recipe, without: tuple[str, ...], target: int) -> Matched:
    """The recipe's net, without some attention modules, at the width that brings it nearest to a number of parameters.

    Widths are whole numbers, so that a net with a single one may not come near.

    Args:
        recipe: resolved.
        without: attention modules that are left out.
        target: parameters, at least those of the net without these modules.
    """
    name, chosen = nets.spelt_out(recipe.net.name, recipe.net.options)
    chosen["without"] = list(without)
    whole = nets.options(name) | chosen
    if "widths" in whole and whole["widths"] is None:
        whole["widths"] = getattr(_on_meta(recipe), "widths", ())

    def at(factor: float) -> Matched:
        options = {**chosen, **_scaled(whole, factor)}
        return Matched(name, options, factor, parameters(recipe, name, options))

    low, high = at(1.0), at(2.0)
    for _ in range(TRIES):
        middle = at((low.factor + high.factor) / 2)
        low, high = (middle, high) if middle.parameters <= target else (low, middle)
    return min((low, high), key=lambda one: abs(one.parameters - target))


def _scaled(options: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """The widths among options, multiplied."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if key == "feature_scale":
            found[key] = round(value / factor, 6)
        elif key in WIDTHS:
            found[key] = [round(v * factor) for v in value] or None if key == "widths" else round(value * factor)
    return found


def _on_meta(recipe: Recipe, name: str | None = None, options: Mapping[str, Any] | None = None) -> nn.Module:
    """The net without memory."""
    how = recipe.net
    with torch.device("meta"):
        return nets.create(
            name or how.name,
            how.dims,
            len(recipe.channels),
            len(recipe.outputs),
            **(how.options if options is None else options),
        )

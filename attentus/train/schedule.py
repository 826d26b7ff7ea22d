"""How long a training is, and how the step size changes: a factor that depends on nothing but how far it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attentus.recipes import Recipe, Schedule

PLATEAU = 10.0
"""Epochs without a better validation after which a plateau is assumed, unless the recipe says."""


def epoch_steps(recipe: Recipe, cases: int) -> int:
    """Updates in an epoch of `sampling.per_case` patches of every training case."""
    how = recipe.train
    return math.ceil(cases * recipe.sampling.per_case / (how.batch * how.accumulate))


def total_steps(recipe: Recipe, cases: int) -> int:
    """Updates of a whole training on that many cases."""
    how = recipe.train
    return how.steps if how.epochs is None else how.epochs * epoch_steps(recipe, cases)


def factor(done: float, how: Schedule, *, epochs: float = 0.0, drops: int = 0) -> float:
    """What the learning rate is multiplied by.

    Args:
        done: share of the training that lies behind, 0..1.
        how: the recipe's `train.schedule`.
        epochs: how many lie behind, for steps counted in epochs.
        drops: how often validation has come to a plateau, for "plateau".

    Returns:
        0..1; during the warm-up it rises in proportion, from 0.01 so that no step is lost.
    """
    if done < how.warm_up:
        return max(done / how.warm_up, 0.01)
    rest = (done - how.warm_up) / (1 - how.warm_up) if how.warm_up < 1 else 0.0
    if how.name == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    if how.name == "polynomial":
        return float((1 - min(rest, 1.0)) ** 0.9)
    if how.name == "plateau":
        return float(how.factor**drops)
    if how.name == "step":
        stairs = epochs / how.epochs if how.epochs else rest / how.every if how.every else 0.0
        return float(how.factor ** int(stairs + 1e-9))
    return 1.0

"""How the step size changes: a factor that depends on nothing but how much of the training is done."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from attentus.recipes.schema import Schedule


def factor(done: float, how: Schedule) -> float:
    """What the learning rate is multiplied by.

    Args:
        done: share of the training that lies behind, 0..1.
        how: the recipe's `train.schedule`.

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
    if how.name == "step":
        return float(how.factor ** int(rest / how.every + 1e-9)) if how.every else 1.0
    return 1.0

"""From measured changes to a verdict on an attention module. The rule is `RULE`; reports print it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from attentus.metrics.statistics import effect, holm, wilcoxon

MARGIN = 0.005
"""Smallest change in mean Dice that matters, unless told otherwise."""
VERDICTS = ("essential", "helpful", "decorative", "harmful", "undecided")
REMOVABLE = ("decorative", "harmful")
"""Verdicts on modules that can go."""


def rule(margin: float) -> str:
    """How verdicts are made, in words."""
    return (
        "The loss is what the mean Dice falls by when the attention is replaced, with its 95 % bootstrap interval over"
        f" the cases; the smallest that matters is {margin:g}. Essential: the whole interval lies above that. Harmful:"
        f" it lies below zero and the gain exceeds {margin:g}. Decorative: otherwise, it lies below {margin:g}, so that"
        " nothing that matters is lost. Helpful: otherwise, it lies above zero. Undecided: anything else; more cases"
        " would tell. The verdict on a module is that on removing it; the verdict on its pattern is that on replacing"
        " it by its own mean, which keeps its strength and takes away where it looks."
    )


@dataclass(frozen=True)
class Change:
    """What a replacement changes in one metric, replaced minus as it is, paired by case."""

    metric: str
    before: float
    """Mean over the cases that have both numbers."""
    after: float
    difference: float
    low: float
    """95 % bootstrap interval of the mean difference."""
    high: float
    p: float
    """Wilcoxon's signed-rank test."""
    p_holm: float
    """Corrected over all tests of the audit."""
    n: int
    left_out: int
    """Cases without a finite number on one side."""

    def facts(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return dict(self.__dict__)


def change(metric: str, after: list[float], before: list[float]) -> Change:
    """Compare the values of the same cases, in the same order; p is not corrected yet."""
    found, test = effect(after, before), wilcoxon(after, before)
    both = [(a, b) for a, b in zip(after, before, strict=True) if math.isfinite(a) and math.isfinite(b)]
    means = [sum(side) / len(both) if both else math.nan for side in (zip(*both, strict=True) if both else ((), ()))]
    numbers = found.difference, found.low, found.high
    return Change(metric, means[1], means[0], *numbers, test.p, math.nan, test.n, test.left_out)


def corrected(changes: list[Change]) -> list[Change]:
    """The same with Holm's correction over all of them."""
    from dataclasses import replace

    return [replace(one, p_holm=p) for one, p in zip(changes, holm([c.p for c in changes]), strict=True)]


def verdict(dice: Change, margin: float) -> str:
    """One of `VERDICTS`, by the change in Dice; see `rule`."""
    loss, low, high = -dice.difference, -dice.high, -dice.low
    if math.isnan(low):
        return "undecided"
    if low > margin:
        return "essential"
    if high < 0 and loss < -margin:
        return "harmful"
    if high < margin:
        return "decorative"
    return "helpful" if low > 0 else "undecided"

"""Dealing cases into folds: seeded, and never parting the cases of one subject."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attentus.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.types import Case


def deal(cases: Sequence[Case], folds: int, seed: int) -> list[list[str]]:
    """Deal cases into folds of nearly equal size.

    Subjects are shuffled by the seed; each goes, with all its cases, to the fold that has fewest cases so far. The
    result depends on the subjects and the seed only, not on the order of the cases.

    Returns:
        One list of case ids per fold.

    Raises:
        BadInput: fewer subjects than folds.
    """
    subjects: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda c: c.id):
        subjects.setdefault(case.subject, []).append(case.id)
    if len(subjects) < folds:
        raise BadInput(
            f"{len(subjects)} labelled subject(s) cannot be dealt into {folds} folds."
            " Set split.folds to at most the number of subjects."
        )
    names = sorted(subjects)
    order = np.random.default_rng(seed).permutation(len(names))
    dealt: list[list[str]] = [[] for _ in range(folds)]
    for index in order:
        min(dealt, key=len).extend(subjects[names[index]])
    return [sorted(fold) for fold in dealt]

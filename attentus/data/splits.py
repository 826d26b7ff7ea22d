"""Who trains, who validates, who tests: seeded folds, sizes, or a file; cases of one subject never part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

from attentus.errors import BadFile, BadInput, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from attentus.recipes import Split
    from attentus.types import Case


class Parts(NamedTuple):
    """Case ids on each side of a split."""

    train: list[str]
    validation: list[str]
    test: list[str]
    """Empty where the split has no third part."""


def part(cases: Sequence[Case], how: Split, given: Sequence[Mapping[str, Any]] = ()) -> Parts:
    """Split cases as a recipe says.

    Args:
        cases: labelled cases.
        how: the recipe's `split` section.
        given: splits that come with the dataset.

    Raises:
        BadInput: fewer subjects than parts, a split that names unknown cases or one case twice, or a dataset without
            splits where its own are wanted.
        BadFile: the file cannot be read or is no list of splits.
    """
    if how.file:
        return _listed(cases, entries(how.file), how.fold, str(how.file))
    if how.given:
        if not given:
            raise BadInput(
                "The dataset comes without splits, but split.given is set. A list with a column 'split' has them, and"
                " nnU-Net's splits_final.json in the folder of the dataset; otherwise unset split.given."
            )
        return _listed(cases, given, how.fold, "the splits of the dataset")
    if how.sizes:
        train, validation, *test = share_out(cases, how.sizes, how.seed)
        return Parts(train, validation, test[0] if test else [])
    dealt = deal(cases, how.folds, how.seed)
    held_back = dealt[how.fold]
    return Parts([case.id for case in cases if case.id not in held_back], held_back, [])


def deal(cases: Sequence[Case], folds: int, seed: int) -> list[list[str]]:
    """Deal cases into folds of nearly equal size.

    Subjects are shuffled by the seed; each goes, with all its cases, to the fold that has fewest cases so far. The
    result depends on the subjects and the seed only, not on the order of the cases.

    Returns:
        One list of case ids per fold.

    Raises:
        BadInput: fewer subjects than folds.
    """
    return share_out(cases, [1.0] * folds, seed, "split.folds")


def share_out(cases: Sequence[Case], sizes: Sequence[float], seed: int, field: str = "split.sizes") -> list[list[str]]:
    """Deal cases into parts of given relative sizes; with single cases per subject the sizes are met exactly.

    Each subject goes to the part that is furthest from complete: of the shares that are filled least, the first.

    Raises:
        BadInput: fewer subjects than parts.
    """
    subjects: dict[str, list[str]] = {}
    for case in sorted(cases, key=lambda c: c.id):
        subjects.setdefault(case.subject, []).append(case.id)
    if len(subjects) < len(sizes):
        raise BadInput(
            f"{len(subjects)} labelled subject(s) cannot be dealt into {len(sizes)} parts."
            f" Set {field} to at most as many parts as there are subjects."
        )
    names = sorted(subjects)
    order = np.random.default_rng(seed).permutation(len(names))
    dealt: list[list[str]] = [[] for _ in sizes]
    for index in order:
        fill = [len(ids) / size for ids, size in zip(dealt, sizes, strict=True)]
        dealt[fill.index(min(fill))].extend(subjects[names[index]])
    return [sorted(ids) for ids in dealt]


def _listed(cases: Sequence[Case], found: Sequence[Mapping[str, Any]], number: int, what: str) -> Parts:
    if number >= len(found):
        raise BadInput(f"{what} has {len(found)} split(s), numbered from 0; split.fold is {number}.")
    entry = found[number]
    known = [case.id for case in cases]
    sides = [entry.get("train"), entry.get("val", entry.get("validation")), entry.get("test", [])]
    if any(not isinstance(side, list) for side in sides):
        raise BadFile(what, f"entry {number} has no lists 'train' and 'val'", "Write {train: [...], val: [...]}.")
    seen: set[str] = set()
    for side in sides:
        for case in map(str, side):
            if case not in known:
                raise BadInput(f"{what}: the dataset has no labelled case '{case}'.{did_you_mean(case, known)}")
            if case in seen:
                raise BadInput(f"{what}: '{case}' is named twice in entry {number}; a case is on one side only.")
            seen.add(case)
    return Parts(*[[str(case) for case in side] for side in sides])


def entries(file: Path) -> list[dict[str, Any]]:
    """The splits in a file, one per fold.

    Raises:
        BadFile: it cannot be read or is no list of splits.
    """
    try:
        listed = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML
    except FileNotFoundError:
        raise BadFile(file, "does not exist", "Check split.file.") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadFile(file, f"cannot be read as JSON or YAML ({error})", "Check split.file.") from None
    found = listed if isinstance(listed, list) else [listed]
    if not all(isinstance(entry, dict) for entry in found):
        raise BadFile(file, "is no list of splits", "Write a list of {train: [...], val: [...]}.")
    return found

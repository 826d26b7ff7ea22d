"""Fit a recipe to a dataset: names become label values, "all" becomes a list, "median" becomes millimetres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attentus import io
from attentus.errors import AttentusError, BadInput, RecipeError, did_you_mean
from attentus.recipes import Intensity, Recipe, Structure, build
from attentus.types import IGNORE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from attentus.data.dataset import Dataset

CONTEXT = 1000
"""First number for labels that only say where patches lie."""
SAMPLE = 10_000
"""Voxels per scan from which the statistics of a dataset are taken."""


def resolve(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with everything that depends on the data written out.

    Raises:
        RecipeError: labels or channels the dataset does not have, structures that overlap without `regions`, regions
            that neither contain nor leave out one another, or fields that do not fit the labels and channels found.
        BadInput: no case has both image and label.
    """
    if not dataset.labelled:
        raise BadInput(f"{dataset.root}: no case has both an image and labels, so there is nothing to learn from.")
    channels = recipe.channels or dataset.channels
    if channels != dataset.channels:
        raise RecipeError(
            f"channels: the recipe wants {list(channels)}, the dataset has {list(dataset.channels)}.\n"
            "  Set channels to the dataset's (or 'all'); a case's images must hold exactly these, in this order."
        )
    recipe = recipe.model_copy(update={"ignore": recipe.ignore or dataset.ignore})
    structures = _structures(recipe, dataset.labels, dataset.regions)
    for name in set(recipe.sampling.within) - {structure.name for structure in structures}:
        if name not in dataset.labels:
            known = did_you_mean(name, dataset.labels)
            raise RecipeError(f"sampling.within: neither a structure nor a label of the dataset is '{name}'.{known}")
    ready = {
        "spacing": _spacing(recipe, dataset),
        "intensity": _intensity(recipe, dataset, {part for structure in structures for part in structure.parts}),
    }
    changes = {"labels": structures, "channels": channels, "prepare": recipe.prepare.model_copy(update=ready)}
    return build(recipe.model_copy(update=changes).model_dump(), recipe.name)


def members(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """The class numbers that form each structure of a recipe.

    Usually that is one number, counted from 1. With `regions`, every label of the dataset that any structure has is
    a class of its own, and structures share them.
    """
    if not recipe.regions:
        return {structure.name: (number,) for number, structure in enumerate(recipe.labels, start=1)}
    each = {structure.name: structure.parts or (structure.name,) for structure in recipe.labels}
    parts = list(dict.fromkeys(part for own in each.values() for part in own))
    return {name: tuple(1 + parts.index(part) for part in own) for name, own in each.items()}


def context(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """Numbers of labels that are not segmented, but in which patches may be centred (`sampling.within`).

    They are beyond all class numbers: the voxels are remembered as places, not as classes.
    """
    mine = {structure.name for structure in recipe.labels}
    others = dict.fromkeys(name for name in recipe.sampling.within if name not in mine)
    return {name: (CONTEXT + number,) for number, name in enumerate(others)}


def region_table(recipe: Recipe) -> NDArray[np.bool_] | None:
    """Which class (rows, background first) is part of which structure (columns); None without `regions`."""
    if not recipe.regions:
        return None
    columns = list(members(recipe).values())
    numbers = range(1 + max(max(column) for column in columns))
    return np.array([[number in column for column in columns] for number in numbers])


def values_in(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    """The label values that form each structure in files this recipe writes: with `regions`, inner ones count, too."""
    mine = {structure: set(numbers) for structure, numbers in members(recipe).items()}
    return {
        outer.name: tuple(inner.value for inner in recipe.labels if mine[inner.name] <= mine[outer.name])
        for outer in recipe.labels
    }


def class_table(recipe: Recipe, stored: Mapping[str, int]) -> NDArray[np.int16]:
    """For each stored label value, its class (0 background, `IGNORE`, else see `members`); -1 if unknown.

    Args:
        recipe: resolved.
        stored: the dataset's label names and values.
    """
    table = np.full(1 + max(stored.values(), default=0), -1, np.int16)
    table[[0, *stored.values()]] = 0
    table[[stored[name] for name in recipe.ignore]] = IGNORE
    for structure, numbers in zip(recipe.labels, members(recipe).values(), strict=True):
        for place, part in enumerate(structure.parts):
            table[stored[part]] = numbers[place if recipe.regions else 0]
    return table


def to_classes(labels: NDArray[np.integer], table: NDArray[np.int16], names: Mapping[str, int]) -> NDArray[np.uint8]:
    """Stored label values to class numbers.

    Raises:
        BadInput: a value that the dataset does not name.
    """
    present = np.unique(labels)
    unknown = [int(v) for v in present if v >= len(table) or table[v] < 0]
    if unknown:
        known = ", ".join(f"{v} {n}" for n, v in names.items())
        raise BadInput(f"unknown label value(s) {unknown} (known: {known}); correct the labels or name the values")
    classes: NDArray[np.uint8] = table.astype(np.uint8)[labels]
    return classes


def _structures(
    recipe: Recipe, stored: Mapping[str, int], regions: Mapping[str, tuple[str, ...]]
) -> tuple[Structure, ...]:
    if not stored:
        raise RecipeError("labels: the dataset has no label but background, so there is nothing to learn.")
    known = [name for name in stored if name not in recipe.ignore]
    wanted = [
        s.model_copy(update={"parts": _labels_in(s.parts or (s.name,), stored, regions)}) for s in recipe.labels
    ] or [Structure(name=name, parts=(name,)) for name in known]
    for field, names in (("ignore", recipe.ignore), *(("labels", s.parts) for s in wanted)):
        for name in names:
            if name not in stored:
                raise RecipeError(
                    f"{field}: the dataset has no label '{name}'.{did_you_mean(name, [*stored, *regions])}"
                )
            if field == "labels" and name in recipe.ignore:
                raise RecipeError(f"labels: '{name}' is to be ignored, too (ignore); take it out of one of them.")
    (_check_nested if recipe.regions else _check_apart)(wanted)
    if len({part for structure in wanted for part in structure.parts}) >= IGNORE:
        raise RecipeError(f"labels: at most {IGNORE - 1} labels can be told apart in one training; leave some out.")
    return tuple(s.model_copy(update={"value": _value(wanted, k, stored)}) for k, s in enumerate(wanted))


def _labels_in(
    parts: Sequence[str], stored: Mapping[str, int], regions: Mapping[str, tuple[str, ...]]
) -> tuple[str, ...]:
    """Parts with regions of the dataset replaced by the labels they stand for; a label is never a region."""
    named = [(part,) if part in stored else regions.get(part, (part,)) for part in parts]
    return tuple(dict.fromkeys(label for labels in named for label in labels))


def _check_apart(structures: Sequence[Structure]) -> None:
    owner: dict[str, str] = {}
    for structure in structures:
        for part in structure.parts:
            if part in owner:
                raise RecipeError(
                    f"labels: '{part}' belongs to both '{owner[part]}' and '{structure.name}'; a voxel has one class.\n"
                    "  For structures within each other set regions: true, outer ones first."
                )
            owner[part] = structure.name


def _check_nested(structures: Sequence[Structure]) -> None:
    for k, outer in enumerate(structures):
        for inner in structures[k + 1 :]:
            shared = set(outer.parts) & set(inner.parts)
            if shared and not set(inner.parts) <= set(outer.parts):
                raise RecipeError(
                    f"labels: '{outer.name}' and '{inner.name}' share {', '.join(sorted(shared))}, but the second does"
                    " not lie within the first. List outer structures before inner ones."
                )


def _value(structures: Sequence[Structure], index: int, stored: Mapping[str, int]) -> int:
    """What a structure is written as: where structures lie within each other, inner ones are painted over it."""
    structure = structures[index]
    inner = {part for later in structures[index + 1 :] for part in later.parts}
    own = [part for part in structure.parts if part not in inner]
    if not (structure.value or own):
        raise RecipeError(
            f"labels: every part of '{structure.name}' is part of a later structure, so no label value is left for it."
            "\n  Give it one: {name: ..., parts: [...], value: N}."
        )
    return structure.value or min(stored[part] for part in own)


def _intensity(recipe: Recipe, dataset: Dataset, parts: set[str]) -> tuple[Intensity, ...]:
    """`scope: dataset` written out as window and moments per channel."""
    given = recipe.prepare.intensity
    if all(one.scope == "scan" for one in given):
        return given
    sampled = np.concatenate(list(_samples(dataset, [dataset.labels[part] for part in sorted(parts)])), axis=1)
    each = given * len(sampled) if len(given) == 1 else given
    resolved = []
    for one, values in zip(each, sampled, strict=True):
        if one.scope == "scan":
            resolved.append(one)
            continue
        low, high = np.percentile(values, one.percentiles) if one.percentiles else one.window or (None, None)
        window = None if low is None else (float(f"{low:.6g}"), float(f"{high:.6g}"))
        moments = (float(f"{values.mean():.6g}"), max(float(f"{values.std():.6g}"), 1e-6))
        resolved.append(Intensity(window=window, normalise=one.normalise, moments=moments))
    return tuple(resolved)


def _samples(dataset: Dataset, values: Sequence[int]) -> Iterator[NDArray[np.float64]]:
    """(C, n) voxels of structures of each labelled scan, the same ones whenever asked."""
    found = False
    for number, case in enumerate(dataset.labelled):
        try:
            image, labels = io.read_case(case), io.read_labels(case.label)  # type: ignore[arg-type]
            image.grid.require_match(labels.grid, case.id)
        except AttentusError:
            continue  # preparing the case will name the file
        flat = np.flatnonzero(np.isin(labels.array[0], values))
        if flat.size > SAMPLE:
            flat = np.random.default_rng([0, number]).choice(flat, SAMPLE, replace=False)
        found = found or bool(flat.size)
        yield image.array.reshape(image.channels, -1)[:, flat].astype(np.float64)
    if not found:
        raise BadInput(
            f"{dataset.root}: no scan has a voxel of the structures, so prepare.intensity scope: dataset has nothing"
            " to measure. Run `attentus data check`."
        )


def _spacing(recipe: Recipe, dataset: Dataset) -> object:
    if recipe.prepare.spacing != "median":
        return recipe.prepare.spacing
    spacings = []
    for case in dataset.labelled:
        try:
            spacings.append(io.read_grid(case.images[0]).spacing)
        except AttentusError:
            continue  # preparing the case will name the file
    if not spacings:
        raise BadInput(
            f"{dataset.root}: no image can be read, so there is no median spacing. Run `attentus data check`."
        )
    return tuple(round(float(s), 4) for s in np.median(spacings, axis=0))

"""Fit a recipe to a dataset: names become label values, "all" becomes a list, "median" becomes millimetres."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from attentus import io
from attentus.errors import AttentusError, BadInput, RecipeError, did_you_mean
from attentus.recipes import Recipe, Structure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from attentus.data.dataset import Dataset


def resolve(recipe: Recipe, dataset: Dataset) -> Recipe:
    """The recipe with everything that depends on the data written out.

    Raises:
        RecipeError: labels or channels the dataset does not have, or structures that overlap.
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
    changes = {
        "labels": _structures(recipe, dataset.labels),
        "channels": channels,
        "prepare": recipe.prepare.model_copy(update={"spacing": _spacing(recipe, dataset)}),
    }
    return Recipe.model_validate(recipe.model_copy(update=changes).model_dump())


def class_table(labels: tuple[Structure, ...], stored: Mapping[str, int]) -> NDArray[np.int16]:
    """For each stored label value, the class it belongs to (0 background, then structures in order); -1 if unknown.

    Args:
        labels: resolved structures.
        stored: the dataset's label names and values.
    """
    table = np.full(1 + max(stored.values(), default=0), -1, np.int16)
    table[[0, *stored.values()]] = 0
    for number, structure in enumerate(labels, start=1):
        for part in structure.parts:
            table[stored[part]] = number
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


def _structures(recipe: Recipe, stored: Mapping[str, int]) -> tuple[Structure, ...]:
    if not stored:
        raise RecipeError("labels: the dataset has no label but background, so there is nothing to learn.")
    wanted = recipe.labels or tuple(Structure(name=name) for name in stored)
    owner: dict[str, str] = {}
    resolved = []
    for structure in wanted:
        parts = structure.parts or (structure.name,)
        for part in parts:
            if part not in stored:
                raise RecipeError(f"labels: the dataset has no label '{part}'.{did_you_mean(part, stored)}")
            if part in owner:
                raise RecipeError(
                    f"labels: '{part}' belongs to both '{owner[part]}' and '{structure.name}'; a voxel has one class."
                )
            owner[part] = structure.name
        value = structure.value or min(stored[part] for part in parts)
        resolved.append(Structure(name=structure.name, parts=parts, value=value))
    return tuple(resolved)


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

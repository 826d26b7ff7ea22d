"""A cascade from models that were trained on their own, perhaps on different data."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attentus.cascade.model import FILE, STAGES, Cascade
from attentus.errors import BadFile, BadInput
from attentus.infer.ensemble import member_folders
from attentus.infer.model import recipe_of
from attentus.io.atomic import write_text
from attentus.recipes import build_cascade, dump

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

KEPT = ("recipe.yaml", "weights.safetensors", "card.md", "scores.json", "data.json")
"""What is copied of a model folder."""


def assemble(
    stages: Mapping[str, Mapping[str, Any]],
    answer: Mapping[str, str],
    out: str | PathLike[str],
    *,
    name: str = "cascade",
    values: Mapping[str, int] | None = None,
) -> Cascade:
    """Make the folder of a cascade out of trained models.

    Args:
        stages: by name, in order: `model`, the folder of a model or of folds, and what `Stage` takes (`box`, `inside`).
        answer: see `CascadeRecipe`; also `values`, which are needed where the models count their labels differently.
        out: folder to make.
        name: names the result.
        values: integer that each structure gets in label files; None takes those of the models.

    Raises:
        BadFile: a folder that holds no model, or `out` is not empty.
        RecipeError: the stages do not fit together.
        BadInput: models that take other channels, or structures with the same integer.
    """
    folder = Path(out)
    if folder.is_dir() and any(folder.iterdir()):
        raise BadFile(folder, "is not empty", "Choose an empty or a new folder.")
    homes = {stage: member_folders(Path(how["model"])) or [Path(how["model"])] for stage, how in stages.items()}
    recipes = {stage: recipe_of(members[0]) for stage, members in homes.items()}
    if len(channels := {recipe.channels for recipe in recipes.values()}) > 1:
        raise BadInput(f"The models take different channels: {' and '.join(str(list(c)) for c in channels)}.")
    tree: dict[str, Any] = {"name": name, "answer": dict(answer), "stages": {}}
    for stage, how in stages.items():
        place = {key: value for key, value in how.items() if key != "model"}
        tree["stages"][stage] = {**place, "recipe": recipes[stage].model_dump()}
    plan = build_cascade(tree, name)
    given = values or {s: _value(recipes, place) for s, place in answer.items()}
    if len(set(given.values())) < len(given):
        raise BadInput(f"Two structures of the answer have the same integer ({dict(given)}): give values.")
    for stage, members in homes.items():
        for number, member in enumerate(members):
            target = folder / STAGES / stage / f"fold{number}"
            target.mkdir(parents=True)
            for file in KEPT:
                if (member / file).is_file():
                    shutil.copy(member / file, target / file)
    write_text(folder / FILE, dump(plan.model_copy(update={"values": dict(given)})))
    return Cascade.load(folder)


def _value(recipes: Mapping[str, Any], place: str) -> int:
    stage, _, own = place.partition(".")
    return next(int(structure.value) for structure in recipes[stage].labels if structure.name == own)

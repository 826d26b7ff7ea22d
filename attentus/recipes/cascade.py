"""Cascades: recipes of several stages, each of which looks where an earlier one found something.

A file of a cascade has `stages` where a recipe has `net`. A stage's recipe is the name of a shipped one, a file, or
written out; `change` holds what shall be other than there.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from attentus.errors import RecipeError, did_you_mean
from attentus.recipes.load import assign, build, explain, load, merge, tree_of
from attentus.recipes.schema import NotNegative, Recipe, Section, Split

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Places = Annotated[str, Field(pattern=r"^[^.]+(\..+)?$")]


class Box(Section):
    """The part of the scan that a stage looks at."""

    around: Places
    """STAGE.STRUCTURE, e.g. box.liver, or STAGE for all that an earlier stage finds; the box is that along the axes."""
    margin: NotNegative | tuple[NotNegative, NotNegative, NotNegative] = 10
    """How much wider it is on each side, one number or (z, y, x); never beyond the scan."""
    unit: Literal["voxels", "mm"] = "voxels"
    """Of the margin: voxels of the scan, or millimetres."""
    if_empty: Literal["stop", "whole"] = "stop"
    """Where nothing is found: "stop" finds nothing here, either, and the result is flagged for review; "whole" looks at
    the whole scan, flagged as well."""

    @property
    def margins(self) -> tuple[float, float, float]:
        """For each axis (z, y, x)."""
        return self.margin if isinstance(self.margin, tuple) else (self.margin,) * 3


class Stage(Section):
    """One of the models of a cascade."""

    recipe: Recipe
    """What is trained and predicted: in a file the name of a recipe, a path, or a recipe written out."""
    box: Box | None = None
    """Where it looks; null looks at the whole scan."""
    inside: Places | None = None
    """STAGE.STRUCTURE outside of which it finds nothing, whatever its net says."""


class CascadeRecipe(Section):
    """Several recipes that make one result."""

    name: str
    """Names the result."""
    about: str = ""
    """What it is, from which paper, for which data."""
    stages: dict[str, Stage]
    """In the order in which they are trained and asked."""
    answer: dict[str, Places]
    """What the result holds: structure to STAGE.STRUCTURE. Where they overlap, later ones are painted over earlier
    ones, so outer structures come first."""
    values: dict[str, int] = Field(default={})
    """Integer that each structure of the answer gets in label files; what is not given takes the dataset's own, as in
    recipes."""
    learn_from: Literal["predicted", "reference"] = "predicted"
    """Boxes in which later stages are trained: around what the earlier stage found in cases that it had not seen
    (cross-training), or around the reference, as the papers do. With "predicted", a case that no trained fold held
    back, or in which nothing was found, takes the reference."""
    split: Split = Split()
    """Which cases train and validate; all stages share it, so that a held-back case is held back from all of them."""

    @model_validator(mode="after")
    def _fits_together(self) -> CascadeRecipe:
        if not self.stages or not self.answer:
            raise ValueError("a cascade has at least one stage, and an answer")
        for number, (name, stage) in enumerate(self.stages.items()):
            if "." in name or "/" in name or name.startswith("-"):
                raise ValueError(f"stages: a stage cannot be called '{name}': it is a word without dots and slashes")
            earlier = list(islice(self.stages, number))
            self._check(f"stages.{name}.box.around", stage.box.around if stage.box else None, earlier)
            self._check(f"stages.{name}.inside", stage.inside, earlier)
        for structure, place in self.answer.items():
            self._check(f"answer.{structure}", place, list(self.stages), single=True)
        if strange := set(self.values) - set(self.answer):
            raise ValueError(f"values: {', '.join(sorted(strange))} is not in the answer")
        return self

    def _check(self, field: str, place: str | None, stages: Sequence[str], *, single: bool = False) -> None:
        if place is None:
            return
        stage, dot, structure = place.partition(".")
        if stage not in stages:
            raise ValueError(f"{field}: there is no {'' if single else 'earlier '}stage '{stage}'")
        names = [known.name for known in self.stages[stage].recipe.labels]
        if single and not dot:
            raise ValueError(f"{field}: names a stage; write STAGE.STRUCTURE, e.g. {stage}.{(names or ['liver'])[0]}")
        if dot and names and structure not in names:
            raise ValueError(f"{field}: stage '{stage}' finds no '{structure}'.{did_you_mean(structure, names)}")


def is_cascade(source: str | Path) -> bool:
    """Whether a shipped recipe or a file has stages.

    Raises:
        RecipeError: no such recipe, or not a readable one.
    """
    return "stages" in tree_of(source)


def load_any(source: str | Path, overrides: Sequence[str] = ()) -> Recipe | CascadeRecipe:
    """A recipe, or a cascade if it has stages.

    Args:
        source: name of a shipped one, or a YAML file; with @VARIANT behind it for a variant.
        overrides: changes such as "train.steps=500"; of a cascade "stages.liver.train.steps=500".

    Raises:
        RecipeError: see `Recipe.load`.
    """
    return load_cascade(source, overrides) if is_cascade(source) else load(source, overrides)


def load_cascade(source: str | Path, overrides: Sequence[str] = ()) -> CascadeRecipe:
    """Load a cascade.

    Raises:
        RecipeError: see `Recipe.load`; also a recipe without stages.
    """
    tree = tree_of(source)
    stages = tree.get("stages")
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        raise RecipeError(f"{source}: stages are a mapping of names to stages, each with a recipe.")
    tree["stages"] = {name: _written_out(stage, f"{source}: stages.{name}") for name, stage in stages.items()}
    for override in overrides:
        assign(tree, _inside_recipe(override, list(stages)))
    return build_cascade(tree, str(source))


def build_cascade(tree: dict[str, Any], where: str) -> CascadeRecipe:
    """A cascade from nested dicts.

    Raises:
        RecipeError: with one line per field that is wrong.
    """
    for name, stage in tree.get("stages", {}).items():
        if isinstance(stage.get("recipe"), dict):
            stage["recipe"] = build(stage["recipe"], f"{where}: stages.{name}")
    try:
        return CascadeRecipe.model_validate(tree)
    except ValidationError as error:
        lines = "\n".join(f"  {explain(detail, CascadeRecipe)}" for detail in error.errors())
        raise RecipeError(f"{where}: the cascade has {error.error_count()} problem(s).\n{lines}") from None


def answer_recipe(plan: CascadeRecipe) -> Recipe:
    """A recipe that names what a resolved cascade takes and finds; its net is that of the last stage."""
    structures: list[dict[str, Any]] = []
    for name, place in plan.answer.items():
        stage, _, own = place.partition(".")
        parts = next(s.parts or (s.name,) for s in plan.stages[stage].recipe.labels if s.name == own)
        structures.append({"name": name, "parts": parts, "value": plan.values.get(name, 0)})
    everything = [part for structure in structures for part in structure["parts"]]
    last = list(plan.stages.values())[-1].recipe.model_dump()
    changes = {
        "name": plan.name,
        "about": plan.about,
        "labels": structures,
        "regions": len(everything) > len(set(everything)),
        "sampling": {},
        "infer": {},
        "loss": {},
        "split": plan.split.model_dump(),
    }
    return build({**last, **changes}, plan.name)


def _written_out(stage: dict[str, Any], where: str) -> dict[str, Any]:
    """A stage with its recipe as a tree, changes applied."""
    own, changes = stage.get("recipe"), stage.get("change") or {}
    if own is None or not isinstance(changes, dict):
        raise RecipeError(f"{where}: has no recipe, or a change that is no mapping of fields.")
    base = own if isinstance(own, dict) else tree_of(str(own))
    if "stages" in base:
        raise RecipeError(f"{where}: '{own}' is a cascade itself; a stage is a recipe with a net.")
    return {**{key: value for key, value in stage.items() if key != "change"}, "recipe": merge(base, changes)}


def _inside_recipe(override: str, stages: Sequence[str]) -> str:
    """Take "stages.liver.train.steps=5" for "stages.liver.recipe.train.steps=5"; other fields as they are."""
    path, equals, value = override.partition("=")
    parts = path.strip().split(".")
    if parts[0] == "stages" and len(parts) > 2 and parts[1] in stages and parts[2] not in Stage.model_fields:
        parts.insert(2, "recipe")
    return ".".join(parts) + equals + value

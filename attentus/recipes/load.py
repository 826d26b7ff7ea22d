"""Recipes from YAML and back; shipped ones lie beside this file."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import yaml
from pydantic import BaseModel, ValidationError

from attentus.errors import RecipeError, did_you_mean
from attentus.recipes.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable

    from pydantic_core import ErrorDetails


def shipped() -> dict[str, str]:
    """Name to first comment line of every recipe inside the package."""
    return {name: _headline(text) for name, text in sorted(_library().items())}


def text_of(source: str | Path) -> str:
    """The YAML text of a shipped recipe or a file.

    Raises:
        RecipeError: neither exists.
    """
    library = _library()
    if str(source) in library:
        return library[str(source)]
    path = Path(source)
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise RecipeError(
            f"No recipe is called '{source}', and no file of that name exists.{did_you_mean(str(source), library)}"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read as a text file ({error})") from error


def load(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """See `Recipe.load`."""
    try:
        tree = yaml.safe_load(text_of(source))
    except yaml.YAMLError as error:
        raise RecipeError(f"{source}: is not valid YAML.\n  {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError(
            f"{source}: a recipe is a mapping of fields (name, net, train, ...), not {type(tree).__name__}."
        )
    for override in overrides:
        _set(tree, override)
    return build(tree, str(source))


def build(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from nested dicts.

    Raises:
        RecipeError: with one line per field that is wrong.
    """
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = "\n".join(f"  {_explain(detail)}" for detail in error.errors())
        raise RecipeError(f"{where}: the recipe has {error.error_count()} problem(s).\n{lines}") from None


def dump(recipe: Recipe) -> str:
    """A recipe as YAML with every field written out; loads to an equal recipe."""
    tree = recipe.model_dump(mode="json")
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Fields in which two recipes differ, as "train.batch: 2 -> 4"."""
    return _differences(old.model_dump(), new.model_dump(), "")


def _library() -> dict[str, str]:
    folder: Traversable = files("attentus.recipes") / "library"
    found = (item for item in folder.iterdir() if item.name.endswith(".yaml"))
    return {item.name.removesuffix(".yaml"): item.read_text(encoding="utf-8") for item in found}


def _headline(text: str) -> str:
    return next((line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")), "")


def _set(tree: dict[str, Any], override: str) -> None:
    """Apply "a.b=value" to nested dicts; the value is read as YAML."""
    path, equals, value = override.partition("=")
    if not equals:
        raise RecipeError(f"'{override}' is no override: write FIELD=VALUE, for example train.steps=500.")
    *parents, last = path.strip().split(".")
    for parent in parents:
        if tree.get(parent) is None:
            tree[parent] = {}
        tree = tree[parent]
        if not isinstance(tree, dict):
            raise RecipeError(f"'{override}': '{parent}' holds a value, not fields of its own.")
    try:
        tree[last] = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise RecipeError(f"'{override}': the value is not valid YAML ({error}).") from None


def _explain(detail: ErrorDetails) -> str:
    path = [str(part) for part in detail["loc"]]
    where = ".".join(path) or "recipe"
    if detail["type"] == "extra_forbidden":
        return f"{where}: there is no such field.{did_you_mean(path[-1], _fields(detail['loc'][:-1]))}"
    if detail["type"] == "missing":
        return f"{where}: is required."
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict | BaseModel) else f" (got {detail['input']!r})"
    return f"{where}: {message[0].lower()}{message[1:]}{given}"


def _fields(path: tuple[int | str, ...]) -> list[str]:
    """Names of the fields that exist where a path of an error points."""
    model: type[BaseModel] = Recipe
    for part in path:
        if isinstance(part, str) and part in model.model_fields:
            inner = model.model_fields[part].annotation
            candidates = [inner, *get_args(inner)]
            model = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), model)
    return list(model.model_fields)


def _differences(old: Any, new: Any, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(key for key in new if key not in old)]
        nested = (_differences(old.get(key), new.get(key), f"{path}.{key}".lstrip(".")) for key in keys)
        return [line for lines in nested for line in lines]
    return [] if old == new else [f"{path}: {old} -> {new}"]

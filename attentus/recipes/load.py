"""Recipes from YAML and back; shipped ones lie beside this file.

A file may hold variants of its recipe, name -> changes, below the key `variants`: the baselines and ablations of a
paper's tables. `NAME@VARIANT` is the recipe with those changes. A recipe itself, once loaded, knows nothing of them.
"""

from __future__ import annotations

from importlib.resources import files
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError

from attentus.errors import RecipeError, did_you_mean
from attentus.recipes.schema import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.resources.abc import Traversable

    from pydantic_core import ErrorDetails

    Tree = dict[str, Any]

REPLACED = ("labels", "channels")
"""A variant's mapping stands for a list there, and replaces what the recipe has."""


def shipped() -> dict[str, str]:
    """Name to first comment line of every recipe inside the package."""
    return {name: _headline(text) for name, text in sorted(_library().items())}


def variants(source: str | Path) -> dict[str, str]:
    """Name to `about` of the variants a recipe holds; load one as "RECIPE@NAME".

    Raises:
        RecipeError: no such recipe, or not a readable one.
    """
    written = _read(source)
    if written.variant is not None:
        return {}
    return {name: str(changes.get("about", "")) for name, changes in _parse(written)[1].items()}


def text_of(source: str | Path) -> str:
    """The YAML text of a shipped recipe or a file; of a variant, what it merges to below the recipe's own header.

    Raises:
        RecipeError: neither exists.
    """
    written = _read(source)
    if written.variant is None:
        return written.text
    header = [*takewhile(lambda line: line.startswith("#"), written.text.splitlines())]
    note = f"# Variant '{written.variant}' of that recipe, where comments tell the reasons of values."
    return "\n".join([*header, note, _write(_merged(written))])


def load(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """See `Recipe.load`."""
    tree = tree_of(source)
    if "stages" in tree:
        raise RecipeError(f"{source}: is a cascade of several recipes; here one recipe with a net is needed.")
    for override in overrides:
        assign(tree, override)
    return _validate(tree, str(source))


def tree_of(source: str | Path) -> Tree:
    """Nested fields of a recipe or a variant, as written; not checked.

    Raises:
        RecipeError: no such recipe or variant, or malformed YAML.
    """
    return _merged(_read(source))


def build(tree: dict[str, Any], where: str) -> Recipe:
    """A recipe from nested dicts; `variants` are left out.

    Raises:
        RecipeError: with one line per field that is wrong.
    """
    return _validate({key: value for key, value in tree.items() if key != "variants"}, where)


def dump(recipe: BaseModel) -> str:
    """A recipe as YAML with every field written out; loads to an equal recipe."""
    return _write(recipe.model_dump(mode="json"))


def differences(old: BaseModel, new: BaseModel) -> list[str]:
    """Fields in which two recipes, or cascades, differ, as "train.batch: 2 -> 4"."""
    return _differences(old.model_dump(), new.model_dump(), "")


class _Written(NamedTuple):
    """A recipe as it stands in a file, and which of its variants is meant."""

    where: str
    text: str
    variant: str | None


def _read(source: str | Path) -> _Written:
    """Find RECIPE or RECIPE@VARIANT; a file whose whole name is given goes first, so that paths may hold an @."""
    library, whole = _library(), str(source)
    base, at, variant = whole.rpartition("@")
    for name, picked in [(whole, None), (base, variant)][: 2 if at else 1]:
        if name in library:
            return _Written(name, library[name], picked)
        try:
            return _Written(name, Path(name).read_text(encoding="utf-8"), picked)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{name}: cannot be read as a text file ({error})") from error
    raise RecipeError(
        f"No recipe is called '{whole}', and no file of that name exists.{did_you_mean(base or whole, library)}"
    )


def _parse(written: _Written) -> tuple[Tree, dict[str, Tree]]:
    """The recipe's own fields, and its variants."""
    where = written.where
    try:
        tree = yaml.safe_load(written.text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: is not valid YAML.\n  {error}") from None
    if not isinstance(tree, dict):
        raise RecipeError(
            f"{where}: a recipe is a mapping of fields (name, net, train, ...), not {type(tree).__name__}."
        )
    found = tree.pop("variants", None) or {}
    if not isinstance(found, dict) or not all(isinstance(changes, dict) for changes in found.values()):
        raise RecipeError(f"{where}: variants are a mapping of names to the fields that they change.")
    for name in found:
        if not isinstance(name, str) or not name or "@" in name:
            raise RecipeError(f"{where}: a variant cannot be called '{name}': it is a word without @.")
    return tree, found


def _merged(written: _Written) -> Tree:
    """Nested fields of the recipe, or of the variant that is meant.

    Raises:
        RecipeError: not a recipe, or no such variant.
    """
    tree, found = _parse(written)
    if written.variant is None:
        return tree
    if written.variant not in found:
        known = did_you_mean(written.variant, found)
        raise RecipeError(f"The recipe '{written.where}' has no variant '{written.variant}'.{known}")
    changes = found[written.variant]
    return {**merge(tree, changes), "name": changes.get("name", f"{tree.get('name')}@{written.variant}")}


def merge(base: Tree, changes: Tree) -> Tree:
    """Changes over a base, mapping by mapping. Another net or loss starts without the options of the first."""
    merged = dict(base)
    if "name" in base and "options" in base and changes.get("name", base["name"]) != base["name"]:
        del merged["options"]
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict) and key not in REPLACED
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _write(tree: Tree) -> str:
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True, width=110, default_flow_style=None)


def _validate(tree: Tree, where: str) -> Recipe:
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        lines = "\n".join(f"  {explain(detail)}" for detail in error.errors())
        raise RecipeError(f"{where}: the recipe has {error.error_count()} problem(s).\n{lines}") from None


def _library() -> dict[str, str]:
    folder: Traversable = files("attentus.recipes") / "library"
    found = (item for item in folder.iterdir() if item.name.endswith(".yaml"))
    return {item.name.removesuffix(".yaml"): item.read_text(encoding="utf-8") for item in found}


def _headline(text: str) -> str:
    return next((line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#")), "")


def assign(tree: dict[str, Any], override: str) -> None:
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


def explain(detail: ErrorDetails, whole: type[BaseModel] = Recipe) -> str:
    """One complaint of pydantic about a recipe, in words."""
    path = [str(part) for part in detail["loc"]]
    where = ".".join(path) or "recipe"
    if detail["type"] == "extra_forbidden":
        return f"{where}: there is no such field.{did_you_mean(path[-1], _fields(detail['loc'][:-1], whole))}"
    if detail["type"] == "missing":
        return f"{where}: is required."
    message = detail["msg"].removeprefix("Value error, ")
    given = "" if isinstance(detail["input"], dict | BaseModel) else f" (got {detail['input']!r})"
    return f"{where}: {message[0].lower()}{message[1:]}{given}"


def _fields(path: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    """Names of the fields that exist where a path of an error points."""
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

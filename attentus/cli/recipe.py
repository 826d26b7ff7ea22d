"""attentus recipe list | show | copy | check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from attentus.cli.options import Json, Overwrite, Set
from attentus.cli.show import print_json, table

app = typer.Typer(no_args_is_help=True, help="Find, read, copy and check recipes.")

Name = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file; NAME@VARIANT for a variant.")
]


@app.command("list", epilog="Example: attentus recipe list")
def list_(json: Json = False) -> None:
    """List the recipes that come with Attentus, each with its variants."""
    from attentus.recipes import shipped, variants

    recipes = shipped()
    if json:
        named = ({name: headline, **_full(name, variants(name))} for name, headline in recipes.items())
        print_json({name: what for group in named for name, what in group.items()})
        return
    rows = []
    for name, headline in recipes.items():
        rows.append([name, headline])
        rows += [[f"  @{variant}", about] for variant, about in variants(name).items()]
    table(["recipe", "what it is"], rows)


@app.command(epilog="Example: attentus recipe show hippocampus-attention-unet")
def show(
    recipe: Name,
    full: Annotated[bool, typer.Option("--full", help="Write out every field, defaults included.")] = False,
    override: Set = [],  # noqa: B006 - Typer copies it
    json: Json = False,
) -> None:
    """Print a recipe as it was written, or with every field."""
    from attentus.recipes import dump, load_any, text_of

    if json:
        print_json(load_any(recipe, override).model_dump(mode="json"))
    elif full or override:
        print(dump(load_any(recipe, override)), end="")
    else:
        print(text_of(recipe), end="")


@app.command(epilog="Example: attentus recipe copy hippocampus-attention-unet mine.yaml")
def copy(
    recipe: Name,
    out: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file to write.")],
    overwrite: Overwrite = False,
) -> None:
    """Copy a recipe to a file of your own, comments included, to change it."""
    from attentus.io.atomic import write_text
    from attentus.recipes import text_of

    write_text(out, text_of(recipe), overwrite=overwrite)
    print(f"{out}: change it, then `attentus recipe check {out}`")


@app.command(epilog="Example: attentus recipe check mine.yaml --set train.batch=4")
def check(recipe: Name, override: Set = [], json: Json = False) -> None:  # noqa: B006
    """Check a recipe: fields, values, combinations, and that its net and loss can be built; of a cascade every stage.

    Its variants are checked, too, unless one of them is named or --set is given.
    """
    from attentus.recipes import variants

    found = {} if override else _full(recipe, variants(recipe))
    rows = _checked(recipe, override)
    count = len(rows)
    rows += [row for name in found for row in _checked(name, [])]
    if json and count > 1:
        print_json({"recipe": recipe, "ok": True, "stages": {row["recipe"]: row["parameters"] for row in rows[:count]}})
    elif json:
        first, *others = rows
        also = {"variants": {row["recipe"]: row["parameters"] for row in others}} if others else {}
        print_json({"recipe": first["recipe"], "ok": True, "parameters": first["parameters"], **also})
    else:
        for row in rows:
            print(f"{row['recipe']}: fine. {row['net']}, {row['dims']}D, {row['parameters']:,} parameters")


def _full(recipe: str, variants: dict[str, str]) -> dict[str, str]:
    return {f"{recipe}@{name}": about for name, about in variants.items()}


def _checked(source: str, override: list[str]) -> list[dict[str, Any]]:
    """What is known of a recipe, or of each stage of a cascade."""
    from attentus.errors import AttentusError, RecipeError
    from attentus.recipes import CascadeRecipe, load_any
    from attentus.train.fitting import check_buildable

    loaded = load_any(source, override)
    if isinstance(loaded, CascadeRecipe):
        recipes = {f"{loaded.name}, stage {name}": stage.recipe for name, stage in loaded.stages.items()}
    else:
        recipes = {loaded.name: loaded}
    rows = []
    for name, recipe in recipes.items():
        try:
            parameters = check_buildable(recipe)
        except AttentusError as error:
            raise RecipeError(f"{source}: {error}") from error
        rows.append({"recipe": name, "net": recipe.net.name, "dims": recipe.net.dims, "parameters": parameters})
    return rows

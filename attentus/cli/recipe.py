"""attentus recipe list | show | copy | check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attentus.cli.options import Json, Overwrite, Set
from attentus.cli.show import print_json, table

app = typer.Typer(no_args_is_help=True, help="Find, read, copy and check recipes.")

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")]


@app.command("list", epilog="Example: attentus recipe list")
def list_(json: Json = False) -> None:
    """List the recipes that come with Attentus."""
    from attentus.recipes import shipped

    recipes = shipped()
    if json:
        print_json(recipes)
    else:
        table(["recipe", "what it is"], [[name, headline] for name, headline in recipes.items()])


@app.command(epilog="Example: attentus recipe show hippocampus-attention-unet")
def show(
    recipe: Name,
    full: Annotated[bool, typer.Option("--full", help="Write out every field, defaults included.")] = False,
    override: Set = [],  # noqa: B006 - Typer copies it
    json: Json = False,
) -> None:
    """Print a recipe as it was written, or with every field."""
    from attentus.recipes import Recipe, dump, text_of

    if json:
        print_json(Recipe.load(recipe, override).model_dump(mode="json"))
    elif full or override:
        print(dump(Recipe.load(recipe, override)), end="")
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
    """Check a recipe: fields, values, combinations, and that its net and loss can be built."""
    from attentus.recipes import Recipe
    from attentus.train.fitting import check_buildable

    loaded = Recipe.load(recipe, override)
    parameters = check_buildable(loaded)
    if json:
        print_json({"recipe": loaded.name, "ok": True, "parameters": parameters})
    else:
        print(f"{loaded.name}: fine. {loaded.net.name}, {loaded.net.dims}D, {parameters:,} parameters")

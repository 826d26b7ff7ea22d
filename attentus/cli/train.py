"""attentus train."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import Annotated

import typer

from attentus.cli.options import Data, Json, Set, seconds
from attentus.cli.show import failures, print_json, progress, show_scores


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")],
    data: Data,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="RUN", help="Folder of the run; becomes the model.")],
    fold: Annotated[int | None, typer.Option(min=0, help="Fold to hold back; overrides split.fold.")] = None,
    override: Set = [],  # noqa: B006 - Typer copies it
    max_time: Annotated[str | None, typer.Option(metavar="20m", help="Train at most this long.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Where prepared cases are kept.")] = None,
    json: Json = False,
) -> None:
    """Train a model and evaluate it on the cases held back. The same command again continues after a stop."""
    from attentus.data import Dataset
    from attentus.metrics.summary import from_json
    from attentus.recipes import Recipe
    from attentus.train import fit

    changes = [*override, *([f"split.fold={fold}"] if fold is not None else [])]
    chosen, budget = Recipe.load(recipe, changes), seconds(max_time)
    model = fit(chosen, Dataset.open(data), out, max_time=budget, cache=cache, progress=progress())
    scores = from_json((out / "scores.json").read_text(encoding="utf-8"))
    left_out = jsonlib.loads((out / "data.json").read_text(encoding="utf-8"))["left out"]
    if json:
        dice = {structure: scores.mean("dice", structure) for structure in scores.structures}
        print_json({"model": str(out), "recipe": model.recipe.name, "dice": dice, "failures": left_out})
    else:
        show_scores(scores, f"{model.recipe.name} on {len(scores.cases)} cases held back")
        print(f"model: {out}\nreport: attentus report {out}")
    raise typer.Exit(failures({**left_out, **scores.failures}))

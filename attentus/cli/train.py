"""attentus train."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attentus.cli.options import Data, Json, Set, integers, seconds
from attentus.cli.show import failures, print_json, progress, show_rehearsal, show_scores
from attentus.errors import BadInput

if TYPE_CHECKING:
    from attentus.data import Dataset
    from attentus.recipes import Recipe
    from attentus.types import Scores


def train(
    recipe: Annotated[str, typer.Argument(metavar="RECIPE", help="Shipped recipe, RECIPE@VARIANT, or a YAML file.")],
    data: Data,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="RUN", help="Folder of the run; becomes the model.")
    ] = None,
    fold: Annotated[int | None, typer.Option(min=0, help="Fold to hold back; overrides split.fold.")] = None,
    folds: Annotated[str | None, typer.Option(metavar="all|0,1,..", help="Train several folds, a run each.")] = None,
    seeds: Annotated[str | None, typer.Option(metavar="0,1,..", help="Train with several seeds, a run each.")] = None,
    source: Annotated[Path | None, typer.Option("--from", metavar="MODEL", help="Fine-tune this model.")] = None,
    override: Set = [],  # noqa: B006 - Typer copies it
    max_time: Annotated[str | None, typer.Option(metavar="20m", help="Train at most this long.")] = None,
    precision: Annotated[
        str | None, typer.Option(metavar="fp32|bf16|fp16|auto", help="Overrides train.precision.")
    ] = None,
    devices: Annotated[int, typer.Option(min=1, help="GPUs, or processes without one, that share a batch.")] = 1,
    num_nodes: Annotated[int, typer.Option(min=1, help="Machines, under torchrun or SLURM.")] = 1,
    workers: Annotated[int | None, typer.Option(min=1, help="Runs of --folds and --seeds at the same time.")] = None,
    cluster: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler that spreads them.")] = None,
    snapshots: Annotated[
        str | None,
        typer.Option(metavar="N|CASE,..", help="Keep the attention of held-back cases at moments of the training."),
    ] = None,
    rehearse: Annotated[
        bool, typer.Option("--rehearse", help="Learn two cases by heart, judge, keep nothing.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="Where prepared cases are kept.")] = None,
    json: Json = False,
) -> None:
    """Train a model and evaluate it on the cases held back. The same command again continues after a stop."""
    from attentus.data import Dataset
    from attentus.recipes import Recipe, is_cascade

    looked_at = None if snapshots is None else snapshots if snapshots.isdecimal() else f"[{snapshots}]"
    given = {"split.fold": fold, "start.model": source, "train.precision": precision}
    given |= {"train.snapshots.cases": looked_at}
    changes = [*override, *(f"{field}={value}" for field, value in given.items() if value is not None)]
    limits: dict[str, Any] = {"max_time": seconds(max_time), "cache": cache, "progress": progress()}
    if is_cascade(recipe):
        several = devices * num_nodes > 1
        strange = {"--from": source, "--precision": precision, "--seeds": seeds, "--rehearse": rehearse or None}
        strange["--snapshots"] = snapshots
        strange |= {"--devices": several or None}
        _refuse([name for name, value in strange.items() if value is not None], recipe)
        chosen_folds = folds if fold is None else str(fold)
        _train_cascade(
            recipe, override, data, out, chosen_folds, {**limits, "workers": workers, "cluster": cluster}, json=json
        )
        return
    chosen, dataset = Recipe.load(recipe, changes), Dataset.open(data)
    if rehearse:
        _rehearse(chosen, dataset, limits, json=json)
    elif out is None:
        raise BadInput("Say where the run goes: -o RUN.")
    elif folds or seeds or cluster:
        if devices * num_nodes > 1:
            raise BadInput("Several runs take one device each: give --devices or --folds and --seeds, not both.")
        parts = _folds(chosen, dataset, folds), integers(seeds, "--seeds")
        _train_many(chosen, dataset, out, parts, {**limits, "workers": workers, "cluster": cluster}, json=json)
    elif workers:
        raise BadInput("--workers spreads several runs: give --folds or --seeds, too.")
    else:
        _train_one(chosen, dataset, out, {**limits, "devices": devices, "num_nodes": num_nodes}, json=json)


def _train_one(recipe: Recipe, dataset: Dataset, out: Path, how: dict[str, Any], *, json: bool) -> None:
    from attentus.metrics.summary import from_json
    from attentus.train import fit
    from attentus.train.devices import is_first

    model = fit(recipe, dataset, out, **how)
    if not is_first():
        return
    scores = from_json((out / "scores.json").read_text(encoding="utf-8"))
    left_out = jsonlib.loads((out / "data.json").read_text(encoding="utf-8"))["left out"]
    if json:
        print_json({"model": str(out), "recipe": model.recipe.name, "dice": _dice(scores), "failures": left_out})
    else:
        show_scores(scores, f"{model.recipe.name} on {len(scores.cases)} cases held back")
        print(f"model: {out}\nreport: attentus report {out}")
    raise typer.Exit(failures({**left_out, **scores.failures}))


def _train_many(
    recipe: Recipe,
    dataset: Dataset,
    out: Path,
    parts: tuple[list[int] | None, list[int] | None],
    how: dict[str, Any],
    *,
    json: bool,
) -> None:
    from attentus.train.farm import fit_many

    done = fit_many(recipe, dataset, out, folds=parts[0], seeds=parts[1], **how)
    if json:
        runs = {name: str(folder) for name, folder in done.runs.items()}
        print_json({"runs": runs, "recipe": recipe.name, "dice": _dice(done.scores), "failures": done.failures})
    elif done.runs:
        show_scores(done.scores, f"{recipe.name}, {len(done.runs)} runs, {len(done.scores.cases)} cases held back")
        print(f"models: {', '.join(map(str, done.runs.values()))}\ntable: {out / 'card.md'}")
    raise typer.Exit(failures({**done.failures, **done.scores.failures}))


def _refuse(given: list[str], recipe: str) -> None:
    """Options that speak of a single training."""
    if given:
        raise BadInput(
            f"'{recipe}' is a cascade of several trainings, to which {', '.join(given)} cannot be applied.\n"
            "  Change its stages with --set stages.NAME.FIELD=VALUE, or train a stage's recipe on its own."
        )


def _train_cascade(
    recipe: str,
    override: list[str],
    data: Path,
    out: Path | None,
    folds: str | None,
    how: dict[str, Any],
    *,
    json: bool,
) -> None:
    from attentus.cascade import fit_cascade
    from attentus.data import Dataset
    from attentus.recipes import load_cascade

    if out is None:
        raise BadInput("Say where the cascade goes: -o RUN.")
    plan, dataset = load_cascade(recipe, override), Dataset.open(data)
    chosen = None if folds in {None, "all"} else integers(folds, "--folds")
    done = fit_cascade(plan, dataset, out, folds=chosen, **how)
    if json:
        print_json({"model": str(out), "recipe": plan.name, "dice": _dice(done.scores), "failures": done.failures})
    else:
        show_scores(done.scores, f"{plan.name}, all stages, on {len(done.scores.cases)} cases held back")
        print(f"model: {out}\nstages: {out / 'card.md'}\nreport: attentus report {out}")
    raise typer.Exit(failures({**done.failures, **done.scores.failures}))


def _folds(recipe: Recipe, dataset: Dataset, text: str | None) -> list[int] | None:
    if text == "all":
        from attentus.train.farm import every_fold

        return list(every_fold(recipe, dataset))
    return integers(text, "--folds")


def _dice(scores: Scores) -> dict[str, float]:
    return {structure: scores.mean("dice", structure) for structure in scores.structures}


def _rehearse(recipe: Recipe, dataset: Dataset, limits: dict[str, Any], *, json: bool) -> None:
    from dataclasses import asdict

    from attentus.train.rehearse import rehearse

    minutes = (limits.pop("max_time") or 180.0) / 60
    found = rehearse(recipe, dataset, minutes=minutes, **limits)
    if json:
        print_json(asdict(found))
    else:
        show_rehearsal(found, recipe.name)
    raise typer.Exit(1 if found.verdict == "does not learn" else 0)

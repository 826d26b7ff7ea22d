"""attentus prune."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attentus.cli.options import Json, Overwrite
from attentus.cli.show import failures, print_json, progress, table
from attentus.errors import BadFile, BadInput

if TYPE_CHECKING:
    from attentus.train.levels import Level

Tables = Annotated[
    list[Path],
    typer.Option("--table", metavar="FILE", help="Write the table (.csv, .json) or its plot (.svg, .png); repeatable."),
]


def prune(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="Folder of a trained ANU-Net or UNet++; for --decorative of any net."),
    ],
    level: Annotated[
        str | None,
        typer.Option(metavar="1..4|auto", help="What to cut down to; auto: the smallest that is good enough."),
    ] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="OUT", help="Folder of the smaller model.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="What it was trained on: measures every level on what was held back."),
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, max=1, help="Mean Dice that auto may lose against the best level.")
    ] = 0.01,
    early_exit: Annotated[
        float | None,
        typer.Option(metavar="DICE", help="Also measure early exit at this agreement of heads, e.g. 0.95."),
    ] = None,
    decorative: Annotated[
        Path | None,
        typer.Option(metavar="AUDIT", help="Leave out the attention modules that `attentus audit` found decorative."),
    ] = None,
    to: Tables = [],  # noqa: B006 - Typer copies it
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Cut a deeply supervised nested net to a smaller, complete model; show what each level costs and is worth.

    Without --level nothing is written but tables. Levels keep their weights: nothing is trained again. With
    --decorative a model is written that lacks attention modules instead of levels.
    """
    if decorative:
        if level or to or early_exit is not None:
            raise BadInput("--decorative goes with -o and --data; --level, --table and --early-exit are about levels.")
        _without_decorative(model, decorative, data, out, overwrite=overwrite, json=json)
        return
    from attentus.data import Dataset
    from attentus.export.prune import levels as levels_of
    from attentus.infer.model import Model
    from attentus.train import levels

    _check_request(level, data, to, early_exit)
    _check_places(out, to, overwrite=overwrite)
    if (level is None) != (out is None):
        raise BadInput("Say both what to cut down to and where the model goes: --level 2 -o OUT.")
    source = Model.load(model)
    known = [str(one) for one in levels_of(source)]
    if level not in (None, "auto", *known):
        raise BadInput(f"--level {level}: the levels of this model are {', '.join(known)}, or auto.")
    dataset = Dataset.open(data) if data else None
    if dataset is None:
        measured = levels.sizes(source)
    else:
        agreement = early_exit if early_exit is not None else source.recipe.infer.early_exit
        measured = levels.compare(source, dataset, early_exit=agreement, progress=progress())
    place = levels.place(source)
    for file in to:
        _write(measured, file, place, overwrite=overwrite)
    chosen = _choose(measured, level, tolerance) if level else None
    if chosen and out:
        levels.write_level(source, chosen.level, out, scores=chosen.scores, dataset=dataset, overwrite=overwrite)
    if json:
        rows = [one.facts() for one in measured]
        print_json({"levels": rows, "measured_on": place, "chosen": chosen and chosen.level, "model": out and str(out)})
    else:
        _show(measured, place)
        if chosen:
            print(f"model: {out} (L{chosen.level}, {chosen.parameters:,} of {measured[-1].parameters:,} parameters)")
    raise typer.Exit(failures(measured[-1].failures))


def _without_decorative(
    model: Path, audit: Path, data: Path | None, out: Path | None, *, overwrite: bool, json: bool
) -> None:
    """Write the model without what its audit found decorative, and tell what that changes."""
    from attentus.data import Dataset
    from attentus.explain.removing import remove_decorative, write_removal
    from attentus.infer.model import Model

    if out is None:
        raise BadInput("Say where the smaller model goes: -o OUT.")
    _check_places(out, [], overwrite=overwrite)
    dataset = Dataset.open(data) if data else None
    found = remove_decorative(Model.load(model), audit, dataset=dataset, progress=progress())
    write_removal(found, out, dataset=dataset, overwrite=overwrite)
    if json:
        print_json({**found.facts(), "model": str(out)})
        return
    (before, after), (more, less) = found.parameters, found.gflop
    print(f"left out: {', '.join(found.modules)}")
    print(f"parameters {before:,} -> {after:,}, GFLOP per window {more:,.3f} -> {less:,.3f}")
    if found.dice:
        low, high = found.dice.low, found.dice.high
        print(f"mean Dice {found.dice.before:.4f} -> {found.dice.after:.4f} ({low:+.4f} to {high:+.4f})")
        print(f"measured on {found.measured_on}")
    print(f"model: {out}")


def _check_request(level: str | None, data: Path | None, to: list[Path], early_exit: float | None) -> None:
    """Refuse what can only be answered with data."""
    if data is None and (level == "auto" or to or early_exit is not None):
        what = "--level auto" if level == "auto" else "--table" if to else "--early-exit"
        raise BadInput(f"{what} measures the levels on the cases held back: name the dataset, --data DATA.")


def _check_places(out: Path | None, to: list[Path], *, overwrite: bool) -> None:
    """Refuse places that cannot be written to, before hours are spent on measuring."""
    from attentus.io.atomic import check_replaceable

    if out:
        check_replaceable(out, holds="recipe.yaml", overwrite=overwrite)
    for file in to:
        if file.suffix not in (".csv", ".json", ".svg", ".png"):
            raise BadInput(f"--table writes .csv, .json, .svg or .png; got '{file}'.")
        if file.exists() and not overwrite:
            raise BadFile(file, "exists already", "Choose another name, or allow overwriting (--overwrite).")


def _choose(measured: list[Level], level: str, tolerance: float) -> Level:
    from attentus.train.levels import choose

    if level == "auto":
        return choose(measured, tolerance)
    return next(one for one in measured if str(one.level) == level)


def _write(measured: list[Level], file: Path, place: str, *, overwrite: bool) -> None:
    from attentus.io.atomic import write_text
    from attentus.io.plain import json_text
    from attentus.report.levels import draw_levels
    from attentus.train.levels import to_csv

    if file.suffix == ".csv":
        write_text(file, to_csv(measured), overwrite=overwrite)
    elif file.suffix == ".json":
        facts = {"levels": [one.facts() for one in measured], "measured_on": place}
        write_text(file, json_text(facts), overwrite=overwrite)
    else:
        draw_levels(measured, file, place=place, overwrite=overwrite)


def _show(measured: list[Level], place: str) -> None:
    whole = measured[-1]
    sizes = [[one.name, f"{one.parameters:,}", f"{one.flops / 1e9:,.3f}"] for one in measured]
    if whole.scores is None:
        table(["level", "parameters", "GFLOP per window"], sizes)
        return
    rows = []
    for one, row in zip(measured, sizes, strict=True):
        means = [f"{mean:.3f} ± {sd:.3f}" for mean, sd in (one.over_cases("dice"), one.over_cases("iou"))]
        went = "" if one.mean_level is None else f"{one.mean_level:.2f}"
        rows.append([*row, *means, f"{one.pooled_dice:.3f}", f"{one.seconds:.3g}", went])
    columns = ["level", "parameters", "GFLOP per window", "dice", "iou", "pooled dice", "s per case", "mean level"]
    table(columns, rows, f"{len(whole.scores.cases)} cases held back, mean ± SD")
    print(f"s per case: forward passes alone, {place}")

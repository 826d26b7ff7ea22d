"""attentus compare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attentus.cli.options import Json, Overwrite
from attentus.cli.show import table
from attentus.errors import BadFile

if TYPE_CHECKING:
    from attentus.metrics.comparison import Comparison
    from attentus.report.comparison import Cell
    from attentus.report.methods import Method


def compare(
    methods: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]RUN...",
            help="Folder of a run or of several folds, or a JSON file of `attentus score`; the first is the reference.",
        ),
    ],
    metrics: Annotated[
        str | None,
        typer.Option(
            metavar="A,B", help="Default: dice,precision,recall,hd95_mm,assd_mm. Also pooled ones: dice_global, ..."
        ),
    ] = None,
    structures: Annotated[str | None, typer.Option(metavar="A,B", help="Default: all that every method has.")] = None,
    reference: Annotated[
        str | None, typer.Option(metavar="NAME", help="Method the others are tested against. Default: the first.")
    ] = None,
    test: Annotated[str, typer.Option(help="Paired test: wilcoxon or t.")] = "wilcoxon",
    out: Annotated[
        list[Path], typer.Option("-o", "--out", metavar="FILE", help="Write .csv, .tex, .html, .md or .json; repeat.")
    ] = [],  # noqa: B006 - Typer copies it
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Set methods side by side on the cases all of them scored: mean ± SD, parameters, FLOPs, time, significance.

    Every method is tested against the reference, case by case; stars are after Holm's correction over the whole table.
    """
    from attentus.metrics.comparison import compare as set_side_by_side
    from attentus.report.comparison_files import to_json, write_comparison, writer_of
    from attentus.report.methods import open_methods

    for file in out:  # before anything is read
        writer_of(file)
        if file.exists() and not overwrite:
            raise BadFile(file, "exists already", "Choose another name, or allow overwriting (--overwrite).")
    opened = open_methods(methods)
    found = set_side_by_side(
        {method.name: method.scores for method in opened},
        metrics=_names(metrics),
        structures=_names(structures),
        reference=reference,
        test=test,
    )
    for file in out:
        write_comparison(file, found, opened, overwrite=overwrite)
    if json:
        print(to_json(found, opened))
    else:
        _show(found, opened)
        for file in out:
            print(f"table: {file}")


def _show(found: Comparison, methods: list[Method]) -> None:
    from rich.markup import escape

    from attentus.report.comparison import lay_out

    page = lay_out(found, methods)
    for block in page.blocks:
        rows = [[escape(line.method), *map(_cell, line.cells), *line.costs] for line in block.lines]
        table(["method", *page.metrics, *page.costs], rows, f"{escape(block.structure)}, mean ± SD, best in bold")
    _show_ranks(found)
    for note in page.notes:
        print(note)


def _show_ranks(found: Comparison) -> None:
    from rich.markup import escape

    from attentus.report.comparison import plain
    from attentus.report.tables import heading

    rows = []
    for column in found.columns:
        if column.ranking is not None and column.ranking.n:
            each = zip(column.ranking.score, column.ranking.first, strict=True)
            shares = [f"{score:.2f} ({first:.0%})" for score, first in each]
            name = f"{escape(column.structure)}, {heading(column.metric)}"
            rows.append([name, *shares, plain(column.ranking.tau)])
    if rows:
        title = "mean rank over the cases (how often first in bootstrap samples), and how stable the order is"
        table(["ranks", *map(escape, found.methods), "Kendall's τ"], rows, title)


def _cell(cell: Cell) -> str:
    mean = f"[bold]{cell.mean}[/bold]" if cell.best else cell.mean
    return f"{mean} {cell.sd}{cell.stars and ' '}{cell.stars}".rstrip()


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]

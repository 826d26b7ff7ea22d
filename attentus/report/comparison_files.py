"""A comparison as a file: CSV and JSON with every number, LaTeX, Markdown and HTML as papers and people want it."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from attentus.errors import BadFile
from attentus.io.atomic import write_text
from attentus.progress import Silent
from attentus.report import comparison_charts, side_by_side
from attentus.report.comparison import chance, lay_out, plain, seconds, signed
from attentus.report.page import render
from attentus.report.pictures import colour
from attentus.report.tables import heading, rules_in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from attentus.metrics.comparison import Column, Comparison, Versus
    from attentus.metrics.statistics import Ranking
    from attentus.report.comparison import Cell
    from attentus.report.methods import Method

_LATEX = {
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "−": "$-$",
    "–": "--",
    "∞": r"$\infty$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


def write_comparison(file: Path, found: Comparison, methods: Sequence[Method], *, overwrite: bool) -> None:
    """Write a comparison in the format its ending names; see `WRITERS`.

    Raises:
        BadFile: another ending, or a file that exists or cannot be written.
    """
    write_text(file, writer_of(file)(found, methods), overwrite=overwrite)


def writer_of(file: Path) -> Callable[[Comparison, Sequence[Method]], str]:
    """What makes the text of a file of this ending.

    Raises:
        BadFile: an ending that no writer has.
    """
    if file.suffix.lower() not in WRITERS:
        raise BadFile(file, f"'{file.suffix}' is no ending of a table", f"Use one of {', '.join(WRITERS)}.")
    return WRITERS[file.suffix.lower()]


def to_csv(found: Comparison, methods: Sequence[Method]) -> str:
    """One line per structure, metric and method, with every number; what a method or a test lacks stays empty."""
    rows = _rows(found, methods)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_json(found: Comparison, methods: Sequence[Method]) -> str:
    """Facts of the comparison, costs of the methods, and the rows of the CSV; null for numbers that are not finite."""
    tree = {
        "methods": list(found.methods),
        "reference": found.reference,
        "test": found.test,
        "tests": found.tests,
        "cases": list(found.cases),
        "left_out": {case: list(names) for case, names in found.left_out.items()},
        "rules": dict(found.rules),
        "costs": {method.name: _price(method, found.cases) for method in methods},
        "rows": [{key: _finite(value) for key, value in row.items()} for row in _rows(found, methods)],
        "notes": lay_out(found, methods).notes,
    }
    return json.dumps(tree, indent=1, ensure_ascii=False)


def to_latex(found: Comparison, methods: Sequence[Method]) -> str:
    """A `table` for the package booktabs."""
    page = lay_out(found, methods)
    width = 1 + len(page.metrics) + len(page.costs)
    lines = [
        "% needs \\usepackage{booktabs}",
        *("\\begin{table}", "\\centering"),
        f"\\caption{{Mean {_LATEX['±']} standard deviation over cases, best in bold. {_latex(' '.join(page.notes))}}}",
        *(f"\\begin{{tabular}}{{l{'r' * (width - 1)}}}", "\\toprule"),
        _latex_row(["Method", *map(_latex, [*page.metrics, *page.costs])]),
    ]
    for block in page.blocks:
        lines.append("\\midrule")
        if len(page.blocks) > 1:
            lines.append(f"\\multicolumn{{{width}}}{{l}}{{\\textit{{{_latex(block.structure)}}}}} \\\\")
        for line in block.lines:
            cells = [_latex(line.method), *map(_latex_cell, line.cells), *map(_latex, line.costs)]
            lines.append(_latex_row(cells))
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])


def to_markdown(found: Comparison, methods: Sequence[Method]) -> str:
    """A table per structure, best in bold, and the notes."""
    page = lay_out(found, methods)
    headings = ["method", *page.metrics, *page.costs]
    lines = []
    for block in page.blocks:
        lines += [f"## {block.structure}", "", _markdown_row(headings), _markdown_row(["---"] * len(headings))]
        lines += [_markdown_row([line.method, *map(_markdown_cell, line.cells), *line.costs]) for line in block.lines]
        lines.append("")
    return "\n".join([*lines, "Mean ± SD, best in bold.", "", *(f"- {_stars(note)}" for note in page.notes), ""])


def to_html(found: Comparison, methods: Sequence[Method]) -> str:
    """One self-contained page: table, tests, ranks, charts, cases side by side, and how it was measured."""
    return render(
        "comparison.html.j2",
        found=found,
        page=lay_out(found, methods),
        tests=found.each_versus(),
        ranks=[column for column in found.columns if column.ranking is not None and column.ranking.n],
        forms={"heading": heading, "signed": signed, "chance": chance, "plain": plain},
        charts=comparison_charts.sections(found, methods),
        rows=side_by_side.rows(found, methods, Silent()),
        structures=found.structures,
        colour=colour,
        rules=rules_in_words(found.rules),
        prices=[(method.name, method.price) for method in methods if method.price is not None],
    )


WRITERS: dict[str, Callable[[Comparison, Sequence[Method]], str]] = {
    ".csv": to_csv,
    ".json": to_json,
    ".tex": to_latex,
    ".md": to_markdown,
    ".html": to_html,
}
"""Ending of a file to what makes its text."""


def _rows(found: Comparison, methods: Sequence[Method]) -> list[dict[str, Any]]:
    """Every number there is, one row per structure, metric and method."""
    known = {method.name: method for method in methods}
    return [
        _row(column, place, known[name], found.cases)
        for column in found.columns
        for place, name in enumerate(found.methods)
    ]


def _row(column: Column, place: int, method: Method, cases: Sequence[str]) -> dict[str, Any]:
    entry, price, took = column.entries[place], method.price, seconds(method, cases)
    return {
        **{name: getattr(column, name) for name in ("structure", "metric", "unit", "better")},
        "method": entry.method,
        "n": column.n,
        **{name: getattr(entry, name) for name in ("mean", "sd", "low", "high", "median")},
        "undefined": entry.n_nan,
        "infinite": entry.n_inf,
        "best": entry.best,
        **_ranked(column.ranking, place),
        **_tested(entry.versus),
        "parameters": None if price is None else price.parameters,
        "gflops": None if price is None else price.flops / 1e9,
        "gmacs": None if price is None else price.flops / 2e9,
        "seconds": None if took is None else took.median,
    }


def _ranked(ranking: Ranking | None, place: int) -> dict[str, Any]:
    if ranking is None:
        return dict.fromkeys(("mean_rank", "rank", "first_share", "tau"))
    return {
        "mean_rank": ranking.score[place],
        "rank": ranking.rank[place],
        "first_share": ranking.first[place],
        "tau": ranking.tau,
    }


def _tested(versus: Versus | None) -> dict[str, Any]:
    """Against the reference; empty for the reference itself."""
    effects = ("difference", "difference_low", "difference_high", "cohens_dz", "rank_biserial")
    if versus is None:
        return dict.fromkeys(("pairs", "pairs_left_out", *effects, "statistic", "p", "p_holm", "stars"))
    return {
        "pairs": versus.test.n,
        "pairs_left_out": versus.test.left_out,
        **dict(zip(effects, asdict(versus.effect).values(), strict=True)),
        "statistic": versus.test.statistic,
        "p": versus.test.p,
        "p_holm": versus.p_holm,
        "stars": versus.stars,
    }


def _price(method: Method, cases: Sequence[str]) -> dict[str, Any]:
    took = seconds(method, cases)
    return {
        **({} if method.price is None else asdict(method.price)),
        **({} if took is None else {"seconds": took._asdict(), "hardware": list(method.hardware)}),
    }


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def _latex_cell(cell: Cell) -> str:
    if not any(sign.isdigit() for sign in cell.mean):
        return _latex(cell.mean)
    mean, sd = (text.replace(",", "{,}").replace("−", "-").replace("±", r"\pm") for text in (cell.mean, cell.sd))
    number = f"\\mathbf{{{mean}}} {sd}" if cell.best else f"{mean} {sd}"
    return f"${number.strip()}{f'^{{{cell.stars}}}' if cell.stars else ''}$"


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _markdown_cell(cell: Cell) -> str:
    mean = f"**{cell.mean}**" if cell.best else cell.mean
    return " ".join(part for part in (mean, cell.sd, _stars(cell.stars)) if part)


def _stars(text: str) -> str:
    return text.replace("*", r"\*")


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"

"""Results as files: a table each as CSV, Markdown and JSON; words for numbers, shared with the page."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING, NamedTuple

from attentus.io.atomic import write_text
from attentus.io.plain import json_text
from attentus.report.comparison import chance
from attentus.reproduce.results import MEASURED, cell_facts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from attentus.reproduce.results import Cell, Line, TableResult

FACTS = (
    *(
        "column",
        "structure",
        "metric",
        "ours",
        "mean",
        "sd",
        "n",
        "left_out",
        "published",
        "published_sd",
        "difference",
    ),
    *("against", "mean_difference", "p", "p_holm", "pairs", "note"),
)


class Words(NamedTuple):
    """A cell in words; each is "" where there is nothing to say."""

    ours: str
    spread: str
    """± SD (n), and the mean over cases where `ours` is pooled."""
    printed: str
    off: str
    """Ours minus the published."""
    p: str
    stars: str
    note: str


def in_words(cell: Cell) -> Words:
    """A cell as people read it."""
    digits = cell.column.digits
    return Words(
        _number(cell.value, digits),
        _spread(cell),
        "" if cell.published is None else cell.published.text,
        _signed(cell.difference, digits),
        "" if cell.test is None or math.isnan(cell.test.p_holm) else chance(cell.test.p_holm),
        "" if cell.test is None else cell.test.stars,
        cell.note,
    )


def write_tables(found: Sequence[TableResult], folder: Path) -> list[Path]:
    """Write every table as table-N.csv, .md and .json; those of an earlier try are replaced."""
    written = []
    for table in found:
        for ending, text in (("csv", to_csv(table)), ("md", to_markdown(table)), ("json", json_text(table.facts()))):
            file = folder / f"table-{table.number}.{ending}"
            write_text(file, text)
            written.append(file)
    return written


def to_csv(found: TableResult) -> str:
    """One line per row and column, with every number; what is not known is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["table", "row", "run", "state", *FACTS])
    for line in found.lines:
        for cell in line.cells:
            facts = cell_facts(cell)
            writer.writerow([found.number, line.row.name, line.row.run or "", line.state, *(facts[f] for f in FACTS)])
    return text.getvalue()


def to_markdown(found: TableResult) -> str:
    """A table of rows and columns, ours in bold above what was published, and what must be known of it."""
    lines = [f"# Table {found.number}: {found.table.title}", ""]
    lines += [_row(["", *(column.name for column in found.table.columns)]), _row(["---"] * (len(found.order) + 1))]
    lines += [_row([_name(line), *(_cell(cell) for cell in line.cells)]) for line in found.lines]
    lines += ["", *(f"- {note}" for note in notes(found)), ""]
    return "\n".join(lines)


def notes(found: TableResult) -> list[str]:
    """What a reader of a table must know, in sentences."""
    said = list(found.table.notes)
    if found.tests:
        name = {"wilcoxon": "Wilcoxon's signed-rank test", "t": "the paired t-test"}[found.table.test]
        said.append(
            f"p: against the paper's method on the same cases by {name}, two-sided, corrected after Holm over"
            f" {found.tests} test{'' if found.tests == 1 else 's'}."
        )
        said += _hopeless(found)
    if any(column.pooled for column in found.table.columns):
        said.append("pooled: over all cases together, without SD and test; what follows is over cases.")
    ordered = [
        f"{c.name} {tau:+.2f}" for c, tau in zip(found.table.columns, found.order, strict=True) if tau is not None
    ]
    if ordered:
        said.append(
            "Do the rows come in the published order? Kendall's τ, 1 the same, −1 the reverse: "
            + ", ".join(ordered).replace("-", "−")
            + "."
        )
    if any(cell.left_out for line in found.lines for cell in line.cells):
        said.append("n counts cases with a finite number; others, such as distances of what was missed, are left out.")
    said += [f"{line.row.name}: {line.state}, {line.why}" for line in found.lines if line.state != MEASURED]
    return said


def _hopeless(found: TableResult) -> list[str]:
    """Whether there are too few cases for any difference to count."""
    pairs = [cell.test.pairs for line in found.lines for cell in line.cells if cell.test is not None]
    least = found.tests * 2.0 ** (1 - max(pairs, default=0))
    if found.table.test == "wilcoxon" and least >= 0.05:
        return [f"With {max(pairs)} case(s) no corrected p can be below {min(least, 1.0):.2g}."]
    return []


def _name(line: Line) -> str:
    return line.row.name if line.state == MEASURED else f"{line.row.name} ({line.state})"


def _cell(cell: Cell) -> str:
    words = in_words(cell)
    ours = f"**{words.ours}**{_stars(words.stars)} {words.spread}".strip() if words.ours else ""
    printed = f"published {words.printed}" if words.printed else ""
    off = f"difference {words.off}" if words.off else ""
    p = f"p {words.p}" if words.p else ""
    return "<br>".join(part for part in (ours, printed, off, p, words.note) if part) or "–"


def _spread(cell: Cell) -> str:
    digits = cell.column.digits
    if not cell.n or math.isnan(cell.value):
        return f"(0 of {cell.left_out})" if cell.left_out else ""
    sd = "" if math.isnan(cell.sd) else f"± {_number(cell.sd, digits)}"
    everyone = cell.n + cell.left_out
    count = f"({cell.n} of {everyone})" if cell.left_out else f"({cell.n})"
    if cell.column.pooled and cell.column.metric:
        return " ".join(part for part in ("pooled; cases", _number(cell.mean, digits), sd, count) if part)
    return f"pooled {count}" if cell.column.pooled else f"{sd} {count}".strip()


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else ""


def _signed(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return ""
    text = f"{value:+.{digits}f}".replace("-", "−")
    return text if any(digit in text for digit in "123456789") else text[1:]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _stars(text: str) -> str:
    return text.replace("*", r"\*")

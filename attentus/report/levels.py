"""What pruning costs and saves, drawn as in Fig. 13 of the ANU-Net paper."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, NamedTuple

from attentus.errors import BadFile
from attentus.report.charts import Chart
from attentus.report.figure import Figure, write_figure
from attentus.report.plot import Plot, padded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from attentus.train.levels import Level

LARGEST = 34.0
"""Radius of the largest net's disc, px."""
FORMATS = (".png", ".svg")
FILE = "levels.json"
"""Where a report looks for the levels of a run: what `attentus prune RUN --data DATA --table RUN/levels.json` wrote."""


class Bubble(NamedTuple):
    """One level of a net."""

    name: str
    parameters: int
    seconds: float
    dice: float
    """Mean over the cases held back."""
    mean_level: float | None
    """With early exit: mean level of the heads that answered."""

    @property
    def words(self) -> str:
        """What stands under the name."""
        return f"{self.parameters:,}" if self.mean_level is None else f"level {self.mean_level:.1f}"


def of(measured: Sequence[Level]) -> list[Bubble]:
    """Levels as `train.levels.compare` measured them."""
    return [
        Bubble(one.name, one.parameters, one.seconds, one.over_cases("dice")[0], one.mean_level) for one in measured
    ]


def read(file: Path) -> tuple[list[Bubble], str]:
    """Levels from a table that `attentus prune --table FILE.json` wrote, and what they were measured on.

    Raises:
        BadFile: no such file, or no such table.
    """
    try:
        tree: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found = [
            Bubble(
                f"L{row['level']}" + ("" if row["early_exit"] is None else f", exit {row['early_exit']:g}"),
                int(row["parameters"]),
                float(row["seconds"]),
                float(row["dice"]),
                row["mean_level"],
            )
            for row in tree["levels"]
        ]
        return found, str(tree["measured_on"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadFile(
            file,
            f"holds no measured levels ({type(error).__name__}: {error})",
            "Write it with: attentus prune RUN --data DATA --table FILE.json",
        ) from None


def bubbles(found: Sequence[Bubble], place: str, per: str = "case") -> Chart:
    """Dice against seconds per case, or per window; the area of a disc is the number of parameters.

    Args:
        found: the levels.
        place: what the seconds were measured on.
        per: what they are of.
    """
    most = max(one.parameters for one in found)
    plot = Plot(padded([b.seconds for b in found], 0.3), padded([b.dice for b in found], 0.45), height=270.0, left=50.0)
    plot.grid(f"s per {per}, forward passes")
    for one in sorted(found, key=lambda b: -b.parameters):
        at, radius = (plot.px(one.seconds), plot.py(one.dice)), LARGEST * math.sqrt(one.parameters / most)
        css = "disc s1" if one.mean_level is None else "disc s0 again"
        plot.dot(at, css, f"{one.name}: Dice {one.dice:.4f}, {one.seconds:.3g} s, {one.words}", round(radius, 1))
    for one in found:
        radius = LARGEST * math.sqrt(one.parameters / most)
        x, middle = plot.px(one.seconds), plot.py(one.dice)
        y = middle - radius if one.mean_level is None else middle + radius + 30  # the two often lie near each other
        plot.text(x, y - 16, one.name, anchor="middle", css="strong")
        plot.text(x, y - 4, one.words, anchor="middle")
    note = f"Area: parameters. Dice: mean on the cases held back. Measured on {place}."
    return Chart("Dice against time of each level", plot.svg(f"Dice of each level over seconds per {per}"), note)


def draw_levels(measured: list[Level], out: Path, *, place: str, overwrite: bool) -> None:
    """Write the plot of `bubbles`.

    Args:
        measured: see `train.levels.compare`.
        out: PNG or SVG.
        place: what the seconds were measured on.
        overwrite: whether an existing file may be replaced.

    Raises:
        BadFile: another ending, the file exists, or it cannot be written.
    """
    if out.suffix.lower() not in FORMATS:
        raise BadFile(out, "is no name of a picture", f"Choose a name that ends in {' or '.join(FORMATS)}.")
    write_figure(Figure("", ((bubbles(of(measured), place),),)), out, overwrite=overwrite)

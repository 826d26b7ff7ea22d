"""What pruning costs and saves, drawn as in Fig. 13 of the ANU-Net paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from attentus.errors import BadFile
from attentus.io.atomic import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from attentus.train.levels import Level

INK, SOFT, DISC, STOPPING = "#17212b", "#586673", "#5cc0fb", "#ffab1a"
LARGEST = 2200.0
"""Area of the largest net's disc, square points."""
FORMATS = (".png", ".svg")


def draw_levels(measured: list[Level], out: Path, *, place: str, overwrite: bool) -> None:
    """Dice against seconds per case; the area of a disc is the number of parameters.

    Args:
        measured: see `train.levels.compare`.
        out: PNG or SVG.
        place: what the seconds were measured on.
        overwrite: whether an existing file may be replaced.

    Raises:
        BadFile: another ending, the file exists, or it cannot be written.
    """
    from matplotlib.figure import Figure

    if out.suffix.lower() not in FORMATS:
        raise BadFile(out, "is no name of a picture", f"Choose a name that ends in {' or '.join(FORMATS)}.")
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.add_subplot()
    most = max(one.parameters for one in measured)
    for one in measured:
        at = (one.seconds, one.over_cases("dice")[0])
        colour = DISC if one.early_exit is None else STOPPING
        axes.scatter(*at, s=LARGEST * one.parameters / most, color=colour, alpha=0.55, edgecolors=INK, linewidths=0.6)
        name = (
            f"{one.name}\n{one.parameters:,}" if one.mean_level is None else f"{one.name}\nlevel {one.mean_level:.1f}"
        )
        above = math.sqrt(LARGEST * one.parameters / most / math.pi) + 3  # points
        axes.annotate(name, at, (0, above), textcoords="offset points", ha="center", fontsize=8, color=INK)
    axes.margins(0.2, 0.28)
    axes.set_xlabel(f"seconds per case, forward passes ({place})", color=SOFT)
    axes.set_ylabel("mean Dice on the cases held back", color=SOFT)
    axes.grid(color="#e3e8ec", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title("Area: parameters", fontsize=9, color=SOFT, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    with replacing(out, overwrite=overwrite) as temporary:
        figure.savefig(temporary, format=out.suffix.lower().removeprefix("."), dpi=150)

"""One HTML file about scores alone, such as those of anyone's masks that `attentus score` measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attentus.io.atomic import write_text
from attentus.report.html import measured, result
from attentus.report.methods import read_scores
from attentus.report.page import render
from attentus.report.pictures import colour
from attentus.report.run import without_folders

if TYPE_CHECKING:
    from pathlib import Path


def write_cohort(file: Path, out: Path, *, overwrite: bool) -> Path:
    """Write a page about a cohort: summary, box plots, volumes, every case, what failed, how it was measured.

    Args:
        file: JSON of `attentus score`, or scores.json of a training.
        out: the file to write.
        overwrite: whether an existing file may be replaced.

    Raises:
        BadFile: no such file, no scores in it, or it cannot be written.
    """
    scores, _ = read_scores(file)
    known = scores if len(scores) else None
    page = render(
        "cohort.html.j2",
        name=file.stem,
        verdict="No case could be scored." if known is None else result(known),
        **(measured(known) if known else {}),
        roles={},
        failed={case: without_folders(message) for case, message in scores.failures.items()},
        colour=colour,
    )
    write_text(out, page, overwrite=overwrite)
    return out

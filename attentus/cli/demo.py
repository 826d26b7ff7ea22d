"""attentus demo."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from attentus.cli.options import Json
from attentus.cli.show import duration, failures, print_json, progress, show_scores

PATIENTS, UNSEEN, COARSE = 16, 4, 2.0
"""Synthetic scans to learn from, scans shown only to the finished model, and the factor on their voxel size."""
LONGEST = 200.0
"""Seconds of training on a slow machine; the schedule fits itself to it."""


def demo(
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FOLDER", help="Where everything goes.")] = Path("demo"),
    json: Json = False,
) -> None:
    """See the whole thing work on built-in synthetic CT scans: train, predict, score, report, in minutes on a CPU.

    Run again, it goes on where it stopped; a finished demo is only shown.
    """
    started = time.monotonic()
    shown = progress()
    from attentus.data import Dataset
    from attentus.data.phantom import write_dataset
    from attentus.infer.cohort import find_scans, predict_cohort
    from attentus.metrics import PRESETS
    from attentus.metrics.cohorts import Cohort, find_cases, match_cases
    from attentus.metrics.scoring import score_files
    from attentus.recipes import Recipe
    from attentus.report.html import write_report
    from attentus.train import fit

    for folder, cases, seed in ((out / "data", PATIENTS, 0), (out / "unseen", UNSEEN, 1)):
        if not (folder / "dataset.json").is_file():
            shown.say(f"drawing {cases} synthetic CT scans in {folder}")
            write_dataset(folder, cases, seed=seed, coarse=COARSE, progress=shown)
    model = fit(Recipe.load("demo"), Dataset.open(out / "data"), out / "run", max_time=LONGEST, progress=shown)

    unseen = Dataset.open(out / "unseen")
    done = predict_cohort(
        model, find_scans(out / "unseen" / "imagesTr", out / "predictions"), overwrite=True, progress=shown
    )
    truth = Cohort({case.id: case.label for case in unseen if case.label})
    pairs, _ = match_cases(find_cases(out / "predictions"), truth)
    scores = score_files(pairs, unseen.labels, PRESETS["default"], progress=shown)
    report = write_report(out / "run", out / "report.html", overwrite=True, progress=shown)
    took = time.monotonic() - started
    if json:
        dice = {structure: scores.mean("dice", structure) for structure in scores.structures}
        print_json({"report": str(report), "model": str(out / "run"), "dice": dice, "seconds": took})
    else:
        show_scores(scores, f"{UNSEEN} scans the model had never seen")
        liver = scores.mean("dice", "liver")
        print(f"liver Dice {liver:.3f} on {UNSEEN} unseen scans, {duration(took)} in all")
        print(f"model:  {out / 'run'}\nmasks:  {out / 'predictions'}\nreport: {report}   (open it in a browser)")
    failed = {name: what for name, what in done.items() if isinstance(what, str)}
    raise typer.Exit(failures({**failed, **scores.failures}))

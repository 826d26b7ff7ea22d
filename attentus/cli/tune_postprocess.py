"""attentus tune-postprocess."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attentus.cli.options import Data, Json
from attentus.cli.show import failures, print_json, progress, table

if TYPE_CHECKING:
    from attentus.train.postprocess import Tuned


def tune_postprocess(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a trained model, or of its folds.")],
    data: Data,
    margin: Annotated[float, typer.Option(min=0.0, max=1.0, help="Smallest gain in mean Dice that counts.")] = 0.001,
    thresholds: Annotated[
        bool, typer.Option("--thresholds/--no-thresholds", help="Also try thresholds; takes more memory and disk.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the table, write nothing.")] = False,
    json: Json = False,
) -> None:
    """Choose the post-processing of a model by measuring on its held-back cases, and put it into the model.

    Tried are thresholds, what lies inside what, the largest component or a smallest volume, and holes. A change is kept
    if the mean Dice rises and that of no structure falls. All are taken if cases that had no part in choosing gain.
    """
    from attentus.train.postprocess import tune

    tuned = tune(model, data, margin=margin, thresholds=thresholds, write=not dry_run, progress=progress())
    if json:
        print_json({"model": str(model), "written": not dry_run, **tuned.facts()})
    else:
        _show(tuned)
        if tuned.taken:
            print(f"in the recipe: {model}" if not dry_run else "nothing was written (--dry-run)")
    raise typer.Exit(failures(tuned.failures))


def _show(tuned: Tuned) -> None:
    from attentus.train.postprocess import spelled

    rows = [
        [f"{t.structure}: {t.change}", f"{t.before:.4f}", f"{t.after:.4f}", f"{t.worst:+.4f}", "kept" if t.kept else ""]
        for t in tuned.trials
    ]
    table(["change", "mean Dice", "with it", "worst structure", ""], rows, f"tried on {tuned.cases} held-back cases")
    states = {"raw": "no cleaning", "present": "as it was", "chosen": "chosen", "honest": "chosen by other cases"}
    known = [state for state in states if all(state in each for each in tuned.dice.values())]
    lines = [[name, *(f"{each[state]:.4f}" for state in known)] for name, each in tuned.dice.items()]
    table(["structure", *(states[state] for state in known)], lines, "mean Dice")
    for name, fields in spelled(tuned.clean).items() if tuned.taken else ():
        print(f"infer.clean.{name}: " + ", ".join(f"{field} {value}" for field, value in fields.items()))
    print(f"gain {tuned.gain():+.4f}", end="")
    if (honest := tuned.gain("honest")) is not None:
        print(f", on cases that had no part in choosing {honest:+.4f}", end="")
        print(f" (the same choice in {tuned.agreement} of {tuned.parts} parts)", end="")
    print(f"\n{tuned.verdict}")

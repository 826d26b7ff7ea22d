"""attentus score."""

from __future__ import annotations

import json as jsonlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attentus.cli.options import Json, Overwrite, numbers
from attentus.cli.show import failures, progress, show_scores

if TYPE_CHECKING:
    from attentus.metrics import Rules
    from attentus.types import Scores


def score(
    prediction: Annotated[Path, typer.Argument(metavar="PRED", help="Label file, or folder of label files.")],
    reference: Annotated[Path, typer.Argument(metavar="REF", help="The same, or a dataset with labels.")],
    label: Annotated[
        list[str],
        typer.Option("--label", metavar="NAME=VALUE", help="Structure and value: liver=1, kidneys=2+3, all=any."),
    ] = [],  # noqa: B006 - Typer copies it
    out: Annotated[Path | None, typer.Option("-o", "--out", metavar="FILE", help="Write .csv or .json here.")] = None,
    stack: Annotated[bool, typer.Option("--stack", help="Folders of pictures are the slices of one volume.")] = False,
    spacing: Annotated[str | None, typer.Option(metavar="Z,Y,X", help="Voxel size of pictures, mm.")] = None,
    empty: Annotated[str, typer.Option(help="Rule for empty masks: default, nnunet or brats.")] = "default",
    border: Annotated[
        str, typer.Option(help="Outside of the scan: background, or foreground as in CHAOS.")
    ] = "background",
    connectivity: Annotated[int, typer.Option(help="Surface: 1 faces, 2 edges (LiTS), 3 corners.")] = 1,
    hd95: Annotated[str, typer.Option(help="95th percentile: directed-max, or pooled as in MedPy.")] = "directed-max",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure segmentations, anyone's: Dice, IoU, precision, recall, volume, HD95, ASSD and more, per case and label.

    Files of two folders are matched by name. Cases without a partner, on another grid or unreadable are listed, and
    the rest is scored (exit code 1).
    """
    from attentus.io.atomic import write_text
    from attentus.metrics import Rules, to_csv, to_json

    rules = Rules(empty=empty, border=border, connectivity=connectivity, hd95=hd95)  # type: ignore[arg-type]
    sizes = numbers(spacing, "--spacing")
    labels = _labels(label) or _names(prediction, reference)
    scores = _measure(prediction, reference, stack, labels=labels, spacing=sizes, rules=rules)
    text = to_json(scores, prediction=str(prediction), reference=str(reference))
    if out:
        write_text(out, to_csv(scores) if out.suffix == ".csv" else text, overwrite=overwrite)
    if json:
        print(text)
    else:
        show_scores(scores, f"{len(scores.cases)} case(s)", each=len(scores.cases) <= 20)
    raise typer.Exit(failures(scores.failures))


def _measure(prediction: Path, reference: Path, stack: bool, *, rules: Rules, **options: Any) -> Scores:
    from attentus import io
    from attentus.data import Dataset
    from attentus.metrics import score as measure
    from attentus.metrics.scoring import label_files, match_files, score_files

    if stack:
        return measure(io.read_labels(prediction), io.read_labels(reference), rules=rules, **options)
    if _is_dataset(reference):
        truth = {case.id: case.label for case in Dataset.open(reference) if case.label}
        pairs, alone = match_files(label_files(prediction), truth)
        scores = score_files(pairs, options["labels"], rules, spacing=options["spacing"], progress=progress())
        return replace(scores, failures={**alone, **scores.failures})
    return measure(prediction, reference, rules=rules, progress=progress(), **options)


def _labels(texts: list[str]) -> dict[str, Any] | None:
    """NAME=VALUE, NAME=VALUE+VALUE or NAME=any."""
    from attentus.errors import BadInput

    labels: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        parts = value.split("+")
        if not name or not (value == "any" or all(part.isdigit() for part in parts)):
            raise BadInput(f"'{text}' names no label: write for example liver=1, kidneys=2+3 or everything=any.")
        labels[name] = "any" if value == "any" else tuple(int(part) for part in parts)
    return labels or None


def _names(prediction: Path, reference: Path) -> dict[str, int] | None:
    """Names of labels, as the reference's dataset or the prediction's labels.json give them."""
    from attentus.data import Dataset

    for place in (reference, reference.parent):
        if _is_dataset(place):
            return dict(Dataset.open(place).labels)
    file = (prediction if prediction.is_dir() else prediction.parent) / "labels.json"
    return dict(jsonlib.loads(file.read_text(encoding="utf-8"))["labels"]) if file.is_file() else None


def _is_dataset(path: Path) -> bool:
    return path.suffix in (".yaml", ".yml") or any((path / name).is_file() for name in ("dataset.json", "dataset.yaml"))

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
    from attentus.metrics import Preset
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
    preset: Annotated[
        str,
        typer.Option(
            help="Metrics and conventions of a source: default, nnunet, lits, chaos, brats, brats-msd, brats-2023,"
            " anu-net, ra-unet, attention-unet, msconvlstm-att, dpc-net."
        ),
    ] = "default",
    metric: Annotated[
        list[str], typer.Option("--metric", metavar="NAME", help="Only this metric (repeatable), e.g. dice, nsd@2mm.")
    ] = [],  # noqa: B006
    lesions: Annotated[
        list[str], typer.Option("--lesions", metavar="NAME", help="Structure whose pieces are found one by one.")
    ] = [],  # noqa: B006
    organ: Annotated[str, typer.Option(metavar="NAME", help="Structure that holds the lesions: tumour burden.")] = "",
    empty: Annotated[str | None, typer.Option(help="Empty masks: default, nnunet, lits, brats, brats-2023.")] = None,
    border: Annotated[str | None, typer.Option(help="Outside of the scan: background or foreground.")] = None,
    connectivity: Annotated[int | None, typer.Option(help="Surface: 1 faces, 2 edges (LiTS), 3 corners.")] = None,
    hd95: Annotated[str | None, typer.Option(help="95th percentile: directed-max, or pooled as in MedPy.")] = None,
    matching: Annotated[str | None, typer.Option(help="Lesions: one-to-one, or lits, which merges first.")] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Measure segmentations, anyone's: Dice, IoU, precision, recall, volume, HD95, ASSD and more, per case and label.

    Files of two folders are matched by name. Cases without a partner, on another grid or unreadable are listed, and
    the rest is scored (exit code 1). Options given beside a preset go first.

    Example: attentus score predictions/ labels/ --label liver=1+2 --label tumour=2 --lesions tumour -o scores.csv
    """
    from attentus.io.atomic import write_text
    from attentus.metrics import to_csv, to_json
    from attentus.metrics.presets import preset_named

    chosen = preset_named(preset)
    named: dict[str, Any] = {
        "empty": empty,
        "border": border,
        "connectivity": connectivity,
        "hd95": hd95,
        "matching": matching,
    }
    rules = replace(chosen.rules, **{rule: choice for rule, choice in named.items() if choice is not None})
    how = chosen.but(rules=rules, metrics=metric, lesions=lesions, organ=organ)
    sizes = numbers(spacing, "--spacing")
    labels = _labels(label) or _names(prediction, reference)
    scores = _measure(prediction, reference, stack, labels=labels, spacing=sizes, how=how)
    text = to_json(scores, prediction=str(prediction), reference=str(reference))
    if out:
        write_text(out, to_csv(scores) if out.suffix == ".csv" else text, overwrite=overwrite)
    if json:
        print(text)
    else:
        show_scores(scores, f"{len(scores.cases)} case(s)", each=len(scores.cases) <= 20)
    raise typer.Exit(failures(scores.failures))


def _measure(prediction: Path, reference: Path, stack: bool, *, how: Preset, **options: Any) -> Scores:
    from attentus import io
    from attentus.data import Dataset
    from attentus.metrics import score as measure
    from attentus.metrics.scoring import label_files, match_files, score_files

    if stack:
        return measure(io.read_labels(prediction), io.read_labels(reference), preset=how, **options)
    if _is_dataset(reference):
        truth = {case.id: case.label for case in Dataset.open(reference) if case.label}
        pairs, alone = match_files(label_files(prediction), truth)
        scores = score_files(pairs, options["labels"], how, spacing=options["spacing"], progress=progress())
        return replace(scores, failures={**alone, **scores.failures})
    return measure(prediction, reference, preset=how, progress=progress(), **options)


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

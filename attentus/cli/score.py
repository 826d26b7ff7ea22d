"""attentus score."""

from __future__ import annotations

import json as jsonlib
import sys
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
    predictions: Annotated[
        list[str],
        typer.Argument(metavar="PRED...", help="Label file, or folder of cases; several are scored one by one."),
    ],
    reference: Annotated[Path, typer.Argument(metavar="REF", help="The same, or a dataset with labels.")],
    label: Annotated[
        list[str],
        typer.Option(
            "--label",
            metavar="NAME=VALUE",
            help="Structure and value: liver=1, kidneys=2+3, all=any, or prediction and reference: liver=1:255."
            " Names of labels may stand for values.",
        ),
    ] = [],  # noqa: B006 - Typer copies it
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FILE", help="Write .csv or .json here; for several PRED a folder."),
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Bring predictions on other grids onto the reference's.")
    ] = False,
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

    Cases of two folders are matched by name, labels by name where both sides name them. Cases without a partner, on
    another grid or unreadable are listed, and the rest is scored (exit code 1). Several PRED may be given names:
    NAME=PRED. Options given beside a preset go first.

    Example: attentus score predictions/ labels/ --label liver=1+2 --label tumour=2 --lesions tumour -o scores.csv
    """
    from attentus.io.atomic import require_free, write_text
    from attentus.metrics import score as measure
    from attentus.metrics import to_csv, to_json

    conventions = {"empty": empty, "border": border, "connectivity": connectivity, "hd95": hd95, "matching": matching}
    how = {"preset": _preset(preset, conventions), "metrics": metric, "lesions": lesions, "organ": organ}
    how |= {"labels": _labels(label), "spacing": numbers(spacing, "--spacing"), "resample": resample}
    files = _results(_called(predictions), out)
    for _, file in files.values():
        require_free(file or "", overwrite=file is None or overwrite)
    truth = _side(reference, stack)
    texts, code = {}, 0
    for name, (path, file) in files.items():
        scores = measure(_volume(path) if stack else path, truth, progress=progress(), **how)  # type: ignore[arg-type]
        texts[name] = to_json(scores, prediction=str(path), reference=str(reference))
        if file:
            write_text(file, to_csv(scores) if file.suffix == ".csv" else texts[name], overwrite=overwrite)
        if not json:
            title = f"{name}: {len(scores.cases)} case(s)" if len(files) > 1 else f"{len(scores.cases)} case(s)"
            show_scores(scores, title, each=len(scores.cases) <= 20)
        code = max(code, _complain(scores, name if len(files) > 1 else ""))
    if json:
        together = ",\n".join(f"{jsonlib.dumps(name)}: {text}" for name, text in texts.items())
        print(f'{{"methods": {{\n{together}\n}}}}' if len(files) > 1 else next(iter(texts.values())))
    raise typer.Exit(code)


def _complain(scores: Scores, of: str) -> int:
    """Name on stderr what failed or was left out; the exit code."""
    if left_out := scores.rules.get("not scored"):
        print(f"warning: not scored, because only one side names it: {left_out}", file=sys.stderr)
    return failures(scores.failures, of)


def _preset(name: str, conventions: dict[str, Any]) -> Preset:
    """A preset with the conventions that were given instead of its own."""
    from attentus.metrics.presets import preset_named

    chosen = preset_named(name)
    given = {rule: choice for rule, choice in conventions.items() if choice is not None}
    return chosen.but(rules=replace(chosen.rules, **given))


def _called(predictions: list[str]) -> dict[str, Path]:
    """Name to path: as written before "=", or the name of the file or folder."""
    from attentus.errors import BadInput
    from attentus.io.sniff import stem

    paths: dict[str, Path] = {}
    for text in predictions:
        given, equals, rest = text.partition("=")
        named = bool(equals) and not Path(text).exists()
        path = Path(rest if named else text)
        name = given if named else stem(path.resolve())
        if name in paths or not name or Path(name).name != name:
            raise BadInput(f"'{text}' has no name of its own among the predictions; write for example mine={path}.")
        paths[name] = path
    return paths


def _results(paths: dict[str, Path], out: Path | None) -> dict[str, tuple[Path, Path | None]]:
    """Name to prediction and the file for its scores: `out`, or one in it where there are several."""
    from attentus.errors import BadInput

    if out is not None and len(paths) == 1 and out.suffix not in (".csv", ".json"):
        raise BadInput(f"{out}: scores are written as .csv or .json; name such a file.")
    if out is None or len(paths) == 1:
        return {name: (path, out) for name, path in paths.items()}
    if out.suffix in (".csv", ".json"):
        raise BadInput(f"{out} is one file, but there are {len(paths)} predictions: name a folder, -o {out.stem}.")
    return {name: (path, out / f"{name}.json") for name, path in paths.items()}


def _side(reference: Path, stack: bool) -> Any:
    """What is scored against; a dataset gives its label files and their names."""
    from attentus.data import Dataset
    from attentus.io.sniff import READABLE_ENDINGS, ending
    from attentus.metrics.cohorts import Cohort

    if stack:
        return _volume(reference)
    listed = reference / "dataset.json"  # lies beside the labels themselves in folders nnU-Net writes
    lists = listed.is_file() and not any(ending(p) in READABLE_ENDINGS for p in reference.iterdir())
    if reference.suffix not in (".yaml", ".yml") and not lists and not (reference / "dataset.yaml").is_file():
        return reference
    dataset = Dataset.open(reference)
    names: dict[str, tuple[int, ...]] = {name: (value,) for name, value in (dataset.declared_labels or {}).items()}
    return Cohort({case.id: case.label for case in dataset if case.label}, names or None)


def _volume(folder: Path) -> Any:
    from attentus import io

    return io.read_labels(folder)


def _labels(texts: list[str]) -> dict[str, Any] | None:
    """NAME=VALUES or NAME=VALUES:VALUES, for prediction and reference; VALUES are numbers or names, joined by +."""
    from attentus.errors import BadInput
    from attentus.metrics import Sides

    labels: dict[str, Any] = {}
    for text in texts:
        name, _, values = text.partition("=")
        sides = [[part.strip() for part in side.split("+")] for side in values.split(":")]
        if not name or len(sides) > 2 or not all(part for side in sides for part in side):
            raise BadInput(
                f"'{text}' names no label: write for example liver=1, kidneys=2+3, everything=any, or liver=1:255 where"
                " the prediction holds 1 and the reference 255."
            )
        found = ["any" if side == ["any"] else tuple(int(p) if p.isdigit() else p for p in side) for side in sides]
        labels[name] = Sides(found[0], found[-1])
    return labels or None

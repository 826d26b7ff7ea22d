"""attentus export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from attentus.cli.options import Json, Overwrite
from attentus.cli.show import failures, print_json, progress, table
from attentus.errors import BadInput

if TYPE_CHECKING:
    from attentus.export.form import Form
    from attentus.train.faithful import Faithful


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a trained model.")],
    to: Annotated[
        Literal["onnx", "openvino", "bundle"],
        typer.Option(help="A network as an ONNX file or for OpenVINO (folder), or a whole model (folder or .zip)."),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="OUT", help="File or folder to write.")],
    int8: Annotated[bool, typer.Option("--int8", help="In 8-bit integers; needs --data to calibrate with.")] = False,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DATA", help="What it was trained on: measures the export's Dice on what was held back."),
    ] = None,
    weights: Annotated[Literal["best", "last"], typer.Option(help="Best on validation, or last.")] = "best",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a model in a form that other programs run, after comparing it with the original.

    A bundle holds preparation, network and post-processing, and runs with numpy and onnxruntime alone.
    """
    from attentus.data import Dataset
    from attentus.export.form import convert, difference
    from attentus.infer.model import Model
    from attentus.train.faithful import compare_runs
    from attentus.train.levels import cases_of

    _check_request(to, out, data, int8=int8, overwrite=overwrite)
    loaded = Model.load(model, weights=weights, device="cpu")
    dataset = Dataset.open(data) if data else None
    windows = None
    if int8 and dataset:
        from attentus.export import calibration_windows

        windows = calibration_windows(loaded, dataset.subset(cases_of(loaded, dataset, "train")))
    form = convert(loaded, to, windows)
    largest = difference(loaded, form)
    measured = None
    if dataset:
        held_back = dataset.subset(cases_of(loaded, dataset, "validation"))
        measured = compare_runs(loaded, held_back, form.run, progress())
    form.write(loaded, out, _card(model, form, largest, measured), overwrite=overwrite)
    if json:
        facts = {"out": str(out), "to": to, "int8": int8, "largest_difference": largest}
        print_json({**facts, "measured": measured and measured.facts()})
    else:
        print(f"{out}: probabilities differ from torch's by {largest:.2g} at most, on noise")
        if measured:
            table(["structure", "torch", "export", "agreement"], _rows(measured), _title(measured))
    raise typer.Exit(failures(dict(measured.failures)) if measured else 0)


def _check_request(to: str, out: Path, data: Path | None, *, int8: bool, overwrite: bool) -> None:
    """Refuse what cannot be done before anything is converted."""
    from attentus.io.atomic import check_replaceable, require_free

    if int8 and data is None:
        raise BadInput("--int8 is calibrated with the training cases: name the dataset, --data DATA.")
    if to == "onnx" or out.suffix == ".zip":
        require_free(out, overwrite=overwrite)
    else:
        check_replaceable(out, holds="model.xml" if to == "openvino" else "bundle.json", overwrite=overwrite)
    if to == "onnx" and out.suffix != ".onnx":
        raise BadInput(f"--to onnx writes a file: let its name end with .onnx; got '{out}'.")
    if to == "openvino" and out.suffix in (".xml", ".bin", ".zip"):
        raise BadInput(f"--to openvino writes a folder; got '{out}'.")


def _card(model: Path, form: Form, largest: float, measured: Faithful | None) -> str:
    """The model's card, and what was measured of the export."""
    card = model / "card.md"
    lines = [card.read_text(encoding="utf-8") if card.is_file() else f"# {model.name}\n"]
    program = "OpenVINO" if form.to == "openvino" else "ONNX"
    lines += [
        f"## As {program}, {'int8' if form.int8 else 'fp32'}",
        "",
        f"- Probabilities differ from torch's by {largest:.2g} at most, on noise.",
    ]
    if measured:
        lines += [f"- {_title(measured)}.", "", "| structure | torch | export | agreement |", "|---|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in _rows(measured)]
    return "\n".join(lines) + "\n"


def _rows(measured: Faithful) -> list[list[str]]:
    return [
        [name, f"{dice:.4f}", f"{measured.other[name]:.4f}", f"{measured.agreement[name]:.4f}"]
        for name, dice in measured.exact.items()
    ]


def _title(measured: Faithful) -> str:
    return f"Mean Dice on {measured.cases} cases held back changes by {measured.change:+.4f}"

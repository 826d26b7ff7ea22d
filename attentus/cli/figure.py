"""attentus figure: each figure of the reports alone, as a file for a paper."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attentus.cli.options import Json, Overwrite
from attentus.cli.show import print_json, progress

if TYPE_CHECKING:
    from attentus.report.figure import Figure

app = typer.Typer(
    no_args_is_help=True,
    help="Draw one figure of a report as SVG, PNG or HTML, for a paper or a talk.",
    epilog="Example: attentus figure boxes runs/a runs/b -o boxes.svg",
)

Out = Annotated[
    Path, typer.Option("-o", "--out", metavar="FILE", help="What to write; the ending says how: .svg, .png, .html.")
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a finished training.")]
Methods = Annotated[
    list[str],
    typer.Argument(metavar="[NAME=]RUN...", help="Runs, folders of folds, or JSON files of `attentus score`."),
]
Case = Annotated[str | None, typer.Option(metavar="ID", help="A held-back case. Default: the median one.")]
Structure = Annotated[str | None, typer.Option(metavar="NAME", help="Default: all.")]


@app.command(epilog="Example: attentus figure overlay ours=runs/a theirs=runs/b --case patient_7 -o overlay.svg")
def overlay(
    masks: Annotated[
        list[str], typer.Argument(metavar="[NAME=]PLACE...", help="Runs; with --image, label files from anywhere.")
    ],
    out: Out,
    case: Case = None,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="The scan, for label files.")] = None,
    reference: Annotated[Path | None, typer.Option(metavar="FILE", help="The truth, for label files.")] = None,
    plane: Annotated[str, typer.Option(help="axial, coronal or sagittal.")] = "axial",
    slice_: Annotated[
        int | None, typer.Option("--slice", metavar="N", help="From 0. Default: where structures are largest.")
    ] = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Reference and several methods on one slice, side by side, missed and false areas marked."""
    from attentus.report import figures

    _check(out, overwrite)
    drawn = figures.overlay(masks, case, image=image, reference=reference, plane=plane, index=slice_)
    _write(drawn, out, overwrite, json)


@app.command(epilog="Example: attentus figure heatmap runs/a --case patient_7 --structure liver -o heat.png")
def heatmap(
    run: Run,
    out: Out,
    case: Case = None,
    structure: Structure = None,
    values: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw these values instead of predicting, e.g. a map of `attentus explain`."),
    ] = None,
    channel: Annotated[int, typer.Option(metavar="N", help="Channel of --values, from 0.")] = 0,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Probability of a structure over the scan, in three planes; the case is predicted again."""
    from attentus.report import figures

    _check(out, overwrite)
    drawn = figures.heatmap(run, case, structure, progress(), values=values, channel=channel)
    _write(drawn, out, overwrite, json)


@app.command(epilog="Example: attentus figure surface runs/a --structure liver -o surface.html")
def surface(
    runs: Annotated[list[str], typer.Argument(metavar="[NAME=]RUN...", help="Folders of finished trainings.")],
    out: Out,
    case: Case = None,
    structure: Structure = None,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Predicted surfaces in 3D, coloured by signed distance to the reference in mm; in HTML they can be turned."""
    from attentus.report import figures

    _check(out, overwrite)
    _write(figures.surface(runs, case, structure), out, overwrite, json)


@app.command(epilog="Example: attentus figure histogram runs/a -o values.svg")
def histogram(run: Run, out: Out, case: Case = None, overwrite: Overwrite = False, json: Json = False) -> None:
    """Values of a scan before and after the recipe's window (RA-UNet, Fig. 3)."""
    from attentus.report import figures

    _check(out, overwrite)
    _write(figures.histogram(run, case), out, overwrite, json)


@app.command(epilog="Example: attentus figure patches runs/a -n 12 -o patches.svg")
def patches(
    run: Run,
    out: Out,
    case: Case = None,
    count: Annotated[int, typer.Option("-n", "--count", min=1, max=200, help="Patches drawn at most.")] = 16,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Patches the training may cut from a case, on the scan as the net sees it (RA-UNet, Fig. 6)."""
    from attentus.report import figures

    _check(out, overwrite)
    _write(figures.patches(run, case, count), out, overwrite, json)


@app.command(epilog="Example: attentus figure box runs/cascade -o box.svg")
def box(run: Run, out: Out, case: Case = None, overwrite: Overwrite = False, json: Json = False) -> None:
    """The boxes in which the later stages of a cascade look (RA-UNet, Fig. 7)."""
    from attentus.report import figures

    _check(out, overwrite)
    _write(figures.box(run, case), out, overwrite, json)


@app.command(epilog="Example: attentus figure curves runs/a runs/b -o curves.svg")
def curves(
    runs: Annotated[list[str], typer.Argument(metavar="[NAME=]RUN...", help="Folders of trainings.")],
    out: Out,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Loss and validation Dice over the steps of one or several trainings (DPC-Net, Fig. 6)."""
    from attentus.report import figures

    _check(out, overwrite)
    _write(figures.curves(runs), out, overwrite, json)


@app.command(epilog="Example: attentus figure prune levels.json -o prune.svg")
def prune(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="JSON file of `attentus prune RUN --data --table`.")],
    out: Out,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Dice against time of every level of a nested net, parameters as area (ANU-Net, Fig. 13)."""
    from attentus.report import figures

    _check(out, overwrite)
    _write(figures.prune(table), out, overwrite, json)


@app.command("bland-altman", epilog="Example: attentus figure bland-altman runs/a runs/b -o volumes.svg")
def bland_altman(
    methods: Methods, out: Out, structure: Structure = None, overwrite: Overwrite = False, json: Json = False
) -> None:
    """Predicted against reference volumes: bias and limits of agreement."""
    from attentus.report import figures

    _check(out, overwrite)
    _write(figures.bland_altman(methods, structure), out, overwrite, json)


@app.command(epilog="Example: attentus figure boxes runs/a runs/b --metric hd95_mm -o boxes.svg")
def boxes(
    methods: Methods,
    out: Out,
    structure: Structure = None,
    metric: Annotated[str, typer.Option(help="What was measured, e.g. dice, hd95_mm.")] = "dice",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Box plots of a metric with a line for every case from method to method."""
    from attentus.report import figures

    _check(out, overwrite)
    _write(figures.boxes(methods, structure, metric), out, overwrite, json)


@app.command(epilog="Example: attentus figure pareto runs/a runs/b --cost flops -o pareto.svg")
def pareto(
    methods: Methods,
    out: Out,
    cost: Annotated[str | None, typer.Option(help="parameters, flops or time. Default: all that are known.")] = None,
    metric: Annotated[str, typer.Option(help="What was measured, e.g. dice, hd95_mm.")] = "dice",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Accuracy against what it costs, and which methods no other beats."""
    from attentus.report import figures

    _check(out, overwrite)
    _write(figures.pareto(methods, cost, metric), out, overwrite, json)


def _check(out: Path, overwrite: bool) -> None:
    from attentus.report.figure import check_name

    check_name(out, overwrite=overwrite)


def _write(figure: Figure, out: Path, overwrite: bool, json: bool) -> None:
    from attentus.report.figure import write_figure

    file = write_figure(figure, out, overwrite=overwrite)
    if json:
        print_json({"figure": str(file)})
    else:
        print(f"figure: {file}")

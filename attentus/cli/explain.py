"""attentus explain."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attentus.cli.options import Json, Overwrite, integers
from attentus.cli.show import print_json, progress, table
from attentus.errors import BadInput

if TYPE_CHECKING:
    from attentus.explain import Explanation


def explain(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model with attention.")],
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="NIfTI, NRRD, MHA, DICOM folder or picture.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder for maps, numbers and a page.")],
    label: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The truth; without it maps are compared with the prediction.")
    ] = None,
    modules: Annotated[
        list[str], typer.Option("--module", metavar="NAME", help="Only this module; repeatable (`attentus nets show`).")
    ] = [],  # noqa: B006 - Typer copies it
    point: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Where this voxel looks, in modules where positions meet.")
    ] = None,
    features: Annotated[bool, typer.Option("--features", help="Also write features before and after.")] = False,
    near: Annotated[float, typer.Option(metavar="MM", min=0.0, help="What counts as near a structure.")] = 5.0,
    flips: Annotated[bool, typer.Option("--flips/--no-flips", help="Measure how alike mirrored windows are.")] = True,
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Segment a scan and write where the model's attention was: volumes on the scan's own grid, numbers, a page.

    Voxels of --point are counted from 0 in the canonical orientation: z to the head, y to the back, x to the left.
    """
    from attentus.explain import attention
    from attentus.infer.model import Model
    from attentus.io.atomic import check_replaceable
    from attentus.report.explanation import SCORES, write_explanation

    check_replaceable(out, holds=SCORES, overwrite=overwrite)
    options: dict[str, Any] = {"label": label, "modules": modules, "point": _point(point), "features": features}
    loaded = Model.load(model)
    found = attention(loaded, scan, **options, near_mm=near, flips=flips, progress=progress())
    files = write_explanation(found, out, overwrite=overwrite)
    if json:
        print_json({**found.facts(), "folder": str(out), "files": files})
    else:
        _show(found)
        print(f"page: {out / 'index.html'}")


def _point(text: str | None) -> tuple[int, int, int] | None:
    values = integers(text, "--point")
    if values is None:
        return None
    if len(values) != 3:
        raise BadInput(f"--point is three whole numbers z,y,x such as 20,31,14; got '{text}'.")
    z, y, x = values
    return z, y, x


def _show(found: Explanation) -> None:
    rows = []
    for name, numbers in found.scores.items():
        plain = [f"{numbers[key]:.3g}" if key in numbers else "" for key in ("mean", "sd", "entropy")]
        for structure, scores in (numbers.get("targets") or {"": {}}).items():
            keys = ("mass_inside", "mass_near", "expected", "pointing", "best_dice")
            rows.append([name, numbers["kind"], *plain, structure, *(_number(scores.get(key)) for key in keys)])
            name, plain = "", ["", "", ""]  # noqa: PLW2901 - said once
    columns = ["module", "kind", "mean", "SD", "entropy", "structure"]
    columns += ["mass inside", f"within {found.near_mm:g} mm", "expected", "pointing", "best dice"]
    table(columns, rows, f"compared with the {found.target}")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"

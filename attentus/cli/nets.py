"""attentus nets list | show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from attentus.cli.options import Json
from attentus.cli.show import print_json, table
from attentus.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

app = typer.Typer(no_args_is_help=True, help="The networks: papers, sizes, costs, where their attention sits.")

Preset = Annotated[str | None, typer.Option("--preset", help="A named set of options (see `attentus nets show NAME`).")]
Dims = Annotated[int | None, typer.Option("--dims", help="2 or 3. Default: the paper's.")]
Channels = Annotated[int | None, typer.Option("--channels", help="Channels of the image. Default: the paper's.")]
Classes = Annotated[int | None, typer.Option("--classes", help="Outputs. Default: the paper's.")]
Size = Annotated[
    str | None, typer.Option("--size", metavar="Z,Y,X", help="Input to count for, or Y,X. Default: the paper's.")
]


@app.command("list", epilog="Example: attentus nets list")
def list_(json: Json = False) -> None:
    """List all networks with parameters and operations at the input of their paper."""
    from attentus import nets

    rows = [_summary(name) for name in nets.names()]
    if json:
        print_json(rows)
        return
    table(
        ["net", "paper", "works in", "input", "parameters", "GFLOP", "attention", "presets"],
        [
            [
                row["name"],
                row["paper"],
                " ".join(f"{dims}D" for dims in row["dims"]),
                _input(row),
                f"{row['parameters']:,}",
                f"{row['flops'] / 1e9:,.1f}",
                str(row["attention_modules"]),
                " ".join(row["presets"]),
            ]
            for row in rows
        ],
    )


@app.command(epilog="Example: attentus nets show attention-unet --dims 3 --size 96,160,160")
def show(
    name: Annotated[str, typer.Argument(metavar="NET", help="Name of a network.")],
    preset: Preset = None,
    dims: Dims = None,
    channels: Channels = None,
    classes: Classes = None,
    size: Size = None,
    json: Json = False,
) -> None:
    """Show one network: options, presets, parameters, operations, and every place where its attention can be seen."""
    from attentus import nets

    facts = _summary(name, preset, dims, channels, classes, _size(size))
    net = _on_meta(name, preset, len(facts["size"]), facts["in_channels"], facts["out_channels"])
    points = nets.attention_points(net, facts["in_channels"], facts["size"])
    facts["attention"] = [
        {"name": point.name, "kind": point.kind, "maps": point.maps, "size": list(point.size)} for point in points
    ]
    if json:
        print_json(facts)
        return
    print(f"{name}: {facts['paper']}")
    print(f"input {_input(facts)}, {facts['out_channels']} classes: {facts['parameters']:,} parameters,", end=" ")
    print(f"{facts['flops'] / 1e9:,.2f} GFLOP")
    table(["option", "default"], [[option, str(value)] for option, value in facts["options"].items()])
    print("presets: " + (", ".join(facts["presets"]) or "none"))
    if points:
        rows = [[point.name, point.kind, str(point.maps), " × ".join(map(str, point.size))] for point in points]
        table(["attention", "kind", "maps", "resolution"], rows)


def _summary(
    name: str,
    preset: str | None = None,
    dims: int | None = None,
    channels: int | None = None,
    classes: int | None = None,
    size: tuple[int, ...] | None = None,
) -> dict[str, Any]:
    """What is known of a net, counted at the input of its paper unless told otherwise."""
    from attentus import nets

    options = nets.options(name)
    card = nets.card(name) or nets.Card(nets.create, "plug-in", (128, 128, 128), classes=2)
    channels, classes = channels or card.channels, classes or card.classes
    size = size or _size_for(card.size, dims)
    net = _on_meta(name, preset, dims or len(size), channels, classes)
    price = nets.cost(net, channels, size)
    return {
        "name": name,
        "paper": card.paper,
        "dims": list(card.dims),
        "in_channels": channels,
        "out_channels": classes,
        "size": list(size),
        "parameters": price.parameters,
        "flops": price.flops,
        "attention_modules": len(nets.taps(net)),
        "presets": nets.presets(name),
        "options": options,
    }


def _on_meta(name: str, preset: str | None, dims: int, channels: int, classes: int) -> nn.Module:
    """The net without memory for its weights: enough for counting."""
    import torch

    from attentus import nets

    with torch.device("meta"):
        return nets.create(name, dims, channels, classes, preset=preset)


def _size_for(published: tuple[int, ...], dims: int | None) -> tuple[int, ...]:
    """The paper's input; a slice of it where a 3D net is looked at in 2D, a small cube in the other case."""
    if dims is None or dims == len(published):
        return published
    return published[-2:] if dims == 2 else (64, 64, 64)


def _size(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        size = tuple(int(n) for n in text.replace("x", ",").split(","))
    except ValueError:
        size = ()
    if len(size) not in (2, 3) or min(size) < 1:
        raise BadInput(f"--size takes two or three positive numbers, such as 256,256 or 96,160,160; got '{text}'.")
    return size


def _input(row: dict[str, Any]) -> str:
    return f"{row['in_channels']} × " + "×".join(map(str, row["size"]))

"""The command line: parse, call, show. Commands import what is heavy inside themselves, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from attentus import __version__
from attentus.cli import (
    audit,
    compare,
    data,
    demo,
    doctor,
    explain,
    export,
    figure,
    nets,
    predict,
    prune,
    recipe,
    report,
    reproduce,
    score,
    show,
    train,
    tune_postprocess,
)
from attentus.errors import AttentusError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Attention-based medical image segmentation: scans in; models, masks, measurements and a report out.",
    epilog="Start with [bold]attentus demo[/bold]. Exit codes: 0 done, 1 some cases failed (listed), 2 bad input.",
)
app.command(epilog="Example: attentus demo")(demo.demo)
app.add_typer(data.app, name="data")
app.add_typer(recipe.app, name="recipe")
app.add_typer(nets.app, name="nets")
app.command(epilog="Example: attentus train hippocampus-attention-unet DATA -o runs/a --max-time 20m")(train.train)
app.command(epilog="Example: attentus predict runs/a scans/ -o masks/")(predict.predict)
app.command(epilog="Example: attentus score masks/ DATA -o scores.csv")(score.score)
app.command(epilog="Example: attentus compare runs/a runs/b -o table.tex")(compare.compare)
app.command(epilog="Example: attentus explain runs/a scan.nii.gz -o maps/ --label truth.nii.gz")(explain.explain)
app.command(epilog="Example: attentus audit runs/a DATA -o audit/")(audit.audit)
app.command(epilog="Example: attentus prune runs/a --level auto --data DATA -o runs/small")(prune.prune)
app.command(epilog="Example: attentus report runs/a")(report.report)
app.add_typer(figure.app, name="figure")
app.command(epilog="Example: attentus reproduce anu-net --data DATA --tables 2,6 --budget 90")(reproduce.reproduce)
app.command(epilog="Example: attentus tune-postprocess runs/a DATA --dry-run")(tune_postprocess.tune_postprocess)
app.command(epilog="Example: attentus export runs/a --to bundle -o liver.zip")(export.export)
app.command(epilog="Example: attentus doctor")(doctor.doctor)


# Typer may use a click of its own; this is the base of its complaints about arguments, whichever it uses.
_UsageProblem: type[Any] = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")


STOPPED = 130
"""Exit code after Ctrl-C, as shells have it."""


def _print_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    pass


def run(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code.

    0 done, 1 some cases failed, 2 bad request or input, 130 stopped (Ctrl-C).
    """
    try:
        code = app(arguments, standalone_mode=False)
    except AttentusError as error:
        show.explain(error)
        return 2
    except _UsageProblem as error:
        error.show()
        return 2
    except (KeyboardInterrupt, typer.Abort):
        code = STOPPED
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if code == STOPPED:  # some versions of Typer return it themselves
        print("stopped", file=sys.stderr)
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(run())

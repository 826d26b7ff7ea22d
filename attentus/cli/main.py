"""The command line: parse, call, show. Commands import what is heavy inside themselves, so that `--help` is quick."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import click
import typer

from attentus import __version__
from attentus.cli import data, demo, doctor, predict, recipe, report, score, train
from attentus.cli.show import explain
from attentus.errors import AttentusError

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Attention-based medical image segmentation: scans in; models, masks, measurements and a report out.",
    epilog="Start with [bold]attentus demo[/bold]. Exit codes: 0 done, 1 some cases failed (listed), 2 bad input.",
)
app.command()(demo.demo)
app.add_typer(data.app, name="data")
app.add_typer(recipe.app, name="recipe")
app.command()(train.train)
app.command()(predict.predict)
app.command()(score.score)
app.command()(report.report)
app.command()(doctor.doctor)


@app.callback()
def _main(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def run(arguments: list[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 1 some cases failed, 2 bad request or input."""
    try:
        code = app(arguments, standalone_mode=False)
    except AttentusError as error:
        explain(error)
        return 2
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(run())

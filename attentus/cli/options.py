"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from attentus.errors import BadInput

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")]
Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="Dataset: a folder in a known layout, a list of cases, or a manifest.")
]
Set = Annotated[
    list[str], typer.Option("--set", metavar="A.B=C", help="Change a field of the recipe, e.g. train.steps=500.")
]

_DURATION = re.compile(r"(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?")


def seconds(text: str | None) -> float | None:
    """A duration such as 90s, 20m, 1h30m in seconds; None stays None.

    Raises:
        BadInput: something else.
    """
    if text is None:
        return None
    found = _DURATION.fullmatch(text.strip().lower())
    if not found or not any(found.groups()):
        raise BadInput(f"'{text}' is no duration: write for example 90s, 20m or 1h30m.")
    hours, minutes, rest = (float(part or 0) for part in found.groups())
    return 3600 * hours + 60 * minutes + rest


def integers(text: str | None, what: str) -> list[int] | None:
    """Whole numbers such as 0,1,2; None stays None.

    Raises:
        BadInput: something else.
    """
    if text is None:
        return None
    try:
        values = [int(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or min(values) < 0:
        raise BadInput(f"{what} is a list of whole numbers such as 0,1,2; got '{text}'.")
    return values


def numbers(text: str | None, what: str) -> list[float] | None:
    """Three numbers such as 2.0,0.73,0.73; None stays None.

    Raises:
        BadInput: something else.
    """
    if text is None:
        return None
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or min(values) <= 0:
        raise BadInput(f"{what} is three positive numbers z,y,x such as 2.0,0.73,0.73; got '{text}'.")
    return values


def size(text: str, what: str) -> int:
    """Bytes from 4G, 800M or 1.5 GiB.

    Raises:
        BadInput: something else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT])(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found or float(found[1]) <= 0:
        raise BadInput(f"{what} is an amount of memory such as 4G or 800M; got '{text}'.")
    return int(float(found[1]) * 1024 ** (1 + "KMGT".index(found[2].upper())))

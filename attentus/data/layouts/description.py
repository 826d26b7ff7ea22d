"""dataset.json, in which the Medical Segmentation Decathlon and nnU-Net describe a dataset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from attentus.errors import BadFile

if TYPE_CHECKING:
    from pathlib import Path

NAME = "dataset.json"


def file_of(path: Path) -> Path:
    """The description of a folder, or the file itself."""
    return path / NAME if path.is_dir() else path


def load(file: Path) -> dict[str, Any]:
    """Its content; empty for what is no such file.

    Raises:
        BadFile: no valid JSON.
    """
    if file.suffix != ".json" or not file.is_file():
        return {}
    tree = load_json(file)
    return tree if isinstance(tree, dict) else {}


def load_json(file: Path) -> Any:
    """What a JSON file says.

    Raises:
        BadFile: it cannot be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise BadFile(file, f"is not valid JSON ({error})", "Correct the file or restore it from the source.") from None

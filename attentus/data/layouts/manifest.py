"""A manifest (YAML) says what names of files cannot, whatever the layout.

`root` (the folder, or the list, relative to the manifest), `layout`, `name`, `channels`, `labels` (name: integer),
`regions` (name: labels), `ignore` (labels) and `subject`, a regular expression whose first group, searched in the case
id, names the subject.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from attentus.errors import BadFile
from attentus.types import Case

if TYPE_CHECKING:
    from collections.abc import Callable

    from attentus.data.layouts.found import Found

NAME = "dataset.yaml"


class Manifest(BaseModel):
    """What names of files cannot say."""

    model_config = ConfigDict(extra="forbid")

    root: Path = Path()
    layout: str | None = None
    name: str | None = None
    channels: tuple[str, ...] = ()
    labels: dict[str, int] | None = None
    regions: dict[str, tuple[str, ...]] = {}
    ignore: tuple[str, ...] = ()
    subject: str | None = None


def beside(path: Path) -> Path | None:
    """The manifest that a path is, or that lies in the folder; None if there is none."""
    if path.is_dir():
        return path / NAME if (path / NAME).is_file() else None
    return path if path.suffix in (".yaml", ".yml") else None


def apply(file: Path, layout: str | None, recognise: Callable[[Path, str | None], Found]) -> Found:
    """Find what a manifest describes, and call it as the manifest does.

    Args:
        file: the manifest.
        layout: named by the user; it has the last word.
        recognise: finds what lies in a folder, given a layout or None.

    Raises:
        BadFile: the manifest is malformed or no images are where it points.
    """
    manifest = _read(file)
    root = (file.parent / manifest.root).resolve() if manifest.root != Path() else file.parent
    if not root.exists():
        raise BadFile(root, "holds no images", f"Correct root in {file}; it is relative to the manifest.")
    found = recognise(root, layout or manifest.layout)
    labels = {k: v for k, v in manifest.labels.items() if v} if manifest.labels is not None else found.labels
    known = set(labels) if labels is not None else None
    for field, names in (("ignore", manifest.ignore), *(("regions", parts) for parts in manifest.regions.values())):
        for name in names:
            if known is not None and name not in known:
                raise BadFile(
                    file, f"{field}: there is no label '{name}'", f"The labels are {', '.join(sorted(known))}."
                )
    still = {name: parts for name, parts in found.regions.items() if known is None or known.issuperset(parts)}
    return replace(
        found,
        name=manifest.name or found.name,
        cases=tuple(_with_subject(case, manifest.subject, file) for case in found.cases),
        channels=manifest.channels or found.channels,
        labels=labels,
        regions={**still, **manifest.regions},
        ignore=manifest.ignore or tuple(name for name in found.ignore if known is None or name in known),
    )


def _read(file: Path) -> Manifest:
    try:
        return Manifest.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")) or {})
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadFile(file, f"is not valid YAML ({error})", "Correct the manifest.") from None
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}" for e in error.errors())
        known = ", ".join(Manifest.model_fields)
        raise BadFile(file, f"is no manifest of a dataset ({problems})", f"Its fields are {known}.") from None


def _with_subject(case: Case, pattern: str | None, file: Path) -> Case:
    if pattern is None:
        return case
    found: Any = re.search(pattern, case.id)
    if not found or not found.groups():
        raise BadFile(
            file,
            f"the pattern '{pattern}' finds no subject in the case id '{case.id}'",
            "Write a regular expression with one group, such as '_(\\d+)_' for flipped_10001_81.",
        )
    return Case(case.id, case.images, case.label, found.group(1))

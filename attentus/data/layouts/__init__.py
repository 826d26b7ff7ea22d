"""How folders of cases are arranged. Each layout is one module, or one object of it, that fulfils `Layout`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from attentus.data.layouts import (
    bids,
    brats,
    brats2015,
    chaos,
    ircadb,
    listing,
    lits,
    manifest,
    msd,
    nnunet,
    pairs,
    pancreas,
    stacks,
)
from attentus.data.layouts.tree import Tree
from attentus.errors import BadFile, UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attentus.data.layouts.found import Found


class Layout(Protocol):
    """What a layout offers."""

    LOOKS_LIKE: str
    """How such a dataset looks, for messages."""

    def matches(self, tree: Tree) -> bool:
        """Whether a folder or file is arranged this way, as far as names tell."""

    def find(self, tree: Tree) -> Found:
        """Its contents."""


LAYOUTS: Mapping[str, Layout] = {
    "msd": msd,
    "nnunet": nnunet,
    "lits": lits,
    "3dircadb": ircadb,
    "chaos-ct": chaos.CT,
    "chaos-t1dual": chaos.T1DUAL,
    "chaos-t2spir": chaos.T2SPIR,
    "chaos-mr": chaos.MR,
    "brats": brats,
    "brats2015": brats2015,
    "pancreas-ct": pancreas,
    "bids": bids,
    "list": listing,
    "stacks": stacks,
    "pairs": pairs,
}
"""By name, the most specific first."""

GENERAL = ("stacks", "pairs")
"""Layouts that are told by common words only, and tried when no other fits."""


def recognise(path: Path, layout: str | None = None) -> Found:
    """Read the manifest of a folder in the layout that fits, or in the one that is named.

    Raises:
        BadFile: none fits, or several do; or the data are incomplete.
        UnknownName: no such layout.
    """
    if layout is not None and layout not in LAYOUTS:
        raise UnknownName("layout", layout, LAYOUTS)
    path = path if path.name.strip(".") else path.resolve()  # "." has no name to give to a dataset or a patient
    if described := manifest.beside(path):
        return manifest.apply(described, layout, lambda root, name: recognise_folder(root, name, otherwise="pairs"))
    return recognise_folder(path, layout)


def recognise_folder(path: Path, layout: str | None, otherwise: str | None = None) -> Found:
    """As `recognise`, for what no manifest describes; `otherwise` is the layout taken when none fits."""
    tree = Tree(path)
    if layout is not None:
        return LAYOUTS[layout].find(tree)
    fitting = [name for name in LAYOUTS if name not in GENERAL and LAYOUTS[name].matches(tree)]
    fitting = fitting or [name for name in GENERAL if LAYOUTS[name].matches(tree)]
    fitting = fitting or ([otherwise] if otherwise else [])
    if len(fitting) == 1:
        return LAYOUTS[fitting[0]].find(tree)
    if fitting:
        candidates = "".join(f"\n    {name:<13} {LAYOUTS[name].LOOKS_LIKE}" for name in fitting)
        raise BadFile(
            path,
            f"can be read in {len(fitting)} ways:{candidates}",
            f"Choose one: --layout {fitting[0]}, or layout: {fitting[0]} in a dataset.yaml in the folder, or open a"
            " folder within it.",
        )
    raise BadFile(
        path,
        "is no dataset Attentus recognises",
        "It looks for:"
        + "".join(f"\n    {name:<13} {known.LOOKS_LIKE}" for name, known in LAYOUTS.items())
        + "\n  Arrange the files in one of these ways, or describe them in a list or manifest (docs/how-to/data.md).",
    )

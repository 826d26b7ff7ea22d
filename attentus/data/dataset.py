"""A dataset on disk: which cases there are, what their labels and channels are called. Voxels stay on disk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from attentus import io
from attentus.data.layouts import recognise
from attentus.data.splits import deal, part
from attentus.errors import AttentusError, BadFile, UnknownName

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from os import PathLike

    from attentus.data.check import Finding
    from attentus.data.layouts.found import Sides
    from attentus.progress import Progress
    from attentus.recipes import Split
    from attentus.types import Case


@dataclass(frozen=True)
class Dataset:
    """The manifest of a folder of cases."""

    name: str
    root: Path
    layout: str
    """How the folder is arranged: a name in `attentus.data.layouts.LAYOUTS`."""
    cases: tuple[Case, ...]
    declared_channels: tuple[str, ...] | None = None
    """Names of the image channels in file order, as the dataset says; None when it says nothing."""
    declared_labels: Mapping[str, int] | None = None
    """Label name to stored integer, as the dataset says; None when it says nothing."""
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names that stand for several labels, as the whole tumour does, or for one that others call so."""
    ignore: tuple[str, ...] = ()
    """Labels of voxels that nobody annotated; they neither train nor count."""
    splits: tuple[Sides, ...] = ()
    """Splits that come with the dataset, one per fold: {"train": ids, "val": ids, and perhaps "test": ids}."""

    @classmethod
    def open(cls, folder: str | PathLike[str], layout: str | None = None) -> Dataset:
        """Open a dataset: a folder in a known layout, a list of cases, or a manifest. No voxels are read.

        Args:
            folder: the folder, a list (.csv, .tsv, .json), or a YAML manifest (see docs/how-to/data.md).
            layout: how it is arranged, e.g. "chaos-ct"; None finds out.

        Raises:
            BadFile: missing, incomplete, of no known layout, or of several; the message says what was looked for.
            UnknownName: no such layout.
        """
        path = Path(folder)
        if not path.exists():
            raise BadFile(path, "does not exist", "Check the path and its spelling.")
        found = recognise(path, layout)
        return cls(
            found.name,
            found.root,
            found.layout,
            found.cases,
            found.channels,
            found.labels,
            found.regions,
            found.ignore,
            found.splits,
        )

    @cached_property
    def labels(self) -> Mapping[str, int]:
        """Label name to stored integer, background left out; found by reading every label file if none is declared."""
        if self.declared_labels is not None:
            return self.declared_labels
        values: set[int] = set()
        for case in self.labelled:
            try:
                values.update(int(v) for v in np.unique(io.read_labels(case.label).array))  # type: ignore[arg-type]
            except AttentusError:
                continue  # `check` and `prepare` name the file; its values are simply not known
        return {f"label {value}": value for value in sorted(values - {0})}

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Names of the image channels; if none are declared, "image" or "channel 1", ... as many as an image has.

        Raises:
            BadFile: none are declared and no image can be read.
        """
        if self.declared_channels is not None:
            return self.declared_channels
        for case in (*self.labelled, *self.cases):
            try:
                count = io.read_case(case).channels
            except AttentusError:
                continue
            return ("image",) if count == 1 else tuple(f"channel {k}" for k in range(1, count + 1))
        raise BadFile(self.root, "holds no image that can be read", "Run `attentus data check` on it to see why.")

    @property
    def labelled(self) -> tuple[Case, ...]:
        """Cases with image and label."""
        return tuple(case for case in self.cases if case.images and case.label is not None)

    def __len__(self) -> int:
        return len(self.cases)

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __getitem__(self, case: str) -> Case:
        """The case of that id.

        Raises:
            UnknownName: no such case.
        """
        found = next((c for c in self.cases if c.id == case), None)
        if found is None:
            raise UnknownName("case", case, [c.id for c in self.cases])
        return found

    def subset(self, ids: Iterable[str]) -> Dataset:
        """The same dataset with only the named cases, in the order given.

        Raises:
            UnknownName: no such case.
        """
        return replace(
            self, cases=tuple(self[case] for case in ids), declared_labels=self.labels, declared_channels=self.channels
        )

    def split(self, folds: int = 5, fold: int = 0, seed: int = 0) -> tuple[Dataset, Dataset]:
        """Labelled cases to train on and to validate on, subjects kept together; see `splits.deal`.

        Raises:
            BadInput: fewer subjects than folds.
        """
        dealt = deal(self.labelled, folds, seed)
        held_back = dealt[fold]
        return self.subset(c.id for c in self.labelled if c.id not in held_back), self.subset(held_back)

    def parts(self, how: Split) -> tuple[Dataset, Dataset, Dataset]:
        """Labelled cases to train on, to validate on and to test on (none for most splits), as a recipe's `split` says.

        Raises:
            BadInput, BadFile: see `splits.part`.
        """
        train, validation, test = (self.subset(ids) for ids in part(self.labelled, how, self.splits))
        return train, validation, test

    def check(self, progress: Progress | None = None) -> list[Finding]:
        """Look at every file and report what is wrong and what to do about it."""
        from attentus.data.check import check

        return check(self, progress)

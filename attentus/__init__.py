"""Attentus: attention-based medical image segmentation, from a folder of scans to models, masks and a report.

    import attentus as at

    scan = at.read("series/")                                     # DICOM folder, NIfTI, NRRD, MHA -> Volume
    model = at.fit(at.Recipe.load("demo"), at.Dataset.open("data/"), out="runs/a")
    prediction = model.predict(scan)
    scores = at.score(prediction.labels, at.read_labels("truth.nii.gz"), labels=prediction.names)

Importing this package costs no torch: what needs it is loaded when it is first touched.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from attentus import explain, losses, metrics, nets
    from attentus.cascade import Cascade, fit_cascade, load
    from attentus.data import Dataset
    from attentus.infer import Ensemble, Model, write_dicom
    from attentus.io import read, read_labels, write
    from attentus.metrics import score
    from attentus.recipes import Recipe
    from attentus.train import fit
    from attentus.types import Volume

__all__ = [
    "Cascade",
    "Dataset",
    "Ensemble",
    "Model",
    "Recipe",
    "Volume",
    "explain",
    "fit",
    "fit_cascade",
    "load",
    "losses",
    "metrics",
    "nets",
    "read",
    "read_labels",
    "score",
    "write",
    "write_dicom",
]

_HOME = {
    "Cascade": "attentus.cascade",
    "Dataset": "attentus.data",
    "Ensemble": "attentus.infer",
    "Model": "attentus.infer",
    "Recipe": "attentus.recipes",
    "Volume": "attentus.types",
    "fit": "attentus.train",
    "fit_cascade": "attentus.cascade",
    "load": "attentus.cascade",
    "read": "attentus.io",
    "read_labels": "attentus.io",
    "score": "attentus.metrics",
    "write": "attentus.io",
    "write_dicom": "attentus.infer",
}


def __getattr__(name: str) -> Any:
    """Load a public name on first use."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in __all__:
        return import_module(f"attentus.{name}")
    raise AttributeError(f"module 'attentus' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The public names, loaded or not."""
    return [*__all__, "__version__"]

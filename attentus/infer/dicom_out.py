"""A prediction as DICOM: the segmentation and, on request, a report on what was measured in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attentus.infer.extent import extents
from attentus.io.atomic import require_free
from attentus.io.dicom_report import make_report
from attentus.io.dicom_write import Dicom, Kind, make_seg, save

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from attentus.recipes import Coding
    from attentus.types import Prediction


def write_dicom(
    prediction: Prediction,
    path: str | PathLike[str],
    *,
    kind: Kind = "binary",
    report: str | PathLike[str] | None = None,
    codes: Mapping[str, Coding] | None = None,
    fingerprint: str = "",
    overwrite: bool = False,
) -> None:
    """Write a prediction of a DICOM series as DICOM segmentation (SEG), which refers to the images.

    Args:
        prediction: of a DICOM series.
        path: the file, by custom .dcm.
        kind: "binary", one mask per structure; "labelmap", one number per voxel, smaller, but new in the standard of
            2024; "fractional", the probability of each structure, which needs `predict(..., probabilities=True)`.
        report: where a structured report (SR, TID 1500) goes, with volume and longest diameter of every structure.
        codes: codes of structures by name, where the table's are not meant (`recipe.infer.codes`).
        fingerprint: of the model (`Model.fingerprint`), which is written as its algorithm's parameter.
        overwrite: whether existing files may be replaced.

    Raises:
        BadInput: the scan is no DICOM series, there are no probabilities for a fractional segmentation, or a label map
            cannot be had: of structures that lie within each other, or with a report.
        BadFile: existing file, a place that cannot be written to, or a series that cannot be referred to.
        MissingExtra: highdicom is not installed.
        UnknownName: no such kind.
    """
    how = Dicom(kind, codes or {}, fingerprint, report is not None)
    save_dicom(prediction, Path(path), how, None if report is None else Path(report), overwrite=overwrite)


def save_dicom(prediction: Prediction, path: Path, how: Dicom, report: Path | None, *, overwrite: bool) -> None:
    """Write the segmentation, after the report on it if there is to be one.

    Raises:
        BadInput, BadFile, MissingExtra: see `write_dicom`.
    """
    for file in filter(None, (path, report)):
        require_free(file, overwrite=overwrite)
    seg = make_seg(prediction, how)
    if report is not None:
        save(make_report(seg, extents(prediction), how), report, overwrite=overwrite)
    save(seg, path, overwrite=overwrite)

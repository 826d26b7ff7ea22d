"""What dcm2niix makes of a series, and what we read: the same voxels in the same places."""

from __future__ import annotations

import subprocess

import make
import numpy as np
import pytest

from attentus import io

SERIES = [
    ("chaos-ct-liver", "CT_SET_3", "DICOM_anon"),
    *(("dicom-brain", "Study3", name) for name in ("11-T1post-18670", "36468-FLAIRreg-58706", "37830-T2reg-78532")),
    *(("sarcoma-ct-mr-pet", "dicom", "STS_008", kind, "image") for kind in ("CT", "MR_T1", "PET")),
]


def converted(series, out):
    """The series as dcm2niix writes it."""
    out.mkdir(exist_ok=True)
    call = [make.tool("dcm2niix"), "-b", "n", "-z", "n", "-m", "y", "-f", "scan", "-o", out, series]
    subprocess.run(call, check=True, capture_output=True)
    (file,) = out.glob("*.nii")
    return io.read(file)


def agree(series, out):
    ours, theirs = io.read(series), converted(series, out)
    assert ours.grid.shape == theirs.grid.shape
    assert ours.grid.distance_mm(theirs.grid) < 0.01  # NIfTI holds its geometry in float32
    np.testing.assert_allclose(ours.array, theirs.array, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("parts", SERIES, ids=lambda parts: parts[-1] if parts[-1] != "image" else parts[-2])
def test_real_series(tmp_path, parts):
    agree(make.real_data(*parts), tmp_path / "out")


@pytest.mark.parametrize("oblique", [None, 3])
@pytest.mark.parametrize("number", [0, 7, 22, 41])
def test_made_series(tmp_path, number, oblique):
    """Numbered in order, without which dcm2niix leaves slices out."""
    where = make.grid(make.ORIENTATIONS[number], oblique=oblique, shape=(9, 16, 14), spacing=(3.0, 0.8, 0.7))
    make.dicom_series(tmp_path / "s", make.marked(where)[0])
    for k, (file, _) in enumerate(io.read(tmp_path / "s").source.header["frames"], start=1):
        make.edit_dicom(file, InstanceNumber=k)
    agree(tmp_path / "s", tmp_path / "out")

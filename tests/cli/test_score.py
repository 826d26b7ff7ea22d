"""`attentus score` as a user meets it: what is printed, what is written, exit codes."""

from __future__ import annotations

import json

import make
import numpy as np
import pytest

from attentus import io
from attentus.cli.main import run
from attentus.metrics import PRESETS
from attentus.metrics.summary import from_json
from attentus.types import Grid, Volume

GRID = Grid((6, 20, 20), (3.0, 1.0, 1.0))


@pytest.fixture
def attentus(capsys):
    """Run a command line in this process: exit code, stdout, stderr."""

    def call(*arguments):
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def labels():
    array = np.zeros(GRID.shape, np.uint8)
    array[1:4, 3:9, 3:9] = 1
    array[2:4, 12:17, 10:18] = 2
    return array


def write(file, array, grid=GRID):
    io.write(Volume(array[None], grid), file, overwrite=True)
    return file


@pytest.fixture
def faulty(tmp_path, labels):
    """Six predictions of which one is missing, one empty, one elsewhere and one corrupt."""
    for case in ("good", "fine", "empty", "elsewhere", "corrupt", "missing"):
        write(tmp_path / "truth" / f"{case}.nii.gz", labels)
        write(tmp_path / "masks" / f"{case}.nii.gz", labels)
    write(tmp_path / "masks" / "empty.nii.gz", 0 * labels)
    write(tmp_path / "masks" / "elsewhere.nii.gz", labels, Grid(GRID.shape, GRID.spacing, (0.0, 40.0, 0.0)))
    corrupt = tmp_path / "masks" / "corrupt.nii.gz"
    corrupt.write_bytes(corrupt.read_bytes()[:90])
    (tmp_path / "masks" / "missing.nii.gz").unlink()
    return tmp_path


def test_four_faults_are_named_and_counted_and_the_rest_is_scored(attentus, faulty):
    arguments = ["score", faulty / "masks", faulty / "truth", "--label", "liver=1"]
    code, out, err = attentus(*arguments)
    assert code == 1
    assert "scored/missed/false/failed" in out
    assert "2/1/0/3" in out
    assert "missed: liver in empty" in out
    assert "failed: missing: there is no prediction of this case" in err
    assert "failed: elsewhere: elsewhere: reference and prediction lie on different grids" in err
    assert err.count("origin (0.00, 40.00, 0.00) mm") == err.count("origin (0.00, 0.00, 0.00) mm") == 1
    assert f"failed: corrupt: {faulty / 'masks' / 'corrupt.nii.gz'}" in err
    code, out, _ = attentus(*arguments, "--json")
    assert code == 1
    told = json.loads(out)
    assert told["cases"] == {"scored": 3, "failed": 3}
    assert told["missed"] == {"liver": ["empty"]}
    assert told["false_alarms"] == {}
    assert set(told["failures"]) == {"missing", "elsewhere", "corrupt"}
    assert told["detections"][0]["scored"] == 2
    (dice,) = [s for s in told["summary"] if s["metric"] == "dice"]
    assert (dice["n"], dice["mean"]) == (3, pytest.approx(2 / 3))


def test_resample_repairs_on_request_only(attentus, tmp_path, labels):
    write(tmp_path / "p.nii.gz", labels.repeat(2, 1), Grid((6, 40, 20), (3.0, 0.5, 1.0), (0.0, -0.25, 0.0)))
    write(tmp_path / "r.nii.gz", labels)
    code, _, err = attentus("score", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz")
    assert code == 2
    assert "--resample" in err
    code, out, _ = attentus("score", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", "--resample")
    assert code == 0
    assert "resampled 1 of 1 predictions, nearest label: p" in out


def test_values_and_names_for_either_side(attentus, tmp_path, labels):
    write(tmp_path / "p" / "a.nii.gz", labels)
    write(tmp_path / "r" / "a.nii.gz", np.array([0, 255, 7], np.uint8)[labels])
    (tmp_path / "p" / "labels.json").write_text('{"labels": {"liver": 1, "tumour": 2}}')
    for label in (["liver=1:255"], ["liver=liver:255"], ["both=liver+tumour:7+255"], ["all=any", "liver=1:255"]):
        options = [part for text in label for part in ("--label", text)]
        code, out, _ = attentus("score", tmp_path / "p", tmp_path / "r", *options, "--json")
        assert code == 0
        assert {r["value"] for r in json.loads(out)["rows"] if r["metric"] == "dice"} == {1.0}
    for wrong in ("liver", "liver=", "liver=1:2:3", "=1", "liver=1+", "liver=spleen:255"):
        assert attentus("score", tmp_path / "p", tmp_path / "r", "--label", wrong)[0] == 2
    (tmp_path / "r" / "labels.json").write_text('{"labels": {"Liver": 255, "bowel": 9}}')
    code, out, err = attentus("score", tmp_path / "p", tmp_path / "r")
    assert code == 0
    assert (
        "warning: not scored, because only one side names it: tumour (prediction only), bowel (reference only)" in err
    )


def test_several_predictions(attentus, tmp_path, labels):
    write(tmp_path / "r" / "a.nii.gz", labels)
    write(tmp_path / "one" / "a.nii.gz", labels)
    write(tmp_path / "two" / "masks" / "a.nii.gz", np.where(labels == 1, 0, labels))
    write(tmp_path / "two" / "masks" / "b.nii.gz", labels)
    predictions = [tmp_path / "one", f"mine={tmp_path / 'two' / 'masks'}"]
    code, out, err = attentus("score", *predictions, tmp_path / "r", "--label", "liver=1", "-o", tmp_path / "s")
    assert code == 1
    assert "one: 1 case(s)" in out
    assert "mine: 1 case(s)" in out
    assert "failed: mine: b: there is no reference of this case" in err
    dice = {f.stem: from_json(f.read_text()).value("a", "liver", "dice") for f in (tmp_path / "s").iterdir()}
    assert dice == {"one": 1, "mine": 0}
    assert attentus("score", *predictions, tmp_path / "r", "-o", tmp_path / "s")[0] == 2  # nothing is overwritten
    code, out, _ = attentus("score", *predictions, tmp_path / "r", "--label", "liver=1", "--json")
    assert list(json.loads(out)["methods"]) == ["one", "mine"]
    for wrong in ([*predictions, tmp_path / "one"], [f"a/b={tmp_path / 'one'}", tmp_path / "two" / "masks"]):
        code, _, err = attentus("score", *wrong, tmp_path / "r")
        assert code == 2
        assert "write for example mine=" in err
    code, _, err = attentus("score", *predictions, tmp_path / "r", "-o", tmp_path / "s.csv")
    assert code == 2
    assert "name a folder" in err
    code, _, err = attentus("score", predictions[0], tmp_path / "r", "-o", tmp_path / "s.xlsx")
    assert code == 2
    assert "written as .csv or .json" in " ".join(err.split())


def test_a_folder_that_nnunet_wrote_is_no_dataset(attentus, tmp_path, labels):
    described = {"labels": {"background": 0, "liver": 1, "all": [1, 2]}, "file_ending": ".nii.gz", "numTraining": 3}
    for side in ("p", "r"):
        write(tmp_path / side / "c_001.nii.gz", labels)
        (tmp_path / side / "dataset.json").write_text(json.dumps(described))
    code, out, _ = attentus("score", tmp_path / "p", tmp_path / "r", "--json")
    assert code == 0
    assert {row["structure"] for row in json.loads(out)["rows"]} == {"liver", "all"}


def test_the_chaos_sample_has_its_published_figures(attentus):
    """Dice 0.978, RAVD 0.665 %, ASSD 0.734 mm, MSSD 14 mm."""
    folder = make.real_data("chaos-ct-liver", "CT_SET_3")
    spacing = ("--stack", "--spacing", "2,0.7265625,0.7265625")
    code, out, _ = attentus("score", folder / "Segmentation", folder / "Ground", *spacing, "--preset", "chaos")
    assert code == 0
    line = next(line for line in out.splitlines() if line.split()[:2] == ["case", "liver"])
    dice, ravd, assd, mssd = map(float, line.split()[2:6])
    assert (round(dice, 3), round(assd, 3), round(mssd, 1)) == (0.978, 0.734, 14)
    assert 100 * ravd == pytest.approx(0.665, abs=6e-4)  # printed as 0.006645


LESIONS = {"lits", "ra-unet", "dpc-net"}
REGIONS = {"brats": (1, 2, 4), "brats-msd": (1, 2, 3), "brats-2023": (1, 2, 3), "msconvlstm-att": (1, 2, 3)}


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_from_the_command_line(attentus, tmp_path, labels, preset):
    if preset == "attention-unet":
        pytest.importorskip("skimage", reason="meshes need scikit-image")
    for case, shift in (("a", 0), ("b", 1)):
        truth = labels.copy()
        truth[4, 3:9, 3:9] = 3 if preset in REGIONS else 0
        truth = np.array([0, *REGIONS.get(preset, (1, 0 if preset == "chaos" else 2, 3))], np.uint8)[truth]
        write(tmp_path / "r" / f"{case}.nii.gz", truth)
        write(tmp_path / "p" / f"{case}.nii.gz", np.roll(truth, shift, axis=2))
    code, out, _ = attentus("score", tmp_path / "p", tmp_path / "r", "--preset", preset)
    assert code == 0
    assert "dice global" in out
    assert "rules: empty" in out
    told = json.loads(attentus("score", tmp_path / "p", tmp_path / "r", "--preset", preset, "--json")[1])
    structures = {row["structure"] for row in told["rows"]}
    expected = {"liver", "lesion"} if preset in LESIONS else {"WT", "TC", "ET"} if preset in REGIONS else None
    assert expected is None or structures == expected
    assert ("burden_rmse" in {number["metric"] for number in told["pooled"]}) == (preset in LESIONS)
    assert told["rules"] == PRESETS[preset].describe()


def test_lesions_metrics_and_rules_by_name(attentus, tmp_path, labels):
    labels[3, 5:7, 5:7] = 2
    write(tmp_path / "r.nii.gz", labels)
    write(tmp_path / "p.nii.gz", np.roll(labels, 1, axis=2))
    files = ("score", tmp_path / "p.nii.gz", tmp_path / "r.nii.gz", "--label", "liver=1+2", "--label", "tumour=2")
    code, out, _ = attentus(*files, "--lesions", "tumour", "--organ", "liver", "--json")
    rows = {(row["structure"], row["metric"]): row["value"] for row in json.loads(out)["rows"]}
    assert code == 0
    assert (rows["tumour", "lesion_true_positive"], rows["tumour", "lesion_false_negative"]) == (1, 1)
    assert ("liver", "lesion_true_positive") not in rows
    assert rows["tumour", "burden"] == rows["tumour", "reference_burden"]
    code, out, _ = attentus(*files, "--metric", "nsd@2mm", "--metric", "hd95_mm", "--hd95", "pooled", "--json")
    told = json.loads(out)
    assert {row["metric"] for row in told["rows"]} == {"nsd@2mm", "hd95_mm"}
    assert told["rules"]["hd95"] == "pooled"
    assert (
        json.loads(attentus(*files, "--preset", "lits", "--empty", "brats", "--json")[1])["rules"]["empty"] == "brats"
    )
    for wrong, hint in (
        (("--metric", "dise"), "Did you mean 'dice'?"),
        (("--metric", "nsd@2"), "nsd@1mm"),
        (("--preset", "litz"), "Did you mean 'lits'?"),
        (("--lesions", "tumor"), "tumour"),
        (("--organ", "livr", "--lesions", "tumour"), "liver"),
        (("--empty", "brat"), "Did you mean 'brats'?"),
        (("--border", "outside"), "border"),
        (("--connectivity", "6"), "connectivity"),
    ):
        code, _, err = attentus(*files, *wrong)
        assert code == 2, wrong
        assert hint in " ".join(err.split()), wrong
    code, _, err = attentus(*files[:3], "--lesions", "tumour")
    assert code == 2
    assert "--label tumour=1" in err
    assert attentus(*files[:3], "--lesions", "label 2", "--json")[0] == 0

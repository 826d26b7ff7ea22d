"""attentus data import and data fetch, as a user meets them."""

from __future__ import annotations

import json
import sys
from io import StringIO

import make
import pydicom
import pytest

from attentus.cli.main import run
from attentus.data.fetch import Entry

pytest.importorskip("highdicom", reason="needs attentus[dicom]")

LABELS = ("--label", "liver=liver", "--label", "tumour=GTV*")


@pytest.fixture
def attentus(capsys):
    def call(*arguments):
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    make.dicom_tree(folder)
    return folder


def test_a_dry_run_shows_every_series_and_writes_nothing(attentus, tree):
    before = sorted(tree.rglob("*"))
    code, out, _ = attentus("data", "import", tree, "--dry-run", "--modality", "CT", *LABELS)
    assert code == 0
    assert "CT of the body" in out
    assert "not of the kind asked for" in out
    assert "2 case(s), 0 of them cannot be used; labels: liver, tumour" in out
    assert not any(name in out for name in ("Miller", "Smith"))
    code, out, _ = attentus("data", "import", tree, "--dry-run", "--modality", "MR", "--json")
    facts = json.loads(out)
    assert facts["refusal"].startswith("no series is of the kind")
    assert [row["patient"] for row in facts["series"]].count("1") == 3
    assert sorted(tree.rglob("*")) == before


def test_import_then_check(attentus, tree, tmp_path):
    out_folder, who = tmp_path / "d", tmp_path / "who.csv"
    code, out, err = attentus("data", "import", tree, "-o", out_folder, "--modality", "CT", *LABELS, "--mapping", who)
    assert code == 0
    assert "tumour over liver 24" in out
    assert "2 case(s)" in out
    assert not any(name in out + err for name in ("Miller", "Smith"))
    assert "Smith^12" in who.read_text()
    assert attentus("data", "check", out_folder)[0] == 0
    code, out, _ = attentus("data", "import", tree, "-o", out_folder, "--modality", "CT", *LABELS, "--json")
    facts = json.loads(out)
    assert (code, facts["written"], list(facts["cases"])) == (0, 0, ["case_001", "case_002"])
    code, _, err = attentus("data", "import", tree, "-o", out_folder, "--modality", "CT")
    assert code == 2
    assert "--overwrite" in err


def test_a_bad_series_makes_the_exit_code_1(attentus, tmp_path):
    make.dicom_tree(tmp_path / "t")
    files = [f for f in (tmp_path / "t").rglob("IM*") if pydicom.dcmread(f).get("Modality") == "CT"]
    mine = sorted((float(pydicom.dcmread(f).ImagePositionPatient[2]), f) for f in files if b"Miller" in f.read_bytes())
    mine[3][1].unlink()
    code, out, err = attentus("data", "import", tmp_path / "t", "-o", tmp_path / "d", "--modality", "CT", *LABELS)
    assert code == 1
    assert "1 slice missing" in err
    assert "1 case(s)" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--label", "liver", "--dry-run"), "is NAME=PATTERN"),
        (("--channel", "CT=CT", "--modality", "CT", "--dry-run"), "leave out --modality"),
        ((), "Name the folder to make"),
        (("--label", "x=spleen", "-o", "never"), "no series is of the kind asked for"),
    ],
)
def test_requests_that_make_no_sense(attentus, tree, tmp_path, arguments, message):
    arguments = [tmp_path / "never" if a == "never" else a for a in arguments]
    code, _, err = attentus("data", "import", tree, *arguments)
    assert code == 2
    assert message in err
    assert not (tmp_path / "never").exists()


def test_channels_by_modality_and_description(attentus, tree, tmp_path):
    channels = ("--channel", "CT=CT", "--channel", "PET=PT:*body*")
    code, out, _ = attentus("data", "import", tree, "-o", tmp_path / "d", *channels, *LABELS)
    assert code == 0
    assert "PET resampled onto CT" in out
    assert json.loads((tmp_path / "d" / "dataset.json").read_text())["modality"] == {"0": "CT", "1": "PET"}


def test_the_catalogue_is_listed(attentus):
    code, out, _ = attentus("data", "fetch")
    assert code == 0
    assert "msd-liver" in out
    assert "CC BY-SA 4.0" in out
    listed = {row["name"]: row for row in json.loads(attentus("data", "fetch", "--json")[1])}
    assert listed["lits"]["how"] == "by hand"
    assert listed["msd-spleen"]["how"] == "download"


def test_steps_for_what_needs_a_person(attentus, tmp_path):
    code, out, _ = attentus("data", "fetch", "lits")
    assert code == 1
    assert "Register at the home page" in out
    assert "attentus data fetch lits --folder" in out
    assert json.loads(attentus("data", "fetch", "lits", "--json")[1])["then"].endswith("DOWNLOADED")
    code, out, _ = attentus("data", "fetch", "lits", "--folder", make.dataset(tmp_path / "d", cases=2))
    assert code == 0
    assert "layout msd, 2 cases, 2 labelled" in out
    code, _, err = attentus("data", "fetch", "lits", "--folder", tmp_path / "nowhere")
    assert (code, "does not exist" in err) == (2, True)
    code, _, err = attentus("data", "fetch", "litz")
    assert (code, "Did you mean 'lits'" in err) == (2, True)


def test_nothing_is_downloaded_without_agreement(attentus, tmp_path, monkeypatch):
    facts = {"title": "Made", "about": "a", "licence": "CC0", "home": "http://h", "size_gb": 0.001, "opens": ["Task"]}
    made = Entry(name="made", **facts, download=[{"url": "http://127.0.0.1:9/x.tar"}])
    monkeypatch.setattr("attentus.data.fetch.known.catalogue", lambda: {"made": made})
    monkeypatch.setattr(sys, "stdin", StringIO())
    code, _, err = attentus("data", "fetch", "made", "-o", tmp_path / "data")
    assert code == 2
    assert "Licence: CC0" in err
    assert "say --yes" in err
    assert not (tmp_path / "data").exists()
    make.dataset(tmp_path / "data" / "made" / "Task", cases=1)
    code, out, err = attentus("data", "fetch", "made", "-o", tmp_path / "data", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)[0]["cases"] == ["case_00"]

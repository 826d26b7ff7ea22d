"""`attentus figure` and what the reports draw, on a short training."""

from __future__ import annotations

import json
import re
import shutil

import make
import numpy as np
import pytest

from attentus import io
from attentus.cli.main import run
from attentus.data import Dataset
from attentus.recipes import dump
from attentus.report import figures
from attentus.report.looking import patches
from attentus.report.run import Run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset and two runs on it, alike."""
    folder = tmp_path_factory.mktemp("figure")
    make.dataset(folder / "data", cases=6)
    recipe = make.recipe(train__steps=4, train__validate_every=2)
    (folder / "r.yaml").write_text(dump(recipe))
    assert run(["train", str(folder / "r.yaml"), str(folder / "data"), "-o", str(folder / "a")]) == 0
    truth = {case.id: case.label for case in Dataset.open(folder / "data")}
    for file in (folder / "a" / "validation").glob("*.nii.gz"):  # four steps teach nothing: the reference will do
        shutil.copy(truth[file.name.removesuffix(".nii.gz")], file)
    shutil.copytree(folder / "a", folder / "b")
    return folder


@pytest.fixture
def attentus(capsys):
    """Run a command line in this process: exit code, stdout, stderr."""

    def call(*arguments):
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


KINDS = {
    "overlay": ["a", "b", "--plane", "coronal"],
    "heatmap": ["a", "--structure", "shell"],
    "surface": ["a", "b", "--structure", "shell"],
    "histogram": ["a"],
    "patches": ["a", "-n", "5"],
    "curves": ["a", "b"],
    "bland-altman": ["a", "b"],
    "boxes": ["a", "b", "--metric", "dice"],
    "pareto": ["a", "b"],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_drawn(attentus, trained, tmp_path, kind):
    out = tmp_path / "f.svg"
    words = [str(trained / word) if word in ("a", "b") else word for word in KINDS[kind]]
    code, said, err = attentus("figure", kind, *words, "-o", out, "--json")
    assert code == 0, err
    assert json.loads(said) == {"figure": str(out)}
    text = out.read_text()
    assert text.startswith("<?xml")
    assert str(trained) not in text
    assert attentus("figure", kind, *words, "-o", out)[0] == 2  # nothing is overwritten unasked


def test_requests_that_cannot_be_drawn_are_explained(attentus, trained, tmp_path):
    out = ("-o", tmp_path / "f.png")
    for words, expected in (
        (["overlay", trained / "a", "--plane", "oblique"], "plane"),
        (["overlay", trained / "a", "--case", "nobody"], "nobody"),
        (["overlay", trained / "a", "--reference", "x.nii.gz"], "--image"),
        (["heatmap", trained / "a", "--structure", "core."], "core"),
        (["surface", trained / "a", "--structure", "liver"], "liver"),
        (["box", trained / "a"], "no cascade"),
        (["pareto", trained / "a", "--cost", "money"], "flops"),
        (["curves", trained / "data"], "holds no run"),
        (["prune", trained / "r.yaml"], "attentus prune"),
        (["bland-altman", trained / "a", "--structure", "liver"], "liver"),
    ):
        code, _, err = attentus("figure", *words, *out)
        assert code == 2
        assert expected in " ".join(err.split())
    assert not (tmp_path / "f.png").exists()


def test_a_missed_structure_has_no_surface(attentus, trained, tmp_path):
    shutil.copytree(trained / "a", tmp_path / "missed")
    for file in (tmp_path / "missed" / "validation").glob("*.nii.gz"):
        labels = io.read_labels(file)
        io.write(labels.like(labels.array * (labels.array != 2)), file, overwrite=True)
    out = tmp_path / "s.svg"
    code, _, err = attentus("figure", "surface", tmp_path / "missed", "--structure", "shell", "-o", out)
    assert code == 2
    assert "hold no shell" in err
    assert attentus("figure", "surface", tmp_path / "missed", "-o", out)[0] == 0
    assert ">core</text>" in out.read_text()
    assert ">shell</text>" not in out.read_text()


def test_patches_are_those_the_training_would_cut(trained):
    found = Run.open(trained / "a")
    case = next(iter(found.data["validation"]))
    dataset = Dataset.open(trained / "data")
    pictures, words = patches(found.recipe, dataset, case, 12)
    assert words == "12 patches of 16 × 16 × 16 voxels"
    frames = re.findall(r"patch from (-?\d+), (-?\d+), (-?\d+), (with|without)", "".join(p.svg for p in pictures))
    assert frames
    for z, y, x, _ in frames:  # what the net sees lies within the scan of 12 × 20 × 18 where it fits, else around it
        assert int(z) == -2
        assert 0 <= int(y) <= 4
        assert 0 <= int(x) <= 2
    whole = found.recipe.model_copy(update={"train": found.recipe.train.model_copy(update={"patch": (64, 64, 64)})})
    assert patches(whole, dataset, case)[0] == []


def test_probabilities_are_those_of_the_model(trained, monkeypatch):
    from attentus.infer.model import Model
    from attentus.report import heat

    seen = {}
    monkeypatch.setattr(heat, "over", lambda scene, values, *_: seen.setdefault("values", values) is None or [])
    found = Run.open(trained / "a")
    case = next(iter(found.data["validation"]))
    heat.probability(found, case, ["shell"], make.Watcher())
    expected = Model.load(trained / "a").predict(Dataset.open(trained / "data")[case], probabilities=True)
    np.testing.assert_array_equal(seen["values"], expected.probabilities.canonical().array[2].astype(np.float32))


def test_the_report_shows_what_there_is_to_see(attentus, trained, tmp_path):
    (trained / "a" / "levels.json").unlink(missing_ok=True)
    assert attentus("report", trained / "a", "-o", tmp_path / "r.html", "--probabilities")[0] == 0
    page = (tmp_path / "r.html").read_text()
    for words in ("A closer look", "Probabilities", "What the net sees", "Patches", "as the net sees it"):
        assert words in page
    assert page.count('class="surface"') == 2
    assert "Pruning" not in page
    row = {"level": 1, "early_exit": None, "parameters": 400, "seconds": 0.2, "dice": 0.8, "mean_level": None}
    (trained / "a" / "levels.json").write_text(json.dumps({"levels": [row], "measured_on": "here"}))
    assert attentus("report", trained / "a", "-o", tmp_path / "r.html", "--no-probabilities", "--overwrite")[0] == 0
    page = (tmp_path / "r.html").read_text()
    assert "Pruning" in page
    assert "Probabilities" not in page


def test_the_comparison_shows_cases_side_by_side(attentus, trained, tmp_path):
    assert attentus("compare", trained / "a", trained / "b", "-o", tmp_path / "t.html")[0] == 0
    page = (tmp_path / "t.html").read_text()
    for words in ("Case by case", "What accuracy costs", "Volumes", "Reference</figcaption>", "a, Dice"):
        assert words in page
    assert "http" not in page
    assert str(trained) not in page


def test_scores_alone_have_a_page(attentus, trained, tmp_path):
    shutil.copy(trained / "a" / "scores.json", tmp_path / "mine.json")
    tree = json.loads((tmp_path / "mine.json").read_text())
    tree["failures"] = {"case_99": f"{trained}/data/x.nii.gz: is <empty>"}
    (tmp_path / "mine.json").write_text(json.dumps(tree))
    assert attentus("report", tmp_path / "mine.json")[0] == 0
    page = (tmp_path / "mine.html").read_text()
    for words in (
        "scores of a cohort",
        "Bland–Altman",
        "x.nii.gz: is &lt;empty&gt;",
        *Run.open(trained / "a").scores.cases,
    ):
        assert words in page
    assert "held back" not in page
    assert str(trained) not in page
    assert "http" not in page
    (tmp_path / "bad.json").write_text("{}")
    assert attentus("report", tmp_path / "bad.json")[0] == 2


def test_the_median_case_is_taken_where_none_is_named(trained):
    assert figures.histogram(trained / "a", None).title.startswith("Values of case_")

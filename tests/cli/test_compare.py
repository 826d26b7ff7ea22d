"""`attentus compare` on runs, on several folds and on files of scores, and what it writes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from html.parser import HTMLParser

import make
import numpy as np
import pytest

from attentus.cli.main import run
from attentus.infer.model import Model, create_net
from attentus.metrics import Rules, to_json
from attentus.report.methods import open_methods
from attentus.types import Score, Scores

CASES = [f"case_{k:02d}" for k in range(12)]
METRICS = {"dice": "", "precision": "", "hd95_mm": "mm"}


def scores(quality, structures=("core", "shell"), cases=CASES, **rules):
    """Made-up scores; the lower the quality, the worse in every case."""
    rng = np.random.default_rng(7)
    rows = []
    for case in cases:
        for structure in structures:
            luck = quality * rng.uniform(0, 0.05)
            for metric, unit in METRICS.items():
                value = 40 * (1 - quality + luck) if unit else quality - luck
                rows.append(Score(case, structure, metric, value, unit))
    return Scores(tuple(rows), Rules(**rules).describe())


@pytest.fixture
def attentus(capsys):
    """Run a command line in this process: exit code, stdout, stderr."""

    def call(*arguments):
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, re.sub(r"[ \t]+", " ", out), err

    return call


@pytest.fixture
def files(tmp_path):
    """Three methods, the first the best, each as a file of scores."""
    for name, quality in (("good", 0.9), ("fair", 0.8), ("poor", 0.7)):
        (tmp_path / f"{name}.json").write_text(to_json(scores(quality)))
    return [tmp_path / f"{name}.json" for name in ("good", "fair", "poor")]


def model_folder(folder, quality=0.9, seconds=2.0, machine="a GPU", **options):
    """A model folder as training leaves it, made without training."""
    recipe = make.recipe(
        channels=["CT"], labels=["core", "shell"], **{f"net__options__{k}": v for k, v in options.items()}
    )
    Model(recipe, create_net(recipe)).save(folder)
    timing = {"hardware": [machine], "seconds": {case: seconds + k for k, case in enumerate(CASES)}}
    (folder / "scores.json").write_text(to_json(scores(quality), timing=timing))
    return folder


class Tags(HTMLParser):
    """Counts what is open and collects the text of bold cells."""

    def __init__(self, html):
        super().__init__()
        self.open, self.bold, self.links = [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "b":
            self.bold.append(data)


def test_pooled_scores_are_compared_without_a_test(attentus, tmp_path):
    """Dice global of 2 * 90 / 200 and 2 * 40 / 100, though each case has its own."""
    for name, hits in (("one", (80, 10)), ("two", (30, 10))):
        rows = []
        for case, both in zip("ab", hits, strict=True):
            counts = {
                "true_positive": both,
                "false_positive": 10,
                "false_negative": 0,
                "dice": 2 * both / (2 * both + 10),
            }
            rows += [Score(case, "liver", metric, float(value), "") for metric, value in counts.items()]
            rows += [Score(case, "lesion", "dice", 0.5, "")]
        (tmp_path / f"{name}.json").write_text(to_json(Scores(tuple(rows), {})))
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    code, out, _ = attentus("compare", *files, "--metrics", "dice,dice_global", "-o", tmp_path / "t.tex")
    assert code == 0
    assert "Dice ↑ Dice, global ↑" in out
    assert re.search(r"one 0\.\d+ ± 0\.\d+ 0\.900", out)
    assert re.search(r"two 0\.\d+ ± 0\.\d+ 0\.800", out)
    assert "lesion" in out
    assert "Over all cases together, hence without SD and test: dice_global." in out
    assert r"$\mathbf{0.900}$" in (tmp_path / "t.tex").read_text()
    code, out, _ = attentus("compare", *files, "--metrics", "dice_global", "--json")
    told = json.loads(out)
    assert [(row["structure"], row["mean"], row["p"]) for row in told["rows"]] == [
        ("liver", 0.9, None),
        ("liver", 0.8, None),
    ]
    assert (told["tests"], code) == (0, 0)
    code, _, err = attentus("compare", *files, "--metrics", "dice_global", "--structures", "lesion")
    assert code == 2
    assert "not measured on lesion" in err
    assert "dice_global" in attentus("compare", *files, "--metrics", "dice_globl")[2]


def test_files_of_scores_are_compared(attentus, files):
    code, out, _ = attentus("compare", *files)
    assert code == 0
    assert "core, mean ± SD, best in bold" in out
    assert "method Dice ↑ Precision ↑ HD95 mm ↓" in out
    assert re.search(r"fair 0\.77\d ± 0\.01\d \*\* ", out)  # p = 2 / 2^12, corrected for 12 tests
    assert re.search(r"good 0\.87\d ± 0\.01\d 0\.87", out)
    assert "core, Dice 1.00 (100%) 2.00 (0%) 3.00 (0%) 1.00" in out
    assert "parameters" not in out
    assert "corrected after Holm over 12 tests" in out


def test_json_holds_every_number(attentus, files):
    options = ("--json", "--metrics", "dice", "--structures", "shell", "--reference", "fair", "--test", "t")
    code, out, _ = attentus("compare", *files, *options)
    assert code == 0
    found = json.loads(out)
    assert (found["reference"], found["test"], found["tests"]) == ("fair", "t", 2)
    assert found["cases"] == CASES
    assert [row["method"] for row in found["rows"]] == ["good", "fair", "poor"]
    good, fair, _ = found["rows"]
    assert good["best"]
    assert good["difference"] == pytest.approx(good["mean"] - fair["mean"])
    assert fair["p"] is None
    assert good["low"] < good["mean"] < good["high"]


def test_methods_get_names_and_no_name_twice(attentus, files, tmp_path):
    code, out, _ = attentus("compare", f"ours={files[0]}", f"U-Net [2015]={files[1]}", "--json")
    assert (code, json.loads(out)["methods"]) == (0, ["ours", "U-Net [2015]"])
    assert "U-Net [2015]" in attentus("compare", f"ours={files[0]}", f"U-Net [2015]={files[1]}")[1]
    (tmp_path / "other").mkdir()
    shutil.copy(files[0], tmp_path / "other" / "good.json")
    code, _, err = attentus("compare", files[0], tmp_path / "other" / "good.json")
    assert code == 2
    assert "Two methods are called 'good'" in err
    assert "Give them names" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "two methods at least"),
        (["nowhere"], "does not exist"),
        (["{folder}"], "holds no scores (no scores.json)"),
        (["{folder}/table.csv"], "holds no scores that can be read"),
        (["{folder}/list.json"], "holds no scores that can be read"),
        (["{folder}/nnunet.json"], "scored by different rules"),
        (["{folder}/others.json"], "There is no case that all methods scored"),
        (["{folder}/fair.json", "--metrics", "dicee"], "Did you mean 'dice'"),
        (["{folder}/fair.json", "--metrics", ","], "Name one metric at least"),
        (["{folder}/fair.json", "--test", "u"], "No paired test is called 'u'"),
        (["{folder}/fair.json", "--reference", "best"], "No method is called 'best'"),
        (["{folder}/fair.json", "-o", "{folder}/table.xlsx"], "'.xlsx' is no ending of a table"),
        (["{folder}/fair.json", "-o", "{folder}/table.csv"], "exists already"),
    ],
)
def test_mistakes_are_explained(attentus, files, tmp_path, options, message):
    (tmp_path / "table.csv").write_text("case,structure\n")
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "nnunet.json").write_text(to_json(scores(0.5, empty="nnunet")))
    (tmp_path / "others.json").write_text(to_json(scores(0.5, cases=["x", "y"])))
    code, out, err = attentus("compare", files[0], *(option.format(folder=tmp_path) for option in options))
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


def test_every_format_is_written(attentus, files, tmp_path):
    wanted = [tmp_path / f"table.{ending}" for ending in ("csv", "tex", "md", "html", "json")]
    outs = [part for file in wanted for part in ("-o", file)]
    named = [f"<b>&_1%={files[0]}", f"a|b={files[1]}", files[2]]
    code, out, _ = attentus("compare", *named, *outs)
    assert code == 0
    assert all(f"table: {file}" in out for file in wanted)
    assert attentus("compare", *named, *outs)[0] == 2  # nothing is overwritten unasked
    assert attentus("compare", *named, *outs, "--overwrite")[0] == 0
    table, tex, md, html, whole = (file.read_text() for file in wanted)

    rows = list(csv.DictReader(table.splitlines()))
    assert [len(rows), rows[0]["method"], rows[0]["best"], rows[0]["p"]] == [18, "<b>&_1%", "True", ""]
    assert float(rows[1]["p_holm"]) == pytest.approx(12 * 2 / 2**12)
    assert len(json.loads(whole)["rows"]) == 18

    lines = [line for line in tex.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert all(line.replace(r"\&", "").count("&") == 3 for line in lines)
    assert r"$<$b$>$\&\_1\% & $\mathbf{0.8" in tex
    assert re.search(r"a\|b & \$0\.77\d \\pm 0\.01\d\^\{\*\*\}\$", tex)
    assert r"\multicolumn{4}{l}{\textit{shell}}" in tex
    for left, right in (("{", "}"), (r"\begin", r"\end")):
        assert tex.replace(r"\{", "").count(left) == tex.replace(r"\}", "").count(right)

    assert re.search(r"^\| a\\\|b \| 0\.77\d ± 0\.01\d \\\*\\\*", md, re.MULTILINE)
    assert re.search(r"^\| <b>&_1% \| \*\*0\.87\d\*\* ±", md, re.MULTILINE)

    page = Tags(html)
    assert not page.open
    assert "<b>&_1%" not in html
    assert "&lt;b&gt;&amp;_1%" in html
    assert all(link.startswith("#") for link in page.links)
    assert "http" not in html
    assert str(tmp_path) not in html
    assert sum(text.startswith("0.87") for text in page.bold) == 4  # Dice and precision of two structures
    assert "a surface there" in html  # the rules in words


@pytest.fixture
def models(tmp_path):
    small = {"feature_scale": 16}
    ours = model_folder(tmp_path / "runs" / "ours", 0.9, **small)
    return ours, model_folder(tmp_path / "runs" / "wide", 0.8, seconds=5.0, feature_scale=8)


def test_runs_tell_their_costs(attentus, models):
    code, out, _ = attentus("compare", *models, "--json")
    assert code == 0
    costs = json.loads(out)["costs"]
    net = create_net(make.recipe(channels=["CT"], labels=["core", "shell"]))
    assert costs["ours"]["parameters"] == sum(p.numel() for p in net.parameters())
    assert costs["wide"]["flops"] > 3 * costs["ours"]["flops"] > 0
    assert costs["ours"]["window"] == [16, 16, 16]
    assert costs["ours"]["seconds"] == {"median": 7.5, "q1": 4.75, "q3": 10.25, "n": 12}
    code, out, _ = attentus("compare", *models)
    assert "M parameters GFLOPs s per case" in out
    assert "GFLOPs are of one window" in out
    assert "ours 16 × 16 × 16" in out
    assert "Time per case: median from scan file to label file, on a GPU." in out


def test_a_file_beside_a_run_leaves_its_costs_open(attentus, models, files):
    _, out, _ = attentus("compare", models[0], files[1])
    assert re.search(r"fair 0\.77.* – – – ?$", out, re.MULTILINE)
    model_folder(models[1], 0.8, machine="another GPU", feature_scale=8)
    _, out, _ = attentus("compare", *models)
    assert "different hardware and cannot be compared: ours on a GPU; wide on another GPU" in out


def test_folds_and_seeds_become_one_row_per_case(attentus, models, tmp_path):
    whole = tmp_path / "runs" / "cv"
    for name, quality in (("fold0", 0.9), ("fold0-seed1", 0.8)):
        model_folder(whole / name, quality, feature_scale=16)
    from attentus.train.farm.results import conclude

    runs = {name: whole / name for name in ("fold0", "fold0-seed1")}
    conclude(whole, make.recipe(), [], runs, {})
    (method,) = open_methods([str(whole)])
    one, other = scores(0.9), scores(0.8)
    assert method.scores.cases == CASES
    expected = (one.value("case_03", "core", "dice") + other.value("case_03", "core", "dice")) / 2
    assert method.scores.value("case_03", "core", "dice") == pytest.approx(expected)
    assert method.price.window == (16, 16, 16)
    assert (method.seconds["case_03"], method.hardware) == (5.0, ("a GPU",))
    assert attentus("compare", models[0], whole)[0] == 0
    assert attentus("compare", models[0], whole, whole / "scores.json")[0] == 2  # both are called cv


def test_names_come_from_folders(models, tmp_path, monkeypatch):
    monkeypatch.chdir(models[0])
    names = [method.name for method in open_methods([".", "../wide/scores.json", "third=../wide"])]
    assert names == ["ours", "wide", "third"]

"""The command line as a user meets it: exit codes, what is on stdout, what messages say."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import make
import numpy as np
import pytest

from attentus import io
from attentus.cli.main import app, run
from attentus.metrics import STANDARD
from attentus.types import Volume

FIGURES = (
    *("overlay", "heatmap", "surface", "histogram", "patches", "box", "curves", "prune"),
    *("bland-altman", "boxes", "pareto"),
)
COMMANDS = [
    *(
        ["demo"],
        ["data"],
        ["data", "check"],
        ["data", "show"],
        ["data", "phantom"],
        ["data", "import"],
        ["data", "fetch"],
    ),
    *(["recipe"], ["recipe", "list"], ["recipe", "show"], ["recipe", "copy"], ["recipe", "check"]),
    *(["nets"], ["nets", "list"], ["nets", "show"]),
    *(
        ["train"],
        ["predict"],
        ["explain"],
        ["audit"],
        ["prune"],
        ["score"],
        ["compare"],
        ["report"],
        ["reproduce"],
        ["figure"],
        *(["figure", kind] for kind in FIGURES),
        ["tune-postprocess"],
        ["export"],
        ["doctor"],
    ),
]


@pytest.fixture
def attentus(capsys):
    """Run a command line in this process: exit code, stdout, stderr."""

    def call(*arguments):
        code = run([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A dataset and a short run on it, made by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    make.dataset(folder / "data", cases=6)
    from attentus.recipes import dump

    (folder / "r.yaml").write_text(dump(make.recipe(train__steps=4, train__validate_every=4)))
    assert run(["train", str(folder / "r.yaml"), str(folder / "data"), "-o", str(folder / "runs" / "a")]) == 0
    return folder


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example(attentus, command):
    code, out, _ = attentus(*command, "--help")
    assert code == 0
    assert "Usage" in out
    if command[0] not in ("data", "recipe", "nets") or len(command) == 2:
        assert "Example: attentus" in re.sub(r"\s+", " ", out)


def test_help_lists_every_command(attentus):
    _, out, _ = attentus("--help")
    for name in {command[0] for command in COMMANDS}:
        assert re.search(rf"\b{name}\b", out)
    assert len(app.registered_commands) + len(app.registered_groups) == len({command[0] for command in COMMANDS})


def test_help_needs_nothing_that_takes_long_to_import():
    code = (
        "import sys, attentus.cli.main as m; assert m.run(['--help']) == 0;"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    heavy = {"torch", "numpy", "scipy", "pydantic", "matplotlib", "SimpleITK", "nibabel", "pydicom", "jinja2", "yaml"}
    assert not heavy & set(done.stderr.split())


def test_version(attentus):
    from attentus import __version__

    assert attentus("--version")[1].strip() == __version__


def test_a_wrong_command_is_code_2(attentus):
    code, _, err = attentus("tran")
    assert code == 2
    assert "tran" in err
    assert attentus("train")[0] == 2


def test_check_tells_findings_and_exit_codes(attentus, tmp_path):
    folder = make.dataset(tmp_path / "d", cases=4)
    code, out, _ = attentus("data", "check", folder)
    assert code == 0
    assert "0 error(s)" in out
    (folder / "imagesTr" / "case_01.nii.gz").write_bytes(b"")
    code, out, _ = attentus("data", "check", folder)
    assert code == 1
    assert "case_01: the file is empty" in out
    assert "Copy or download it again" in out
    code, out, _ = attentus("data", "check", folder, "--json")
    assert code == 1
    (finding,) = json.loads(out)["findings"]
    assert (finding["case"], finding["severity"]) == ("case_01", "error")
    code, _, err = attentus("data", "check", tmp_path / "nowhere")
    assert code == 2
    assert "Error: " in err
    assert "does not exist" in err


def test_show_prints_a_table_and_draws_a_picture(attentus, tmp_path):
    folder = make.dataset(tmp_path / "d", cases=3)
    code, out, _ = attentus("data", "show", folder, "--picture", tmp_path / "sheet.png")
    assert code == 0
    assert "3 cases, 3 labelled" in out
    assert "case_02" in out
    assert io.read(tmp_path / "sheet.png").array.std() > 1
    code, out, _ = attentus("data", "show", folder, "--json")
    shown = json.loads(out)
    assert shown["cases"][0]["case"] == "case_00"
    assert sorted(shown["cases"][0]["spacing_mm"]) == [1.0, 1.0, 2.0]
    assert attentus("data", "show", folder, "--picture", tmp_path / "sheet.png")[0] == 2  # nothing is overwritten


def test_phantom_makes_a_dataset(attentus, tmp_path):
    code, out, _ = attentus("data", "phantom", tmp_path / "p", "--cases", 2, "--coarse", 5)
    assert code == 0
    assert "2 abdomen phantom(s)" in out
    assert attentus("data", "check", tmp_path / "p")[0] == 0
    code, _, err = attentus("data", "phantom", tmp_path / "q", "--cases", 1, "--tumours", "ten")
    assert code == 2
    assert "as 10:60" in err
    code, _, err = attentus("data", "phantom", tmp_path / "p", "--cases", 2)
    assert code == 2
    assert str(tmp_path / "p") in err


def test_recipes_are_listed_shown_copied_and_checked(attentus, tmp_path):
    code, out, _ = attentus("recipe", "list")
    assert code == 0
    assert "hippocampus-attention-unet" in out
    assert "attention-unet" in json.loads(attentus("recipe", "list", "--json")[1])
    assert "# Labels" not in attentus("recipe", "show", "unet")[1]
    assert attentus("recipe", "show", "unet")[1].startswith("#")
    assert "validate_cases" in attentus("recipe", "show", "unet", "--full")[1]
    assert json.loads(attentus("recipe", "show", "unet", "--json", "--set", "train.steps=3")[1])["train"]["steps"] == 3
    mine = tmp_path / "mine.yaml"
    assert attentus("recipe", "copy", "unet", mine)[0] == 0
    assert attentus("recipe", "copy", "unet", mine)[0] == 2
    code, out, _ = attentus("recipe", "check", mine)
    assert code == 0
    assert "5,887,466 parameters" in out
    code, _, err = attentus("recipe", "check", mine, "--set", "train.lerning_rate=1")
    assert code == 2
    assert "Did you mean 'learning_rate'" in err
    assert attentus("recipe", "check", mine, "--set", "net.name=unnet")[0] == 2
    assert attentus("recipe", "check", mine, "--set", "net.options={presett: paper}")[0] == 2


def test_nets_are_listed_with_what_they_cost(attentus):
    code, out, _ = attentus("nets", "list", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0
    assert rows["anu-net"]["parameters"] == 8_950_594  # Table 6: 8.9506 M
    assert rows["anu-net"]["attention_modules"] == 20
    assert rows["attention-unet"] | {"presets": [], "options": {}} == {
        "name": "attention-unet",
        "paper": "Oktay 2018",
        "dims": [2, 3],
        "in_channels": 1,
        "out_channels": 4,
        "size": [96, 160, 160],
        "parameters": 6_407_018,
        "flops": 346_572_288_000,
        "attention_modules": 6,
        "presets": [],
        "options": {},
    }
    code, out, _ = attentus("nets", "list")
    assert code == 0
    assert "12,778,945" not in out
    assert "4,420,849" in out


def test_one_net_is_shown_with_its_attention(attentus):
    options = ["--preset", "brats", "--channels", "4", "--size", "64,64,64"]
    code, out, _ = attentus("nets", "show", "ra-unet", *options, "--json")
    facts = json.loads(out)
    assert code == 0
    assert facts["parameters"] == 12_778_945  # Table VIII: "12M"
    assert [place["size"][0] for place in facts["attention"]] == [4, 8, 16, 32]
    code, out, _ = attentus("nets", "show", "msconvlstm-att")
    assert code == 0
    assert "2,598,703 parameters, 82.68 GFLOP" in out
    assert "received" in out
    assert "channel" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["anu-nett"], "Did you mean 'anu-net'"),
        (["anu-net", "--size", "64"], "--size takes two or three positive numbers"),
        (["anu-net", "--preset", "l9"], "No preset is called 'l9'"),
        (["ra-unet", "--size", "40,40,40"], "pad it to [64, 64, 64]"),
        (["msconvlstm-att", "--dims", "3"], "is a 2D net"),
    ],
)
def test_nets_that_cannot_be_shown_are_explained(attentus, arguments, message):
    code, out, err = attentus("nets", "show", *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_training_prints_scores_and_goes_on_when_run_again(attentus, trained):
    code, out, err = attentus("train", trained / "r.yaml", trained / "data", "-o", trained / "runs" / "a")
    assert code == 0
    assert "core" in out
    assert "rules: empty default" in out
    code, out, _ = attentus("train", trained / "r.yaml", trained / "data", "-o", trained / "runs" / "a", "--json")
    assert set(json.loads(out)["dice"]) == {"core", "shell"}
    code, _, err = attentus("train", trained / "r.yaml", trained / "data", "-o", trained / "runs" / "a", "--fold", 1)
    assert code == 2
    assert "split.fold: 0 -> 1" in err


def test_a_case_left_out_is_exit_code_1(attentus, trained, tmp_path):
    folder = make.dataset(tmp_path / "d", cases=6)
    (folder / "imagesTr" / "case_03.nii.gz").write_bytes(b"")
    code, _, err = attentus("train", trained / "r.yaml", folder, "-o", tmp_path / "run", "--max-time", "1h")
    assert code == 1
    assert "failed: case_03" in err


def test_fine_tuning_tells_what_was_taken(attentus, trained, tmp_path):
    model = trained / "runs" / "a"
    code, _, err = attentus("train", trained / "r.yaml", trained / "data", "-o", tmp_path / "b", "--from", model)
    assert code == 0
    assert re.search(r"taken: \d+ of \d+ tensors, 100\.0% of the numbers", err)
    code, _, err = attentus(
        "train", trained / "r.yaml", trained / "data", "-o", tmp_path / "c", "--from", tmp_path / "none"
    )
    assert code == 2
    assert "is no model folder" in err


def test_folds_are_trained_and_scored_together(attentus, trained, tmp_path):
    code, out, _ = attentus("train", trained / "r.yaml", trained / "data", "-o", tmp_path / "cv", "--folds", "0,2")
    assert code == 0
    assert "made, 2 runs, 4 cases held back" in out
    assert {p.name for p in (tmp_path / "cv").iterdir()} >= {"fold0", "fold2", "scores.json", "scores.csv", "card.md"}
    again = ("train", trained / "r.yaml", trained / "data", "-o", tmp_path / "cv", "--folds", "0,2", "--json")
    code, out, _ = attentus(*again)
    assert set(json.loads(out)["runs"]) == {"fold0", "fold2"}
    code, _, err = attentus("train", trained / "r.yaml", trained / "data", "-o", tmp_path / "x", "--folds", "zero")
    assert code == 2
    assert "--folds is a list of whole numbers such as 0,1,2; got 'zero'" in err


def test_a_rehearsal_prints_a_verdict_and_keeps_nothing(attentus, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rehearsal = ("train", trained / "r.yaml", trained / "data", "--rehearse", "--max-time", "2s")
    code, out, _ = attentus(*rehearsal)
    assert re.search(r"verdict +(fits|learns|does not learn)", out)
    assert code == (1 if "does not learn" in out else 0)
    code, out, _ = attentus(*rehearsal, "--json")
    found = json.loads(out)
    assert set(found["dice"]) == {"core", "shell"}
    assert found["seconds_per_step"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_training_needs_a_place(attentus, trained):
    code, _, err = attentus("train", trained / "r.yaml", trained / "data")
    assert code == 2
    assert "Say where the run goes: -o RUN." in err


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--workers", 2], "--workers spreads several runs"), (["--folds", "all", "--devices", 2], "one device each")],
)
def test_options_that_do_not_go_together(attentus, trained, tmp_path, options, message):
    code, _, err = attentus("train", trained / "r.yaml", trained / "data", "-o", tmp_path / "x", *options)
    assert code == 2
    assert message in err


@pytest.mark.parametrize("text", ["soon", "20", "-5m", "", "1.2.3s"])
def test_durations_are_checked(attentus, trained, tmp_path, text):
    code, _, err = attentus("train", trained / "r.yaml", trained / "data", "-o", tmp_path / "x", "--max-time", text)
    assert code == 2
    assert "is no duration" in err


def test_durations():
    from attentus.cli.options import seconds

    assert [seconds(t) for t in ("90s", "20m", "1h30m", "0.5h", None)] == [90, 1200, 5400, 1800, None]


def test_predict_one_and_many(attentus, trained, tmp_path):
    model, images = trained / "runs" / "a", trained / "data" / "imagesTr"
    code, out, _ = attentus("predict", model, images / "case_00.nii.gz", "-o", tmp_path / "one.nrrd")
    assert code == 0
    assert "core" in out
    assert "ml" in out
    assert io.read_labels(tmp_path / "one.nrrd").grid == io.read_grid(images / "case_00.nii.gz")
    code, out, _ = attentus("predict", model, images, "-o", tmp_path / "many", "--json")
    assert code == 0
    assert len(json.loads(out)["scans"]) == 6
    assert json.loads((tmp_path / "many" / "labels.json").read_text())["labels"] == {"core": 1, "shell": 2}
    code, _, err = attentus("predict", model, images, "-o", tmp_path / "many")
    assert code == 1
    assert err.count("exists already") == 6
    assert err.count("(--resume)") == 6
    assert attentus("predict", model, images, "-o", tmp_path / "many", "--overwrite")[0] == 0


@pytest.mark.parametrize("scans", ["imagesTr", "imagesTr/case_00.nii.gz"])
def test_ctrl_c_is_told_and_how_to_go_on(attentus, trained, tmp_path, monkeypatch, scans):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("attentus.infer.cohort.predict_cohort", interrupted)
    many = scans == "imagesTr"
    result = tmp_path / ("many" if many else "one.nii.gz")
    code, out, err = attentus("predict", trained / "runs" / "a", trained / "data" / scans, "-o", result)
    assert (code, out) == (130, "")
    assert err.endswith("stopped\n")
    assert ("the same command with --resume" in err) == many


def test_predict_lists_what_failed(attentus, trained, tmp_path):
    volume, _ = make.case(1)
    io.write(volume, tmp_path / "in" / "good.nii.gz")
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"")
    model = trained / "runs" / "a"
    code, out, err = attentus("predict", model, tmp_path / "in", "-o", tmp_path / "out")
    assert code == 1
    assert "failed: bad" in err
    assert "good.nii.gz" in out
    assert attentus("predict", model, tmp_path / "in" / "bad.nii.gz", "-o", tmp_path / "out")[0] == 2
    assert attentus("predict", tmp_path, tmp_path / "in", "-o", tmp_path / "out")[0] == 2
    assert attentus("predict", model, tmp_path / "nowhere", "-o", tmp_path / "out")[0] == 2
    assert attentus("predict", model, tmp_path / "in", "-o", tmp_path / "out", "--weights", "worst")[0] == 2


def test_score_folders_against_a_dataset(attentus, trained, tmp_path):
    attentus("predict", trained / "runs" / "a", trained / "data" / "imagesTr", "-o", tmp_path / "p")
    for reference in (trained / "data", trained / "data" / "labelsTr"):
        code, out, _ = attentus("score", tmp_path / "p", reference, "-o", tmp_path / "s.csv", "--overwrite")
        assert code == 0
        assert "core" in out  # named by dataset.json
    assert (tmp_path / "s.csv").read_text().startswith("case,structure,dice")
    (tmp_path / "p" / "case_04.nii.gz").unlink()
    code, out, err = attentus("score", tmp_path / "p", trained / "data", "--json")
    assert code == 1
    assert "failed: case_04: there is no prediction" in err
    assert len(json.loads(out)["rows"]) == 5 * 2 * len(STANDARD)


def test_score_names_values_and_rules(attentus, tmp_path):
    array = np.zeros((1, 4, 6, 6), np.uint8)
    array[0, 1:3, 1:4, 1:4] = 3
    io.write(Volume.from_array(array), tmp_path / "a.nii.gz")
    array[0, 1, 1, 1] = 5
    io.write(Volume.from_array(array), tmp_path / "b.nii.gz")
    options = ["--label", "both=3+5", "--label", "any=any", "--label", "three=3", "--hd95", "pooled", "--json"]
    code, out, _ = attentus("score", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", *options)
    assert code == 0
    rows = {(r["structure"], r["metric"]): r["value"] for r in json.loads(out)["rows"]}
    assert rows["both", "dice"] == rows["any", "dice"] == 1
    assert rows["three", "dice"] == pytest.approx(2 * 17 / 35)
    assert json.loads(out)["rules"]["hd95"] == "pooled"
    for wrong in (
        ["--label", "x"],
        ["--label", "x=y"],
        ["--empty", "brat"],
        ["--spacing", "1,2"],
        ["--spacing", "1,1,1"],
    ):
        assert attentus("score", tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", *wrong)[0] == 2


def test_score_reproduces_the_chaos_sample(attentus):
    folder = make.real_data("chaos-ct-liver", "CT_SET_3")
    options = [
        "--stack",
        "--spacing",
        "2,0.7265625,0.7265625",
        "--label",
        "liver=any",
        "--border",
        "foreground",
        "--json",
    ]
    code, out, _ = attentus("score", folder / "Segmentation", folder / "Ground", *options)
    assert code == 0
    value = {row["metric"]: row["value"] for row in json.loads(out)["rows"]}
    assert value["dice"] == pytest.approx(0.978, abs=5e-4)
    assert 100 * value["ravd"] == pytest.approx(0.665, abs=1e-3)
    assert value["assd_mm"] == pytest.approx(0.734, abs=5e-4)
    assert value["hd_mm"] == pytest.approx(14.0, abs=0.05)


def test_report_is_written(attentus, trained, tmp_path):
    assert attentus("report", trained / "runs" / "a", "-o", tmp_path / "r.html")[0] == 0
    assert (tmp_path / "r.html").stat().st_size > 10_000
    assert attentus("report", trained / "runs" / "a", "-o", tmp_path / "r.html")[0] == 2
    assert attentus("report", tmp_path)[0] == 2


def test_doctor(attentus):
    code, out, _ = attentus("doctor")
    assert code == 0
    assert "All is well" in out
    assert json.loads(attentus("doctor", "--json")[1])["problem"] == ""


@pytest.mark.slow
def test_demo(attentus, tmp_path):
    code, out, _ = attentus("demo", "-o", tmp_path / "demo")
    assert code == 0
    assert (tmp_path / "demo" / "report.html").is_file()
    assert "liver" in out


@pytest.fixture(scope="module")
def nested(trained):
    """A short run of a nested net on the same data."""
    from attentus.recipes import dump

    recipe = make.recipe(net__name="anu-net", net__options={"preset": "tiny"}, train__steps=4)
    (trained / "nested.yaml").write_text(dump(recipe))
    assert run(["train", str(trained / "nested.yaml"), str(trained / "data"), "-o", str(trained / "runs" / "n")]) == 0
    return trained / "runs" / "n"


def test_pruning_from_end_to_end(attentus, trained, nested, tmp_path):
    code, out, _ = attentus("prune", nested)
    assert code == 0
    assert all(f"L{level}" in out for level in (1, 2, 3, 4))
    assert not list(tmp_path.iterdir())
    code, out, _ = attentus("prune", nested, "--level", 2, "-o", tmp_path / "l2")
    assert code == 0
    assert "(L2, " in out
    scans = trained / "data" / "imagesTr"
    assert attentus("predict", tmp_path / "l2", scans, "-o", tmp_path / "masks")[0] == 0
    assert len(list((tmp_path / "masks").glob("*.nii.gz"))) == 6
    assert attentus("score", tmp_path / "masks", trained / "data")[0] == 0
    assert attentus("report", tmp_path / "l2")[0] == 0
    assert attentus("prune", nested, "--level", 1, "-o", tmp_path / "l2")[0] == 2
    assert attentus("prune", nested, "--level", 1, "-o", tmp_path / "l2", "--overwrite")[0] == 0
    table, plot = tmp_path / "t.csv", tmp_path / "t.svg"
    more = ("--tolerance", 1, "--early-exit", 0.9, "--table", table, "--table", plot)
    code, out, _ = attentus("prune", nested, "--level", "auto", "--data", trained / "data", "-o", tmp_path / "a", *more)
    assert code == 0
    assert "L4, exit 0.9" in out
    assert "pooled dice" in out
    assert "1 thread" in out
    assert f"model: {tmp_path / 'a'} (L1, " in out
    assert len(table.read_text().splitlines()) == 6
    assert plot.is_file()
    told = json.loads(attentus("prune", nested, "--level", 3, "-o", tmp_path / "l3", "--json")[1])
    assert (told["chosen"], told["model"]) == (3, str(tmp_path / "l3"))
    assert [row["level"] for row in told["levels"]] == [1, 2, 3, 4]
    assert told["levels"][0]["dice"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--level", "2"], "-o OUT"),
        (["-o", "{out}"], "--level 2 -o OUT"),
        (["--level", "auto", "-o", "{out}"], "--level auto measures"),
        (["--table", "{out}.csv"], "--table measures"),
        (["--early-exit", "0.9"], "--early-exit measures"),
        (["--level", "5", "-o", "{out}"], "--level 5: the levels of this model are 1, 2, 3, 4, or auto"),
        (["--level", "two", "-o", "{out}"], "--level two: the levels"),
        (["--data", "{data}", "--table", "{out}.gif"], "writes .csv, .json, .svg or .png"),
    ],
)
def test_pruning_requests_that_say_too_little(attentus, nested, tmp_path, arguments, message):
    places = {"out": tmp_path / "out", "data": nested.parents[1] / "data"}
    code, _, err = attentus("prune", nested, *(a.format(**places) for a in arguments))
    assert code == 2
    assert message in re.sub(r"\s+", " ", err)
    assert not list(tmp_path.iterdir())


def test_a_net_that_cannot_be_pruned_is_told_so(attentus, trained):
    code, _, err = attentus("prune", trained / "runs" / "a")
    assert code == 2
    assert "'attention-unet' cannot be pruned" in err
    assert "anu-net and unet++" in err


def test_early_exit_is_told_per_scan(attentus, trained, nested, tmp_path):
    scan = trained / "data" / "imagesTr" / "case_00.nii.gz"
    code, out, _ = attentus("predict", nested, scan, "-o", tmp_path / "a.nii.gz", "--early-exit", 0.5)
    assert code == 0
    assert re.search(r"ml  level [234]\.\d$", out.strip())
    code, out, _ = attentus("predict", nested, scan, "-o", tmp_path / "b.nii.gz", "--early-exit", 0.5, "--json")
    assert 2 <= json.loads(out)["scans"]["case_00"]["level"] <= 4
    code, _, err = attentus("predict", trained / "runs" / "a", scan, "-o", tmp_path / "c.nii.gz", "--early-exit", 0.9)
    assert code == 2
    assert "infer.early_exit" in err


def test_predict_tells_what_it_will_take_and_writes_nothing(attentus, trained, tmp_path):
    images, out = trained / "data" / "imagesTr", tmp_path / "p"
    code, text, _ = attentus("predict", trained / "runs" / "a", images, "-o", out, "--dry-run")
    assert code == 0
    assert len(re.findall(r"case_\d+.*windows, about .*GiB", text)) == 6
    assert not out.exists()
    code, text, _ = attentus("predict", trained / "runs" / "a", images, "-o", out, "--dry-run", "--json")
    facts = json.loads(text)["case_00"]
    assert facts["most"] == facts["least"] + facts["sums"] > 0


@pytest.mark.parametrize("speed", ["balanced", "fast"])
def test_predict_at_a_level_of_speed_with_a_limit(attentus, trained, tmp_path, speed):
    scan = trained / "data" / "imagesTr" / "case_00_0000.nii.gz"
    scan = scan if scan.exists() else min((trained / "data" / "imagesTr").iterdir())
    code, _, _ = attentus("predict", trained / "runs" / "a", scan, "-o", tmp_path / "a.nii.gz", "--speed", speed)
    assert code == 0
    code, _, err = attentus("predict", trained / "runs" / "a", scan, "-o", tmp_path / "b.nii.gz", "--max-ram", "1M")
    assert code == 2
    assert "the limit is 0.0 GiB" in err
    code, _, err = attentus("predict", trained / "runs" / "a", scan, "-o", tmp_path / "b.nii.gz", "--max-ram", "lots")
    assert code == 2
    assert "such as 4G" in err
    code, _, _ = attentus("predict", trained / "runs" / "a", scan, "-o", tmp_path / "b.nii.gz", "--max-ram", "60G")
    assert code == 0


def test_a_single_scan_that_fails_is_explained(attentus, trained, tmp_path):
    (tmp_path / "empty.nii.gz").write_bytes(b"")
    code, _, err = attentus("predict", trained / "runs" / "a", tmp_path / "empty.nii.gz", "-o", tmp_path / "o.nii.gz")
    assert code == 2
    assert "empty.nii.gz: the file is empty" in err

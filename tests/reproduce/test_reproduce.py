"""From a paper's name to its tables: unattended, resumed, with a run that fails, and what is written."""

from __future__ import annotations

import csv
import json
import math
import re
from pathlib import Path

import make
import pytest

from attentus.cli.main import run
from attentus.errors import BadFile, BadInput
from attentus.reproduce import Request, Wish, adapt, load_paper, make_plan, papers, reproduce
from attentus.reproduce import work as work_module
from attentus.reproduce.paper import Column, Published
from attentus.reproduce.results import Cell, fill
from attentus.reproduce.work import Done
from attentus.types import Score, Scores

SECONDS = 0.03  # minutes; every training ends at its first look at the clock


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make.dataset(tmp_path_factory.mktemp("data") / "made", cases=9)


@pytest.fixture(scope="module")
def pruned(data, tmp_path_factory):
    """Table 6 of ANU-Net on made-up cases: one training and three levels of it."""
    out = tmp_path_factory.mktemp("out") / "anu-net"
    asked = Request({"": data}, {"liver": "core", "cancer": "shell"}, 24, 3.0)
    return reproduce("anu-net", out, asked, Wish(("6",), SECONDS, "auto", 1)), asked


def test_a_table_is_filled_from_start_to_end(pruned):
    found, _ = pruned
    assert found.failed == {}
    (table,) = found.tables
    assert [line.state for line in table.lines] == ["measured"] * 4
    parameters = [line.cells[1].value for line in table.lines]
    assert parameters == pytest.approx([0.103812, 0.513387, 2.191829, 8.950594])
    for line in table.lines:
        assert line.cells[0].value > 0  # seconds of forward passes
        assert line.cells[2].n == 2  # a sixth of nine cases, rounded up
        assert line.cells[2].difference == pytest.approx(line.cells[2].value - line.cells[2].published.value)
    assert [line.cells[2].test is None for line in table.lines] == [False, False, False, True]
    assert table.tests == 6


def test_everything_is_written_and_names_no_place(pruned, data):
    found, _ = pruned
    with (found.folder / "tables" / "table-6.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert {row["published"] for row in rows if row["column"] == "Parameters (M)"} >= {"0.1038", "8.9506"}
    whole = json.loads((found.folder / "reproduction.json").read_text())
    assert whole["results"][0]["rows"][3]["cells"][1]["ours"] == pytest.approx(8.950594)
    text = (found.folder / "tables" / "table-6.md").read_text()
    assert "published 98.0042" in text
    page = (found.folder / "index.html").read_text()
    assert all(count > 0 for count in json.loads((found.folder / "scores" / "lits-anu-net.json").read_text())["steps"])
    assert any(line.startswith("Trainings came to") for line in whole["differs"])
    for needed in (
        "How this was measured",
        "Table 6",
        "published 98.0042",
        "What differs from the paper",
        "Fig. 13",
        "<svg",
        "shell",
    ):
        assert needed in page
    assert "Fig. 9" not in page  # of a table that was not asked for
    assert not re.search(r"(src|href)=\"(https?:|//)", page)
    for file in ("index.html", "reproduction.json", "differs.md"):
        assert str(data.parent) not in (found.folder / file).read_text()


def test_the_same_command_again_keeps_what_is_done(pruned, monkeypatch):
    found, asked = pruned
    before = {file: file.stat().st_mtime_ns for file in (found.folder / "runs").rglob("*") if file.is_file()}
    monkeypatch.setattr(work_module, "fit_many", lambda *a, **k: pytest.fail("trained again"))
    again = reproduce("anu-net", found.folder, asked, Wish(("6",), SECONDS, "auto", 1))
    assert {file: file.stat().st_mtime_ns for file in before} == before
    assert again.tables == found.tables


def test_another_reproduction_in_the_same_folder_is_refused(pruned, tmp_path):
    found, asked = pruned
    with pytest.raises(BadInput, match=r"holds another reproduction:\n  minutes: 0.03 -> 5.0"):
        reproduce("anu-net", found.folder, asked, Wish(("6",), 5.0, "auto", 1))
    (tmp_path / "mine.txt").write_text("kept")
    with pytest.raises(BadFile, match="holds no reproduction"):
        reproduce("anu-net", tmp_path, asked, Wish(("6",), SECONDS, "auto", 1))


def test_a_training_that_was_stopped_goes_on(data, tmp_path, monkeypatch):
    monkeypatch.setattr(adapt, "NEVER", 4)  # steps, so that no clock decides
    asked = Request({"": data}, {"pancreas": "core"}, 24, 3.0)
    wish = Wish(("4",), 10.0, "small", 1)
    with pytest.raises(KeyboardInterrupt):
        reproduce("attention-unet", tmp_path / "out", asked, wish, make.Watcher(stop_at=2))
    assert not (tmp_path / "out" / "scores").exists()
    watcher = make.Watcher()
    found = reproduce("attention-unet", tmp_path / "out", asked, wish, watcher)
    assert any(line.startswith("going on from step") for line in watcher.said)
    assert found.failed == {}


def test_a_run_that_fails_is_listed_and_the_others_go_on(data, tmp_path, monkeypatch, capsys):
    usual = work_module.fit_many

    def failing(recipe, *arguments, **options):
        if recipe.name.endswith("@unet"):
            raise BadInput("no memory left")
        if recipe.name.endswith("@fcn"):
            raise ZeroDivisionError("a bug")
        return usual(recipe, *arguments, **options)

    monkeypatch.setattr(work_module, "fit_many", failing)
    out, names = tmp_path / "out", ["edema=core", "enhancing tumour=shell"]
    call = ["reproduce", "msconvlstm-att", "--data", str(data), "-o", str(out), "--budget", str(4 * SECONDS)]
    call += [part for name in names for part in ("--structure", name)]
    assert run(call) == 1
    assert "failed: unet: no memory left" in capsys.readouterr().err
    states = {row["name"]: row["state"] for row in json.loads((out / "tables" / "table-I.json").read_text())["rows"]}
    assert states == {"U-Net": "failed", "Att-UNet": "measured", "FCN": "failed", "ours": "measured"}
    assert "a bug" in (out / "runs" / "fcn.error.txt").read_text()
    page = (out / "index.html").read_text()
    assert "no memory left" in page
    assert "2 runs not done" in page
    monkeypatch.setattr(work_module, "fit_many", usual)
    assert run([*call, "--json"]) == 0  # what failed is tried again
    shown = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in shown["results"][0]["rows"]] == ["measured"] * 4


def test_a_plan_is_told_and_writes_nothing(data, tmp_path, capsys):
    out = tmp_path / "out"
    call = ["reproduce", "dpc-net", "-o", str(out), "--tables", "2,3", "--budget", "16", "--dry-run"]
    assert run(call) == 0
    text = capsys.readouterr().out
    assert "dpc-net-lits@spacor-semcor" in text
    assert "8 runs, 8 trainings, 16 min 00 s of training" in text
    assert run([*call, "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["minutes_per_method"] == 2.0
    assert {entry["run"]: entry["tables"] for entry in plan["runs"]}["spacor-semcor"] == ["2", "3"]
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["anu"], "No paper is called 'anu'"),
        (["anu-net", "--tables", "9"], "No table of the paper 'anu-net' is called '9'"),
        (["anu-net", "--budget", "0"], "--budget is a number of minutes above 0"),
        (["anu-net", "--structure", "liver"], "--structure is NAME=LABEL"),
        (["anu-net", "--data", "nowhere"], "does not exist"),
    ],
)
def test_requests_that_make_no_sense_are_code_2(arguments, complaint, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(["reproduce", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_our_number_stands_in_the_papers_unit_with_difference_test_and_order():
    """DPC-Net's Table 3 by hand: three methods, four cases."""
    paper = load_paper("dpc-net")
    the_plan = make_plan(paper, Request({}, {}, 24, 3.0), Wish(("3",), 1.0, "small", 1), Path("nowhere"), None)
    dice = {"cross-entropy": (0.5, 0.6, 0.7, 0.4), "dice": (0.6, 0.7, 0.8, 0.5), "spacor-semcor": (0.7, 0.9, 0.8, 0.8)}

    def done(key):
        rows = [Score(f"c{k}", "tumour", "dice", value, "") for k, value in enumerate(dice[key])]
        rows.append(Score("c0", "tumour", "assd_mm", math.inf, "mm"))
        return Done(key, None, Scores(tuple(rows), {"empty": "default"}), None, (), (), None)

    found = fill("3", the_plan, {key: done(key) for key in dice}, {})
    first, _, method = (line.cells for line in found.lines)
    assert first[0].value == pytest.approx(55.0)
    assert first[0].sd == pytest.approx(12.9099, abs=1e-4)
    assert first[0].difference == pytest.approx(55.0 - 55.56)
    assert first[0].test.difference == pytest.approx(-25.0)  # in percent, against the last row
    assert first[0].test.p == pytest.approx(0.0305, abs=1e-4)  # t = -3.873 with 3 degrees of freedom
    assert first[0].test.p_holm == pytest.approx(2 * first[0].test.p)
    assert method[0].test is None
    assert (first[1].n, first[1].left_out) == (0, 1)
    assert math.isnan(first[1].value)
    assert first[2].note == "not segmented"
    assert found.order[0] == pytest.approx(1.0)  # 55, 65, 80 as 55.56, 57.65, 58.76
    assert found.order[1] is None


def test_words_have_the_digits_of_the_column():
    from attentus.reproduce.files import in_words

    column = Column(name="RVD", structure="liver", metric="rvd", digits=2)
    cell = Cell(column, Published.model_validate("-0.06 ± 1.05"), value=-0.0612, mean=-0.0612, sd=0.5, n=3, left_out=1)
    words = in_words(cell)
    assert (words.ours, words.spread, words.printed, words.off) == ("−0.06", "± 0.50 (3 of 4)", "−0.06 ± 1.05", "0.00")


@pytest.mark.slow
@pytest.mark.parametrize("paper", papers())
def test_every_paper_runs_on_phantoms_unattended(paper, tmp_path):
    minutes = 0.02 * len(load_paper(paper).runs)
    found = reproduce(paper, tmp_path / "out", Request({}, {}, 10, 5.0), Wish((), minutes, "small", 1))
    assert found.failed == {}
    for table in found.tables:
        for line in table.lines:
            assert line.state == ("measured" if line.row.run else "published only")
            assert line.row.run is None or any(cell.n or cell.column.cost for cell in line.cells)
    assert (found.folder / "index.html").is_file()

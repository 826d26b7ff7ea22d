"""The papers' files are complete, say what was printed, and name what can be built."""

from __future__ import annotations

from pathlib import Path

import pytest

from attentus.errors import UnknownName
from attentus.recipes import Recipe
from attentus.reproduce import Request, Wish, load_paper, make_plan, papers
from attentus.reproduce.figures import KINDS
from attentus.reproduce.paper import MEAN, Paper, Published

TABLES = {
    "anu-net": ["2", "3", "4", "5", "6"],
    "attention-unet": ["1", "2", "3", "4"],
    "dpc-net": ["1", "2", "3", "4", "5"],
    "msconvlstm-att": ["I"],
    "ra-unet": ["IV", "V", "VI", "VII", "IX"],
}
GOLDEN = [  # paper, table, row, column, printed
    ("anu-net", "2", "U-Net", "Dice (%)", "94.45"),
    ("anu-net", "2", "ANU-Net", "Recall", "0.9931"),
    ("anu-net", "3", "R2U-Net", "IoU (%)", "81.50"),
    ("anu-net", "4", "Attention R2U-Net", "Dice (%)", "93.24"),
    ("anu-net", "5", "Attention UNet", "Recall", "0.8209"),
    ("anu-net", "6", "L3", "Parameters (M)", "2.1918"),
    ("anu-net", "6", "L1", "Predict time of 2000 slices (s)", "5.3795"),
    ("attention-unet", "1", "Att U-Net (120/30)", "Pancreas DSC", "0.840 ± 0.087"),
    ("attention-unet", "1", "U-Net (30/120)", "Pancreas S2S (mm)", "3.765 ± 3.452"),
    ("attention-unet", "2", "U-Net (120/30), 10.40 M", "# of pars (M)", "10.40"),
    ("attention-unet", "3", "BFT, Attention U-Net", "S2S dist (mm)", "5.251 ± 2.551"),
    ("attention-unet", "3", "AFT, U-Net", "Dice score", "0.820 ± 0.043"),
    ("attention-unet", "4", "Attention U-Net, 5-fold (section 3)", "Pancreas DSC (%)", "81.48 ± 6.23"),
    ("dpc-net", "1", "+ SpaCor, max", "Liver ASSD [mm]", "3.61 ± 4.45"),
    ("dpc-net", "2", "DPC-Net, SpaCor, SemCor and PFE", "Tumor DSC [%]", "65.03 ± 26.85"),
    ("dpc-net", "3", "DPC-Net, CE", "Tumor DSC [%]", "55.56 ± 29.75"),
    ("dpc-net", "4", "DPC-Net (SemCor-first)", "RVD", "−0.06 ± 1.05"),
    ("dpc-net", "4", "AG", "Para. (M)", "+1.02"),
    ("dpc-net", "5", "DPC-Net", "Recall at 50 % overlap", "0.424"),
    ("msconvlstm-att", "I", "Att-UNet", "TC", "0.845"),
    ("msconvlstm-att", "I", "ours", "Mean", "0.7987"),
    ("ra-unet", "IV", "RA-UNet, 3D-IRCADb", "MSD (mm)", "18.617"),
    ("ra-unet", "V", "RA-UNet, LiTS", "RVD", "−0.152"),
    ("ra-unet", "VI", "Proposed method", "Tumor DG", "0.795"),
    ("ra-unet", "VII", "U-Net", "Liver DC", "0.729"),
    ("ra-unet", "IX", "2018, RA-UNet", "Hausdorff95 (mm)", "5.8718"),
]
PARAMETERS = {  # paper, table, column: what is printed follows from our nets
    ("anu-net", "6", "Parameters (M)"): 5e-5,
    ("attention-unet", "1", "Parameters (M)"): 1e-2,  # truncated
    ("attention-unet", "2", "# of pars (M)"): 1e-2,
    ("dpc-net", "4", "Para. (M)"): 5.1e-3,
}


def the_plan(paper, scale="full", minutes=None):
    return make_plan(load_paper(paper), Request({}, {}, 24, 3.0), Wish((), minutes, scale, 1), Path("nowhere"), None)


@pytest.fixture(scope="module", params=sorted(TABLES))
def full(request):
    return the_plan(request.param)


def test_all_five_papers_are_there_with_all_their_tables_of_results():
    assert papers() == sorted(TABLES)
    for name, numbers in TABLES.items():
        assert list(load_paper(name).tables) == numbers


@pytest.mark.parametrize(("paper", "table", "row", "column", "printed"), GOLDEN)
def test_published_numbers_are_those_of_the_paper(paper, table, row, column, printed):
    found = load_paper(paper).tables[table]
    place = [c.name for c in found.columns].index(column)
    (line,) = [line for line in found.rows if line.name == row]
    assert line.published[place].text == printed


def test_every_printed_dice_of_anu_net_follows_from_its_iou_but_one():
    """Which they do only if counts were pooled; 98.15 is the slip that the notes name."""
    off = []
    for number in "2345":
        for row in load_paper("anu-net").tables[number].rows:
            iou, dice = (cell.value / 100 for cell in row.published[:2])
            off += [row.name] if abs(2 * iou / (1 + iou) - dice) > 1.5e-3 else []
    assert off == ["ANU-Net"]


def test_every_run_can_be_built_for_its_phantoms_and_serves_a_table(full):
    assert [step.why for step in full.steps] == [""] * len(full.paper.runs)
    assert all(step.tables or any(step.key in s.run.needs for s in full.steps) for step in full.steps)


def test_parameters_beside_the_published_ones_are_exact(full):
    for number, table in full.tables.items():
        for place, column in enumerate(table.columns):
            if column.cost != "parameters":
                continue
            least = PARAMETERS[full.paper.name, number, column.name]
            base = full.step(table.rows[0].run).parameters
            for row in table.rows:
                printed = row.published[place]
                ours = full.step(row.run).parameters - (base if printed.more else 0)
                assert ours * column.factor == pytest.approx(printed.value, abs=least), (number, row.name)


def test_structures_of_columns_are_scored_and_figures_can_be_drawn(full):
    for table in full.tables.values():
        for row in (row for row in table.rows if row.run):
            step = full.step(row.run)
            scored = full.paper.sources[step.run.data].scores
            known = {s.name for s in step.published.labels} if isinstance(step.published, Recipe) else set()
            known |= set(scored) if isinstance(step.published, Recipe) else set(step.published.answer)
            assert {c.structure for c in table.columns if c.structure} & {*known, MEAN}
    assert {figure.kind for figure in full.paper.figures.values()} <= {*KINDS, None}


def test_tested_rows_share_their_cases_with_what_they_are_tested_against(full):
    """Same source, and same split: a paired test needs the same cases."""

    def judged(step):
        like = step.run.applied and step.run.applied.like
        seen = full.step(like) if like else step
        return seen.run.data, None if seen.run.applied else seen.published.split

    for table in full.tables.values():
        for row in (row for row in table.rows if row.run and (row.against or table.method)):
            assert judged(full.step(row.run)) == judged(full.step(row.against or table.method)), row.name


@pytest.mark.parametrize(
    ("text", "value", "sd", "more"),
    [
        (94.45, 94.45, None, False),
        ("51.66 ± 30.29", 51.66, 30.29, False),
        ("+1.02", 1.02, None, True),
        ("-0.05 ± 1.09", -0.05, 1.09, False),
        ("0.821 ± .119", 0.821, 0.119, False),
    ],
)
def test_printed_numbers_are_read(text, value, sd, more):
    found = Published.model_validate(text)
    assert (found.value, found.sd, found.more) == (value, sd, more)


@pytest.mark.parametrize("text", ["", "many", "1 ± ", "94,45"])
def test_what_is_no_printed_number_is_refused(text):
    with pytest.raises(ValueError, match="no printed number"):
        Published.model_validate(text)


def tree(**changes):
    whole = {
        "name": "made",
        "title": "Made",
        "cite": "nobody",
        "method": "a",
        "sources": {"data": {"title": "Data", "parts": {"liver": []}, "phantom": "abdomen"}},
        "runs": {"a": {"data": "data", "recipe": "anu-net-lits"}},
        "tables": {},
    }
    return {**whole, **changes}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"method": "b"}, "no run 'b'"),
        ({"runs": {"a": {"data": "other", "recipe": "anu-net-lits"}}}, "no source 'other'"),
        ({"runs": {"a": {"data": "data"}}}, "one of recipe, level and applied"),
        ({"runs": {"a": {"data": "data", "recipe": "x", "start": "a"}}}, "need each other: a -> a"),
        (
            {"tables": {"1": {"title": "t", "columns": [], "rows": [{"name": "r", "published": []}]}}},
            "has a run, or says why",
        ),
        (
            {"tables": {"1": {"title": "t", "columns": [], "rows": [{"name": "r", "run": "a", "published": [1]}]}}},
            "1 numbers for 0 columns",
        ),
        ({"tables": {"1": {"title": "t", "columns": [{"name": "c"}], "rows": []}}}, "has a metric"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        Paper.model_validate(tree(**changes))


def test_unknown_names_are_answered_with_known_ones():
    with pytest.raises(UnknownName, match="Did you mean 'anu-net'"):
        load_paper("anunet")
    with pytest.raises(UnknownName, match=r"No table of the paper 'anu-net' is called '7'"):
        load_paper("anu-net").tables_named(["7"])


def test_the_minutes_are_shared_out_equally_among_methods_and_stages():
    plan = the_plan("ra-unet", "small", 12.0)
    assert plan.minutes == pytest.approx(4.0)  # cascade, U-Net, net for brains
    each = {step.key: step.seconds for step in plan.steps}
    assert each["lits-cascade"] == pytest.approx(80.0)  # of each of three stages
    assert each["lits-unet-2d"] == each["brats"] == pytest.approx(240.0)
    assert each["ircadb-cascade"] is None  # nothing is trained
    total = sum((step.seconds or 0) * step.trainings for step in plan.steps)
    assert total == pytest.approx(720)


def test_folds_share_the_time_of_their_method():
    paper, asked = load_paper("dpc-net"), Request({}, {}, 24, 3.0)
    plan = make_plan(paper, asked, Wish(("3",), 12.0, "small", 9), Path("nowhere"), None)
    assert [step.folds for step in plan.steps] == [(0, 1, 2, 3)] * 3  # the paper has four
    assert [step.seconds for step in plan.steps] == [60.0] * 3
    assert not any(line.startswith("Where the paper has folds") for line in plan.differs())
    one = make_plan(paper, asked, Wish(("3",), 12.0, "small", 1), Path("nowhere"), None)
    assert any(line.startswith("Where the paper has folds, one fold is trained") for line in one.differs())


def test_the_scale_follows_the_minutes_per_method():
    assert the_plan("msconvlstm-att", "auto", 4 * 119.0).scale == "small"
    assert the_plan("msconvlstm-att", "auto", 4 * 120.0).scale == "full"
    assert the_plan("msconvlstm-att", "auto", None).scale == "full"


def test_small_nets_are_small_and_keep_their_order_of_size(full):
    from attentus.train.fitting import check_buildable

    small = the_plan(full.paper.name, "small", 5.0)
    for step in small.steps:
        if isinstance(step.recipe, Recipe):
            assert check_buildable(step.recipe) < check_buildable(full.step(step.key).recipe) / 3, step.key
            assert max(step.recipe.train.patch) <= 96
    if full.paper.name == "attention-unet":
        counts = [check_buildable(small.step(f"ct150-{n}").recipe) for n in ("unet", "unet-capacity", "unet-huge")]
        assert counts == sorted(counts)

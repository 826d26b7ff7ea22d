import json
import math
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

from attentus import io
from attentus.errors import BadFile
from attentus.io.atomic import write_text
from attentus.metrics import METRICS, PRESETS, Rules, pooled, to_json
from attentus.metrics.pair import DETECTION
from attentus.metrics.pooled import POOLED
from attentus.metrics.presets import COUNTS
from attentus.metrics.scoring import score_volumes
from attentus.metrics.statistics import bootstrap_interval
from attentus.progress import Silent
from attentus.recipes import Recipe, dump
from attentus.report.cases import choose
from attentus.report.html import write_report
from attentus.report.plot import spread, ticks
from attentus.report.run import Run
from attentus.report.tables import case_table, heading, overall_dice, rules_in_words, shown, summary_table
from attentus.types import Score, Scores, Volume

VOID = {"meta", "input", "path", "circle", "image", "rect", "br", "link"}
CASES = [f"case_{number}" for number in range(5)]


class Page(HTMLParser):
    """What tests ask of a page: closed tags, ids, text, table cells."""

    def __init__(self, html):
        super().__init__()
        self.open, self.ids, self.tags, self.words, self.values = [], [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.values += [float(value) for name, value in attrs if name == "data-value"]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def labels_of(case, shift=0):
    """A kidney (value 1) and a tumour (value 5), as reference or moved by some voxels; case_3 has no tumour."""
    array = np.zeros((1, 10, 24, 24), np.uint8)
    array[0, 2:8, 4 + shift : 14 + shift, 5:15] = 1
    if case != "case_3":
        array[0, 4:6, 6 + shift : 9 + shift, 7:10] = 5
    return Volume.from_array(array, (3.0, 1.0, 1.0))


@pytest.fixture
def run(tmp_path):
    """A finished run of five held-back cases, made without training; the tumour of case_4 is missed."""
    data, folder = tmp_path / "secret place" / "kidneys", tmp_path / "secret place" / "runs" / "a"
    rng = np.random.default_rng(0)
    rows = []
    for number, case in enumerate(CASES):
        truth, found = labels_of(case), labels_of(case, shift=number)
        if case == "case_4":
            found = found.like(found.array * (found.array != 5))
        image = rng.normal(100, 20, (1, 10, 24, 24)).astype(np.float32) + 50 * truth.array
        io.write(truth.like(image), data / "images" / f"{case}.nii.gz")
        io.write(truth, data / "labels" / f"{case}.nii.gz")
        io.write(found, folder / "validation" / f"{case}.nii.gz")
        rows += score_volumes(case, found, truth, {"kidney": 1, "tumour": 5}, PRESETS["default"])
    scores = Scores(tuple(rows), Rules().describe(), {"case_9": f"{data}/images/case_9.nii.gz: is empty\n  Copy it."})
    tree = {"name": "kidneys", "net": {"name": "unet"}, "train": {"patch": [8, 8, 8], "steps": 30}}
    recipe = Recipe.model_validate({**tree, "labels": ["kidney", "tumour"], "channels": ["MRI"]})
    named = [s.model_copy(update={"parts": (s.name,), "value": v}) for s, v in zip(recipe.labels, (1, 5), strict=True)]
    write_text(folder / "recipe.yaml", dump(recipe.model_copy(update={"labels": tuple(named)})))
    write_text(folder / "scores.json", to_json(scores))
    left_out = {"case_8": f"{data}/images/case_8.nii.gz: the file is damaged"}
    facts = {"dataset": "Kidneys", "root": str(data), "labels": {"kidney": 1, "tumour": 5}, "left out": left_out}
    facts |= {"train": {"case_7": "x"}, "validation": dict.fromkeys(CASES, "x")}
    write_text(folder / "data.json", json.dumps(facts))
    write_text(folder / "metrics.jsonl", "".join(f"{json.dumps(line)}\n" for line in log()))
    write_text(folder / "environment.json", json.dumps({"python": "3.11.7", "torch": "2.13.0"}))
    write_text(folder / "card.md", "# kidneys\n\n- Parameters: 6,406,745\n- Net: unet\n")
    return folder


def log():
    for step in range(1, 31):
        yield {"kind": "step", "step": step, "loss": 2 / step, "lr": 1e-3, "wait": 0.1, "seconds": 0.4}
        if step % 10 == 0:
            dice = {"dice kidney": 0.5 + step / 100, "dice tumour": math.nan}
            yield {"kind": "validation", "step": step, "mean": {10: 0.6, 20: 0.9, 30: 0.8}[step], **dice}


def report(run, **options):
    out = write_report(run, run / "report.html", overwrite=True, progress=Silent(), **options)
    return out.read_text(encoding="utf-8")


def cases_of(html):
    """The section with the drawn cases."""
    return html.split('<section id="cases"')[1].split("</section>")[0]


def change(file, **entries):
    write_text(file, json.dumps({**json.loads(file.read_text(encoding="utf-8")), **entries}))


def test_the_page_is_well_formed_and_needs_nothing_from_outside(run):
    html = report(run)
    page = Page(html)
    assert not page.open
    assert len(page.ids) == len(set(page.ids))
    assert "http" not in html
    targets = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("src", "href")]
    assert all(target.startswith(("#", "data:image/")) for target in targets)
    assert {target[1:] for target in targets if target.startswith("#")} <= set(page.ids)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    drawn = [attrs for tag, attrs in page.tags if tag == "svg" and "aria-hidden" not in attrs]
    assert drawn
    assert all(attrs["role"] == "img" and attrs["aria-label"] for attrs in drawn)
    assert {"main", "header", "footer", "nav"} <= {tag for tag, _ in page.tags}


def test_no_place_on_this_machine_is_named(run, tmp_path):
    html = report(run)
    assert str(tmp_path) not in html
    assert "secret" not in html
    assert str(tmp_path.parent.name) not in html


def test_numbers_are_those_of_the_scores(run):
    page = Page(report(run))
    scores = Run.open(run).scores
    for case in CASES:
        assert case in page.text
        for structure in ("kidney", "tumour"):
            assert any(v == scores.value(case, structure, "dice") for v in page.values)
    assert f"Mean Dice {overall_dice(scores):.3f}, averaged over 2 structures, on 5 cases" in page.text
    assert f"{scores.mean('dice', 'kidney'):.3f}" in page.text
    low, high, *_ = bootstrap_interval([row.value for row in scores.select(structure="kidney", metric="dice")])
    assert f"{low:.3f} to {high:.3f}" in page.text
    assert "6.41 million" in page.text
    assert "12 s" in page.text  # 30 steps of 0.4 s
    assert "waiting for data, 25.0 %" in page.text
    assert "step 20, mean Dice 0.900" in page.text  # the best, not the last


def test_infinite_distances_are_counted_not_averaged(run):
    scores = Run.open(run).scores
    tumour = next(row for row in summary_table(scores) if row.name == "tumour")
    distances = tumour.cells[5]
    assert distances.left_out == "1 infinite"
    assert "∞" not in distances.mean
    assert (tumour.found.missed, tumour.found.absent) == (1, 1)
    page = Page(report(run))
    assert "1 infinite" in page.text
    assert "∞ × 1" in page.text
    assert "tumour missed" in page.text
    assert "tumour absent" in page.text
    assert "Dice 0, distances infinite" in page.text


def test_whatever_was_measured_is_shown(run):
    """Scores by another preset: lesions, pooled numbers, no volumes and no distances."""
    how = PRESETS["ra-unet"].but(metrics=("dice", "ravd", "nsd@2mm", *COUNTS, *DETECTION), lesions=["tumour"])
    rows = []
    for number, case in enumerate(CASES):
        rows += score_volumes(case, labels_of(case, shift=number), labels_of(case), {"kidney": 1, "tumour": 5}, how)
    write_text(run / "scores.json", to_json(Scores(tuple(rows), how.describe())))
    text = Page(report(run)).text
    for words in ("RAVD", "NSD at 2 mm", "Lesion precision", "Lesions touched", "All cases together", "Dice, global"):
        assert words in text
    assert f"{pooled(Scores(tuple(rows), {}))[0].value:.3f}" in text
    assert "are merged before they are matched" in text
    assert "exceeds 0.5" in text
    assert "Volumes" not in text
    assert "HD95" not in text.split("How this was measured")[0]
    no_dice = Scores(tuple(row for row in rows if row.metric != "dice"), {})
    write_text(run / "scores.json", to_json(no_dice))
    assert "there is no Dice" in Page(report(run)).text


def test_every_metric_has_a_heading_and_every_rule_its_words():
    names = {heading(metric) for metric in (*METRICS, *POOLED)}
    assert len(names) == len(METRICS) + len(POOLED)
    assert not any("_" in name for name in names)
    for preset in PRESETS.values():
        sentences = rules_in_words({**preset.rules.describe(), "not scored": "spleen", "resampled": "1 of 2"})
        assert not any(re.match(r"\w+: ", sentence) for sentence in sentences)


def test_best_median_and_worst_are_drawn_in_three_planes(run):
    html = cases_of(report(run))
    assert choose(Run.open(run).scores) == {"case_0": "Best", "case_1": "Median", "case_4": "Worst"}
    assert html.count('<svg class="picture"') == 9
    assert html.count("data:image/") == 9
    assert 'class="missed"' in html


@pytest.mark.parametrize(
    ("count", "roles"), [(1, ["Only case"]), (2, ["Best", "Worst"]), (3, ["Best", "Median", "Worst"])]
)
def test_few_cases_get_fewer_roles(count, roles):
    scores = Scores(tuple(Score(f"c{k}", "s", "dice", k / 10, "") for k in range(count)), {})
    assert list(choose(scores).values()) == roles
    assert next(iter(choose(scores))) == f"c{count - 1}"


def test_cases_without_any_dice_are_not_chosen():
    values = {("a", "s"): math.nan, ("b", "s"): 0.5, ("b", "t"): math.nan}
    scores = Scores(tuple(Score(*key, "dice", value, "") for key, value in values.items()), {})
    assert choose(scores) == {"b": "Only case"}
    assert [row.mean.shown for row in case_table(scores)] == ["–", "0.500"]


def test_failures_come_with_their_message(run):
    text = Page(report(run)).text
    assert "case_8" in text
    assert "case_8.nii.gz: the file is damaged" in text
    assert "case_9.nii.gz: is empty Copy it." in text


def test_hostile_names_stay_text(run):
    evil = "<script>alert(1)</script>"
    recipe = run / "recipe.yaml"
    write_text(recipe, recipe.read_text(encoding="utf-8").replace("name: kidneys", f"name: '{evil}'"))
    scores = Run.open(run).scores
    bad = replace(scores, rows=tuple(row._replace(case=evil) if row.case == "case_0" else row for row in scores))
    write_text(run / "scores.json", to_json(bad))
    change(run / "data.json", dataset=evil, labels={"kidney": 1, "tumour": 5, '"><img src=x onerror=alert(1)>': 6})
    change(run / "environment.json", **{evil: evil})
    html = report(run)
    assert evil not in html
    assert "<img" not in html
    assert html.count("<script>") == 1


def test_a_report_is_written_although_the_dataset_is_gone(run, tmp_path):
    shutil.rmtree(tmp_path / "secret place" / "kidneys")
    html = report(run)
    assert html.count("No pictures: the dataset is no longer where it was during training") == 3
    assert "case_3" in Page(html).text
    assert "secret" not in html


def test_one_unreadable_case_does_not_cost_the_others_their_pictures(run):
    (run / "validation" / "case_0.nii.gz").write_bytes(b"")
    html = cases_of(report(run))
    assert html.count('<svg class="picture"') == 6
    assert "No pictures: a/validation/case_0.nii.gz: the file is empty" in Page(html).text
    assert "secret" not in html


def test_an_unfinished_run_shows_what_there_is(run):
    (run / "scores.json").unlink()
    text = Page(report(run)).text
    assert "Best mean Dice so far 0.900, on validation at step 20" in text
    assert "it goes on where it stopped" in text
    (run / "metrics.jsonl").unlink()
    assert "Training has not begun" in Page(report(run)).text
    (run / "data.json").unlink()
    assert "There is no data.json" in Page(report(run)).text


def test_a_run_without_validation_has_a_report(run):
    (run / "scores.json").unlink()
    write_text(run / "metrics.jsonl", json.dumps(next(log())) + '\n{"kind": "st')
    assert "Loss" in Page(report(run)).text


def test_a_damaged_file_is_named_and_the_rest_is_shown(run):
    (run / "scores.json").write_text("{", encoding="utf-8")
    (run / "data.json").write_text("[1]", encoding="utf-8")
    text = Page(report(run)).text
    assert "scores.json is damaged" in text
    assert "data.json is damaged" in text
    assert "Learning rate" in text


def test_scores_without_a_case_are_no_scores(run):
    write_text(run / "scores.json", to_json(Scores((), Rules().describe(), {"case_0": "is empty"})))
    text = Page(report(run)).text
    assert "No final scores yet" in text
    assert "is empty" in text


def test_what_is_no_run_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(BadFile, match="attentus train"):
            write_report(folder, tmp_path / "report.html", overwrite=True, progress=Silent())
    assert not (tmp_path / "report.html").exists()


def test_nothing_is_overwritten_unasked(run):
    (run / "report.html").write_text("mine", encoding="utf-8")
    with pytest.raises(BadFile, match="exists already"):
        write_report(run, run / "report.html", overwrite=False, progress=Silent())
    assert (run / "report.html").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("told", "shown_as"),
    [
        ("/home/ann/data/a.nii.gz: is empty", "a.nii.gz: is empty"),
        ("see (/mnt/x/y/b.nii) and '/a/b/c'", "see (b.nii) and 'c'"),
        (r"C:\Users\ann\c.nii: is empty", "c.nii: is empty"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("TP / (TP + FP), z/2, 1/2 mm, and/or", "TP / (TP + FP), z/2, 1/2 mm, and/or"),
    ],
)
def test_messages_lose_their_folders_and_nothing_else(run, told, shown_as):
    assert Run.open(run).discreet(told) == shown_as


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.84321, "dice", "0.843"),
        (-0.0546, "rvd", "−0.0546"),
        (1.5, "hd95_mm", "1.50"),
        (1436.55, "volume_ml", "1,437"),
        (57.897, "volume_ml", "57.9"),
        (math.inf, "hd95_mm", "∞"),
        (math.nan, "dice", "–"),
    ],
)
def test_numbers_have_the_digits_they_deserve(value, metric, text):
    assert shown(value, metric) == text


def test_ticks_are_round_and_labels_do_not_overlap():
    assert ticks(0.73, 0.92, 5) == pytest.approx([0.75, 0.8, 0.85, 0.9])
    assert ticks(0, 147, 5) == [0, 50, 100]
    assert ticks(-3, 3, 4) == [-2, 0, 2]
    placed = spread([10, 12, 11, 90], 13, 92)
    assert all(b - a >= 13 - 1e-9 for a, b in pairwise(sorted(placed)))
    assert max(placed) <= 92
    assert sorted(range(4), key=lambda k: placed[k]) == [0, 2, 1, 3]

"""Trainings with and without attention: the arms, what is compared, the table, going on after a stop."""

from __future__ import annotations

import json
import math
import re

import make
import pytest
from netting import small

from attentus import Dataset, Model, fit, nets
from attentus.cli.main import run
from attentus.data.resolve import resolve
from attentus.errors import BadInput
from attentus.explain.matching import NEAR, matched, parameters
from attentus.explain.retrain import WIDER, WITH, WITHOUT, _judged, arms_of, retrain
from attentus.explain.verdict import Change
from attentus.metrics.summary import case_means, from_json
from attentus.recipes import build
from attentus.train.farm import command


def recipe_of(name, dims, options):
    patch = [64] * dims
    return make.recipe(
        net={"name": name, "dims": dims, "options": options}, train__patch=patch, labels=["core"], channels=["c"]
    )


@pytest.mark.parametrize(
    ("name", "dims", "options"),
    [
        ("attention-unet", 3, {"preset": "paper"}),
        ("ra-unet", 2, {"preset": "tiny"}),
        ("dpc-net", 2, {"widths": [16, 32, 64, 128]}),
        ("daf", 2, {"preset": "tiny"}),
        ("anu-net", 2, {"width": 16}),
        ("msconvlstm-att", 2, {"preset": "tiny"}),
    ],
)
def test_the_wider_net_has_as_many_parameters_as_its_widths_allow(name, dims, options):
    recipe = recipe_of(name, dims, options)
    target, modules = parameters(recipe), tuple(nets.taps(nets.create(name, dims, 1, 2, **options)))
    found = matched(recipe, modules, target)
    net = nets.create(found.name, dims, 1, 2, **found.options)
    assert not nets.taps(net)
    assert found.parameters == sum(p.numel() for p in net.parameters()) == parameters(recipe, found.name, found.options)
    bare = parameters(recipe, name, {**options, "without": list(modules)})
    assert abs(found.parameters - target) <= abs(bare - target)
    if name not in ("anu-net", "msconvlstm-att"):  # one width that doubles from level to level, or a single small one
        assert abs(found.parameters / target - 1) <= NEAR


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Dataset.open(make.dataset(tmp_path_factory.mktemp("retrain") / "data", cases=6))


def test_arms_differ_in_nothing_but_the_net(data):
    recipe = resolve(make.recipe(train__snapshots={"cases": 1}), data)
    model = Model(recipe, small("attention-unet", 3, 1, 3, feature_scale=16))
    whole, bare, wider = arms_of(model, minutes=2.5)
    assert (whole.name, bare.name, wider.name) == (WITH, WITHOUT, WIDER)
    plain = [arm.recipe.model_dump(exclude={"name", "net"}) for arm in (whole, bare, wider)]
    assert plain[0] == plain[1] == plain[2]
    assert plain[0]["train"]["minutes"] == 2.5
    assert plain[0]["train"]["snapshots"]["cases"] == 0
    assert whole.recipe.net == recipe.net
    assert sorted(bare.recipe.net.options["without"]) == sorted(nets.taps(model.net))
    assert wider.recipe.net.options["feature_scale"] < 16
    assert bare.parameters < whole.parameters
    steps = arms_of(model, steps=7)[0].recipe.train
    assert (steps.steps, steps.minutes, steps.epochs) == (7, None, None)


def test_no_third_arm_where_no_width_comes_nearer(data):
    recipe = make.recipe(net={"name": "anu-net", "options": {"preset": "tiny", "levels": 2}}, train__patch=[16, 16, 16])
    model = Model(resolve(recipe, data), small("anu-net", 3, 1, 3, levels=2))
    assert [arm.name for arm in arms_of(model)] == [WITH, WITHOUT]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    fit(make.recipe(train__steps=2, train__validate_every=2), data, folder / "model")
    call = [
        "audit",
        str(folder / "model"),
        str(data.root),
        "-o",
        str(folder / "audit"),
        "--retrain",
        "0,1",
        "--budget",
        "3",
    ]
    assert run([*call, "--cases", "2", "--module", "gates.level2.each.0", "--replace", "mean"]) == 0
    return folder


def test_the_comparison_is_that_of_the_runs(trained):
    facts = json.loads((trained / "audit" / "audit.json").read_text())["retrained"]
    assert facts["seeds"] == [0, 1]
    assert facts["budget"] == "3 steps"
    assert [arm["arm"] for arm in facts["arms"]] == [WITH, WITHOUT, WIDER]
    place = trained / "audit-retrained"

    def dice(arm, seed):
        name = "fold0" if seed == 0 else f"fold0-seed{seed}"
        return case_means(from_json((place / arm / name / "scores.json").read_text()), "dice")

    plain = facts["arms"][1]
    assert plain["steps"] == [3, 3]
    for seed in (0, 1):
        ours, theirs = dice("without", seed), dice("with-attention", seed)
        assert sorted(ours) == sorted(facts["cases"])
        mean = sum(ours.values()) / len(ours)
        assert plain["dice"][seed] == pytest.approx(mean)
        assert plain["difference_by_seed"][seed] == pytest.approx(mean - sum(theirs.values()) / len(theirs))
    found = plain["changes"]["dice"]
    assert found["difference"] == pytest.approx(sum(plain["difference_by_seed"]) / 2, abs=1e-9)
    assert found["n"] == len(facts["cases"])
    assert math.isfinite(found["low"])


def test_the_page_shows_the_arms(trained):
    html = (trained / "audit" / "index.html").read_text()
    section = html.split('<section id="retrained"')[1].split("</section>")[0]
    facts = json.loads((trained / "audit" / "audit.json").read_text())["retrained"]
    for arm in facts["arms"]:
        assert f'<th scope="row">{arm["arm"]}</th><td>{arm["parameters"]:,}</td>' in section
        assert all(f"{value:.4f}" in section for value in arm["dice"])
    assert f"<b>{facts['arms'][1]['verdict']}</b>" in section
    assert "take three or more" in section
    assert "seeds (0, 1), 3 steps each" in re.sub(r"\s+", " ", section)


def test_again_nothing_is_trained_twice_and_another_budget_is_refused(trained, data, monkeypatch):
    model = Model.load(trained / "model")
    how = {"seeds": [0, 1], "margin": 0.005}
    before = {file: file.stat().st_mtime_ns for file in (trained / "audit-retrained").rglob("weights.safetensors")}
    assert len(before) == 6
    retrain(model, data, trained / "audit-retrained", steps=3, **how)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    with pytest.raises(BadInput, match=r"no seed was trained to its end(?s:.*)train\.steps: 3 -> 4"):
        retrain(model, data, trained / "audit-retrained", steps=4, **how)

    real = command.work

    def failing(job, progress):
        outcome = real(job, progress)
        return outcome if job.recipe.seed == 0 else type(outcome)(job.name, message="the disk is full")

    monkeypatch.setattr(command, "work", failing)
    found = retrain(model, data, trained / "audit-retrained", steps=3, **how)
    assert found.seeds == (0,)
    assert found.failures[f"{WITHOUT}, fold0-seed1"] == "the disk is full"


def test_refusals(trained, data, capsys):
    with pytest.raises(BadInput, match="has no attention to train without"):
        retrain(Model(make.recipe(channels=["c"]), small("unet", 3)), data, trained / "x", margin=0.005)
    call = ["audit", str(trained / "model"), str(data.root), "-o", str(trained / "y")]
    assert run([*call, "--budget", "3"]) == 2
    assert "give --retrain" in capsys.readouterr().err
    assert run([*call, "--retrain", "a"]) == 2
    assert run([*call, "--retrain", "0", "--budget", "soon"]) == 2
    assert not (trained / "y-retrained").exists()


def test_seeds_that_disagree_withhold_a_verdict():
    clear = Change("dice", 0.8, 0.7, -0.1, -0.12, -0.08, 0.01, 0.01, 20, 0)
    assert _judged(clear, (-0.1, -0.2), 0.005) == "essential"
    assert _judged(clear, (-0.3, 0.1), 0.005) == "undecided"
    same = Change("dice", 0.8, 0.8, 0.0, -0.001, 0.001, 1.0, 1.0, 20, 0)
    assert _judged(same, (-0.001, 0.001), 0.005) == "decorative"


def test_a_model_trained_without_some_loses_all(data):
    recipe = make.recipe(net__options={"feature_scale": 16, "without": ["gates.level2.each.0"]})
    tree = resolve(recipe, data).model_dump()
    model = Model(
        build(tree, "made"), small("attention-unet", 3, 1, 3, feature_scale=16, without=["gates.level2.each.0"])
    )
    bare = arms_of(model)[1].recipe.net.options["without"]
    assert len(bare) == 6
    assert bare[0] == "gates.level2.each.0"

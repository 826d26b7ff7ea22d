"""The audit: nets made so that the verdict is known, replacements by hand, the rule at its borders, prune."""

from __future__ import annotations

import csv
import dataclasses
import json
import math

import make
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from netting import equal, small
from torch import nn

from attentus import Dataset, Model, fit, io, nets
from attentus.cli.main import run
from attentus.data.resolve import resolve
from attentus.errors import BadFile, BadInput, UnknownName
from attentus.explain import audit
from attentus.explain.replace import CONTROLS, controls_for, replaced
from attentus.explain.verdict import Change, change, corrected, rule, verdict
from attentus.export.prune import prune, without
from attentus.infer.segment import Wish, segment
from attentus.metrics.summary import case_means
from attentus.nets.parts import AttentionTap
from attentus.report.audit import write_audit
from attentus.types import Volume


class Weigher(nn.Module):
    """Cores are bright (100), shells dark (-80), noise has a deviation of 10. What is above 30 is a core if it passes
    the gates: `needed` shuts shells out, which are as bright as cores to what follows; `idle` is always open; `wrong`
    is shut in the second half of every window.
    """

    def __init__(self):
        super().__init__()
        self.threshold = nn.Parameter(torch.tensor(30.0))
        self.needed = AttentionTap(made_by=["offset"])
        self.idle, self.wrong = AttentionTap(), AttentionTap(made_by=["spare"])
        self.offset, self.spare = nn.Parameter(torch.zeros(3)), nn.Linear(2, 2)

    def forward(self, x):
        image = x[:, :1]
        bright = self.needed((image > 0).float(), image.abs())
        bright = self.idle(torch.ones_like(image), bright)
        shut = torch.ones_like(image)
        shut[..., image.shape[-1] // 2 :] = 0.2
        bright = self.wrong(shut, bright)
        return (torch.cat([self.threshold.expand_as(bright), bright], dim=1),)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return Dataset.open(make.dataset(tmp_path_factory.mktemp("audit") / "data", cases=12))


@pytest.fixture(scope="module")
def model(data):
    plain = {"spacing": "keep", "intensity": [{"normalise": "none"}]}
    recipe = resolve(make.recipe(labels=["core"], prepare=plain, split__folds=2), data)
    return Model(recipe, Weigher().eval())


@pytest.fixture(scope="module")
def audited(model, data):
    return audit(model, data)


def test_verdicts_are_those_the_net_was_made_for(audited):
    rows = {row.name: row for row in audited.rows}
    assert list(rows) == ["needed", "idle", "wrong", "all modules", "decorative modules"]
    assert rows["needed"].verdict == "essential"
    assert rows["idle"].verdict == rows["idle"].pattern == "decorative"
    assert rows["wrong"].verdict == "harmful"
    assert audited.decorative == rows["decorative modules"].modules == ("wrong", "idle")  # the best gain first
    assert any("2 can go together: wrong, idle" in note for note in audited.notes)
    together = rows["decorative modules"].changes["none"]["dice"]
    assert together.difference == pytest.approx(rows["wrong"].changes["none"]["dice"].difference)
    none = rows["idle"].changes["none"]["dice"]
    assert (none.difference, none.low, none.high, none.p_holm) == (0, 0, 0, 1)
    assert rows["needed"].changes["none"]["volume_ml"].difference > 0
    assert rows["needed"].changes["none"]["hd95_mm"].difference > 0
    assert rows["wrong"].structures["none"]["core"] > 0
    assert {*rows["needed"].changes} == {"none", "mean", "shuffled", "other"}


class Spare(nn.Module):
    """Either of two gates shuts shells out: each alone can go, both cannot."""

    def __init__(self):
        super().__init__()
        self.first, self.second = AttentionTap(), AttentionTap()
        self.threshold = nn.Parameter(torch.tensor(30.0))

    def forward(self, x):
        bright = self.second((x > 0).float(), self.first((x > 0).float(), x.abs()))
        return (torch.cat([self.threshold.expand_as(bright), bright], dim=1),)


def test_what_can_go_alone_need_not_go_together(model, data):
    found = audit(Model(model.recipe, Spare().eval()), data, controls=())
    assert [row.verdict for row in found.rows] == ["decorative", "decorative", "essential"]
    assert found.decorative == ("first",)
    assert [row.name for row in found.rows] == ["first", "second", "all modules"]


def test_what_is_measured_is_what_segmenting_gives(audited, model, data):
    assert len(audited.cases) == 6
    assert not audited.failures
    from attentus.train.evaluate import evaluate

    expected = case_means(evaluate(model, data.subset(list(audited.cases)), data.root / "scored"), "dice")
    assert case_means(audited.scores[""], "dice") == expected
    before = audited.rows[0].changes["none"]["dice"].before
    assert before == pytest.approx(sum(expected.values()) / len(expected))


def test_costs_name_what_makes_the_coefficients(audited):
    rows = {row.name: row for row in audited.rows}
    assert (rows["needed"].parameters, rows["idle"].parameters, rows["wrong"].parameters) == (3, 0, 6)
    assert rows["all modules"].parameters == 9
    assert all(math.isfinite(row.milliseconds) for row in audited.rows)
    nested = small("anu-net", dims=3, levels=2)
    recipe = make.recipe(net__name="anu-net", net__options={"preset": "tiny", "levels": 2})
    from attentus.explain.auditing import _row

    model = Model(recipe.model_copy(update={"channels": ("c",)}), nested)
    row = _row(model, "attention.x0_2_from_x0_0", "gate", ("attention.x0_2_from_x0_0",), ())
    assert row.shared_with == 1  # x0_2_from_x0_1 has the same gate
    assert row.parameters == sum(p.numel() for p in nested.gates["x0_2"].parameters())


def test_an_audit_repeats_itself(audited, model, data):
    again = audit(model, data, modules=["needed"], controls=["shuffled"])
    first = {row.name: row for row in audited.rows}["needed"].changes["shuffled"]["dice"]
    assert {row.name: row for row in again.rows}["needed"].changes["shuffled"]["dice"].difference == first.difference
    assert set(again.rows[0].changes) == {"none", "mean", "shuffled"}


def test_limits_and_refusals(model, data):
    few = audit(model, data, limit=3, modules=["idle"], controls=())
    assert len(few.cases) == 3
    assert any("intervals are too narrow" in note for note in few.notes)
    with pytest.raises(UnknownName, match="needed"):
        audit(model, data, modules=["neded"])
    with pytest.raises(UnknownName, match="shuffled"):
        audit(model, data, controls=["shufled"])
    with pytest.raises(UnknownName, match="validation"):
        audit(model, data, side="val")
    with pytest.raises(BadInput, match="no attention to audit"):
        audit(Model(model.recipe, small("unet", 3)), data)
    named = {"background": 0, "thing": 1, "other": 2}
    with pytest.raises(BadInput, match="has no label 'core'"):
        audit(model, dataclasses.replace(data, declared_labels=named))
    with pytest.raises(BadInput, match="holds no cases"):
        audit(model, data, side="test")


def test_a_broken_case_is_listed_and_the_others_are_measured(model, tmp_path):
    folder = make.dataset(tmp_path / "data", cases=6)
    dataset = Dataset.open(folder)
    broken = dataset.parts(model.recipe.split)[1].labelled[0]
    broken.images[0].write_bytes(b"")
    found = audit(model, dataset, modules=["idle"], controls=())
    assert list(found.failures) == [broken.id]
    assert len(found.cases) == 2


def test_one_patient_alone_has_no_other(model, tmp_path):
    found = audit(model, Dataset.open(make.dataset(tmp_path / "data", cases=12)), limit=1, modules=["needed"])
    assert "other" not in found.rows[0].changes
    assert found.rows[0].verdict == "undecided"


def coefficients(kind, shape=(2, 3, 4, 5)):
    return torch.rand(shape if kind != "channel" else (2, 3, 1, 1), generator=torch.Generator().manual_seed(2))


class One(nn.Module):
    """One tap whose coefficients are given, and whatever it weighs is what comes out."""

    def __init__(self, kind, given):
        super().__init__()
        self.given, self.kind = given, kind
        self.tap = AttentionTap(kind)
        self.dummy = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return (self.tap(self.given, x),)


def heard(kind, control, given):
    """What the coefficients become."""
    in_2d = {"name": "attention-unet", "dims": 2}
    model = Model(make.recipe(channels=["c"], net=in_2d, train__patch=[4, 5]), One(kind, given).eval())
    with nets.listening(model.net) as maps:
        member = replaced(model, ["tap"], control, seed=5)
        x = np.zeros((2, 1, 1, 4, 5), np.float32)
        member.run(None, None)(x)
    return maps["tap"]


def test_replacements_by_hand():
    for kind in ("gate", "residual"):
        own = coefficients(kind)
        equal(heard(kind, "mean", own), own.mean((2, 3), keepdim=True).expand_as(own))
        shuffled = heard(kind, "shuffled", own)
        assert not torch.equal(shuffled, own)
        together = own.flatten(2).permute(0, 2, 1)  # positions with all their channels
        for sample in range(2):
            before, after = (sorted(map(tuple, t[sample].tolist())) for t in (together, shuffled.flatten(2).mT))
            assert before == after
        mixed = heard(kind, "channels", own)
        assert sorted(mixed[0, :, 0, 0].tolist()) == sorted(own[0, :, 0, 0].tolist())
    own = coefficients("channel")
    equal(heard("channel", "mean", own), own.mean(1, keepdim=True).expand_as(own))


def test_levelled_self_attention_gathers_the_mean_of_all_values():
    net = small("msconvlstm-att")
    sam = net.sam[0][0]
    nn.init.constant_(sam.strength, 1.0)
    v = torch.randn(1, 16, 6, 6)
    level = {"alpha": lambda own: tuple(one.mean((2, 3), keepdim=True).expand(one.shape) for one in own)}
    with torch.no_grad(), nets.replacing(sam, level):
        found = sam(v)
        torch.testing.assert_close(found - v, sam.value(v).mean((2, 3), keepdim=True).expand_as(v), atol=1e-5, rtol=0)


def test_replacements_suit_the_module():
    points = {p.kind: p for p in nets.attention_points(small("msconvlstm-att"), 1, (32, 32))}
    assert controls_for(points["channel"]) == ["none", "mean", "channels", "other"]
    assert controls_for(points["received"]) == ["none", "mean", "shuffled", "other"]
    residual = nets.attention_points(small("ra-unet"), 1, (32, 32))[0]
    assert controls_for(residual) == ["none", "mean", "shuffled", "channels", "other"]


@pytest.mark.parametrize("mirror", [[], ["x", "z"]])
def test_another_patients_attention_is_that_of_the_same_place(data, model, mirror):
    one, other = make.case(3)[0], make.case(4)[0]
    infer = model.recipe.infer.model_copy(update={"mirror": tuple(mirror)})
    asked = Model(model.recipe.model_copy(update={"infer": infer}), model.net)
    free = {"wrong": lambda _own: None}
    with nets.replacing(model.net, free):
        found = segment([replaced(asked, ["needed"], "other", donor=other)], one, Wish(clean=False)).labels.array[0]
    expected = (other.array[0] > 0) * np.abs(one.array[0]) > 30
    np.testing.assert_array_equal(found == 1, expected)


def made(low, mean, high):
    return Change("dice", 0.8, 0.8 + mean, mean, low, high, 0.01, 0.05, 20, 0)


@pytest.mark.parametrize(
    ("low", "mean", "high", "expected"),
    [
        (-0.09, -0.05, -0.006, "essential"),
        (-0.09, -0.05, -0.005, "helpful"),
        (-0.09, -0.05, -0.001, "helpful"),
        (-0.09, -0.05, 0.001, "undecided"),
        (-0.004, -0.001, 0.001, "decorative"),
        (-0.004, -0.003, -0.002, "decorative"),
        (-0.001, 0.002, 0.05, "decorative"),
        (0.001, 0.004, 0.01, "decorative"),
        (0.001, 0.02, 0.03, "harmful"),
        (math.nan, -0.2, math.nan, "undecided"),
    ],
)
def test_the_rule_at_its_borders(low, mean, high, expected):
    assert verdict(made(low, mean, high), 0.005) == expected
    assert expected.capitalize() in rule(0.005)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
def test_changes_are_paired_and_signed(pairs):
    before, after = zip(*pairs, strict=True)
    found = change("dice", list(after), list(before))
    assert found.difference == pytest.approx(np.mean(np.subtract(after, before)), abs=1e-9)
    assert found.low - 1e-9 <= found.difference <= found.high + 1e-9
    assert corrected([found, found])[0].p_holm == pytest.approx(min(1.0, 2 * found.p))


def test_values_without_a_number_are_left_out_on_both_sides():
    found = change("hd95_mm", [1.0, math.inf, 3.0], [2.0, 2.0, math.nan])
    assert (found.n, found.left_out, found.before, found.after) == (1, 2, 2.0, 1.0)


def test_files(audited, tmp_path):
    write_audit(audited, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert facts["rule"] == rule(0.005)
    assert facts["replacements"] == CONTROLS
    assert [row["verdict"] for row in facts["rows"][:3]] == ["essential", "decorative", "harmful"]
    rows = list(csv.DictReader((tmp_path / "out" / "audit.csv").read_text().splitlines()))
    plain = [float(r["value"]) for r in rows if not r["module"] and r["metric"] == "dice"]
    assert len(plain) == 6
    page = (tmp_path / "out" / "index.html").read_text()
    assert "1 essential, 1 decorative, 1 harmful" in page
    assert page.count("<svg") == page.count("</svg>") == 1
    with pytest.raises(BadFile, match="exists"):
        write_audit(audited, tmp_path / "out")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A nested net after some steps, and an audit of it by the command line in which everything is decorative."""
    folder = tmp_path_factory.mktemp("pruned")
    make.dataset(folder / "data", cases=6)
    recipe = make.recipe(net__name="anu-net", net__options={"preset": "tiny", "levels": 2}, train__steps=4)
    fit(recipe, Dataset.open(folder / "data"), folder / "run", cache=folder / "cache")
    call = ["audit", str(folder / "run"), str(folder / "data"), "-o", str(folder / "audit"), "--replace", "none"]
    assert run([*call, "--margin", "1"]) == 0
    return folder


def test_prune_writes_a_model_without_what_is_decorative(trained, tmp_path, capsys):
    call = ["prune", str(trained / "run"), "--decorative", str(trained / "audit"), "-o", str(tmp_path / "small")]
    assert run([*call, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    source, pruned = Model.load(trained / "run"), Model.load(tmp_path / "small")
    assert set(told["modules"]) == {*nets.left_out(pruned.net)} == {*nets.taps(source.net)}
    assert told["parameters"][1] == sum(p.numel() for p in pruned.net.parameters()) < told["parameters"][0]
    assert told["gflop"][1] < told["gflop"][0]
    assert "in the audit" in told["measured_on"]
    assert "instead of" in (tmp_path / "small" / "card.md").read_text()
    assert not pruned.net.gates["x0_1"].state_dict()
    scan, _ = make.case(1)
    plain = dict.fromkeys(nets.taps(source.net), lambda _own: None)
    with nets.replacing(source.net, plain):
        expected = source.predict(scan).labels.array
    np.testing.assert_array_equal(pruned.predict(scan).labels.array, expected)
    smaller = prune(pruned, 1)
    assert smaller.recipe.net.options["without"] == ["attention.x0_1_from_x0_0"]
    smaller.save(tmp_path / "l1")
    np.testing.assert_array_equal(
        Model.load(tmp_path / "l1").predict(scan).labels.array, smaller.predict(scan).labels.array
    )


def test_prune_measures_where_it_is_given_data(trained, tmp_path, capsys):
    call = ["prune", str(trained / "run"), "--decorative", str(trained / "audit" / "audit.json")]
    assert run([*call, "-o", str(tmp_path / "small"), "--data", str(trained / "data")]) == 0
    assert "cases held back" in capsys.readouterr().out
    assert (tmp_path / "small" / "scores.json").is_file()


def test_prune_refuses_what_does_not_fit(trained, tmp_path, capsys):
    audited = ["--decorative", str(trained / "audit")]
    assert run(["prune", str(trained / "run"), *audited]) == 2
    assert "-o OUT" in capsys.readouterr().err
    assert run(["prune", str(trained / "run"), *audited, "--level", "1", "-o", str(tmp_path / "x")]) == 2
    other = without(Model.load(trained / "run"), ["attention.x0_1_from_x0_0"])
    other.save(tmp_path / "other")
    assert run(["prune", str(tmp_path / "other"), *audited, "-o", str(tmp_path / "x")]) == 2
    assert "another model" in capsys.readouterr().err
    assert run(["prune", str(trained / "run"), "--decorative", str(tmp_path), "-o", str(tmp_path / "x")]) == 2
    assert "holds no audit" in capsys.readouterr().err
    facts = json.loads((trained / "audit" / "audit.json").read_text())
    facts["decorative"] = []
    (tmp_path / "audit.json").write_text(json.dumps(facts))
    assert run(["prune", str(trained / "run"), "--decorative", str(tmp_path), "-o", str(tmp_path / "x")]) == 2
    assert "nothing is removed" in capsys.readouterr().err


def test_a_model_without_attention_is_exported_without_it(trained, tmp_path):
    pruned = without(Model.load(trained / "run"), ["attention.x0_1_from_x0_0"])
    from attentus.export import to_onnx

    onnxruntime = pytest.importorskip("onnxruntime")
    to_onnx(pruned.net, tmp_path / "net.onnx", 1, (16, 16, 16))
    x = torch.randn(1, 1, 16, 16, 16)
    [found] = onnxruntime.InferenceSession(str(tmp_path / "net.onnx")).run(["logits"], {"image": x.numpy()})
    with torch.no_grad():
        assert np.abs(found - pruned.net(x)[0].numpy()).max() <= 1e-4


def test_slices_as_pictures_can_be_audited(tmp_path):
    rng = np.random.default_rng(0)
    for k in range(4):
        (tmp_path / "images").mkdir(exist_ok=True)
        (tmp_path / "masks").mkdir(exist_ok=True)
        image = rng.integers(0, 255, (1, 1, 16, 16)).astype(np.uint8)
        for part, array in (("images", image), ("masks", (image > 128).astype(np.uint8))):
            io.write(Volume.from_array(array), tmp_path / part / f"c{k}.png")
    data = Dataset.open(tmp_path)
    recipe = make.recipe(
        net={"name": "anu-net", "dims": 2, "options": {"preset": "tiny"}},
        prepare={"spacing": "keep"},
        train__patch=[16, 16],
        augment={},
        split__folds=2,
    )
    recipe = resolve(recipe, data)
    model = Model(recipe, small("anu-net"))
    found = audit(model, data, modules=["attention.x0_1_from_x0_0"])
    assert len(found.cases) == 2
    assert "other" in found.rows[0].changes

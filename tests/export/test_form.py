"""Every net says the same in every form, and `attentus export` writes and measures it."""

from __future__ import annotations

import dataclasses
import json

import make
import numpy as np
import pytest
from netting import small

from attentus import nets
from attentus.cli.main import run
from attentus.data import Dataset
from attentus.errors import BadInput, UnknownName
from attentus.export import calibration_windows
from attentus.export import form as forms
from attentus.infer import backends
from attentus.infer.model import Model, create_net
from attentus.train.faithful import compare_runs

EACH = [(name, dims) for name in nets.names() if (card := nets.card(name)) for dims in card.dims]
SIZE = {2: (32, 64), 3: (32, 32, 32)}


def softmax(logits):
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def hold_to_torch(name, dims, backend):
    if reason := backends.missing(backend):
        pytest.skip(reason)
    net = small(name, dims, 2, 3)
    windows = np.random.default_rng(0).normal(size=(1, 2, *SIZE[dims])).astype(np.float32)
    exact, found = (backends.create(each, net, windows.shape)(windows) for each in ("torch", backend))
    assert np.abs(softmax(exact) - softmax(found)).max() <= 1e-3
    assert np.abs(exact - found).max() <= 1e-4
    one, other = exact.argmax(1), found.argmax(1)
    for k in np.unique(one):
        assert 2 * ((one == k) & (other == k)).sum() / ((one == k).sum() + (other == k).sum()) >= 0.999


@pytest.mark.parametrize(("name", "dims"), [each for each in EACH if each[1] == 2])
def test_every_net_says_the_same_in_openvino(name, dims):
    hold_to_torch(name, dims, "openvino")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), [each for each in EACH if each[1] == 3])
def test_every_net_says_the_same_in_openvino_in_3d(name, dims):
    hold_to_torch(name, dims, "openvino")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), EACH)
def test_every_net_says_the_same_in_onnxruntime(name, dims):
    hold_to_torch(name, dims, "onnxruntime")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """data/ of six cases and model/, which has learnt a little of them."""
    from attentus.train import fit

    folder = tmp_path_factory.mktemp("export")
    dataset = Dataset.open(make.dataset(make_folder(folder / "data")))
    fit(make.recipe(train__steps=60, train__validate_every=60, train__learning_rate=0.01), dataset, folder / "model")
    return folder


def make_folder(folder):
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    return folder


def export(place, *arguments):
    return run(["export", str(place / "model"), *map(str, arguments)])


@pytest.mark.parametrize("to", ["onnx", "openvino", "bundle"])
def test_a_model_is_exported_and_compared(place, tmp_path, capsys, to):
    out = tmp_path / {"onnx": "net.onnx", "openvino": "net", "bundle": "bundle.zip"}[to]
    assert export(place, "--to", to, "-o", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["largest_difference"] <= 1e-3
    assert said["measured"] is None
    assert out.exists()
    if to == "openvino":
        assert {file.name for file in out.iterdir()} == {"model.xml", "model.bin", "card.md"}
    assert export(place, "--to", to, "-o", out) == 2
    assert "exists already" in capsys.readouterr().err
    assert export(place, "--to", to, "-o", out, "--overwrite") == 0


@pytest.mark.parametrize("to", ["openvino", "bundle"])
def test_int8_is_calibrated_and_measured_on_other_cases(place, tmp_path, capsys, to):
    out = tmp_path / "int8"
    assert export(place, "--to", to, "-o", out, "--int8", "--data", place / "data", "--json") == 0
    measured = json.loads(capsys.readouterr().out)["measured"]
    assert measured["cases"] == 2
    assert not measured["failures"]
    for one in measured["dice"].values():
        assert one["torch"] > 0.5
        assert one["agreement"] > 0.8, "a net of 2 to 32 channels after 60 steps; trained ones reach 0.99"
    changes = [one["exported"] - one["torch"] for one in measured["dice"].values()]
    assert measured["change"] == pytest.approx(np.mean(changes))
    assert f"held back changes by {measured['change']:+.4f}" in (out / "card.md").read_text()
    if to == "openvino":
        model = Model.load(place / "model", device="cpu")
        kept = backends.create("openvino-int8", model.net, forms.shape_of(model), cache=model.folder / "compiled")
        assert kept.name == "openvino-int8", "it needs no calibration any more"
    else:
        assert json.loads((out / "bundle.json").read_text())["precision"] == "int8"


def test_requests_that_cannot_be_served_are_refused(place, tmp_path, capsys):
    for arguments, reason in (
        (["--to", "bundle", "-o", tmp_path / "b", "--int8"], "name the dataset"),
        (["--to", "onnx", "-o", tmp_path / "b"], "end with .onnx"),
        (["--to", "openvino", "-o", tmp_path / "b.xml"], "writes a folder"),
        (["--to", "bundle", "-o", place / "data"], "no folder with a bundle.json"),
    ):
        assert export(place, *arguments) == 2
        assert reason in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_form_that_says_something_else_is_refused(place):
    model = Model.load(place / "model", device="cpu")
    form = forms.convert(model, "onnx")
    other = Model(model.recipe, create_net(model.recipe).eval())
    assert forms.difference(model, form) <= forms.TOLERANCE
    with pytest.raises(BadInput, match="says something else as onnx"):
        forms.difference(other, form)


def test_calibration_windows_come_from_all_cases_and_hold_something(place):
    model, dataset = Model.load(place / "model", device="cpu"), Dataset.open(place / "data")
    windows = list(calibration_windows(model, dataset, 12))
    assert {one.shape for one in windows} == {(1, 16, 16, 16)}
    assert len(windows) == 12
    assert all(one.std() > 0.1 for one in windows)
    assert len({one.tobytes() for one in windows}) == 12


def test_labels_that_differ_are_counted(place):
    model, dataset = Model.load(place / "model", device="cpu"), Dataset.open(place / "data")
    held_back = dataset.parts(model.recipe.split)[1]
    exact = backends.create("torch", model.net, forms.shape_of(model))
    same = compare_runs(model, held_back, lambda windows: {"logits": exact(windows)})
    assert set(same.agreement.values()) == {1.0}
    assert same.change == 0
    unnamed = dataclasses.replace(held_back, declared_labels={"core": 1})
    with pytest.raises(UnknownName, match="No label is called 'shell'"):
        compare_runs(model, unnamed, lambda windows: {"logits": exact(windows)})
    nothing = compare_runs(model, held_back, lambda windows: {"logits": exact(windows) * [[[[[0]]], [[[0]]], [[[0]]]]]})
    assert set(nothing.other.values()) == {0.0}
    assert nothing.change == pytest.approx(-np.mean(list(same.exact.values())))

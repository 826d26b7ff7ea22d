"""The parts of training one by one: schedules, updates, budgets, stopping, fine-tuning, regions, failures."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time

import make
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from attentus import Dataset, Model, fit, io, nets
from attentus.data.patches import PatchSampler
from attentus.errors import AttentusError, BadFile, BadInput, RecipeError, TrainingStopped
from attentus.metrics.summary import from_json
from attentus.recipes import Schedule
from attentus.train import loop, state
from attentus.train.log import read_log
from attentus.train.rehearse import rehearse
from attentus.train.schedule import factor
from attentus.train.state import peek_state
from attentus.train.transfer import transfer
from attentus.train.updates import freeze


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return Dataset.open(make.dataset(tmp_path_factory.mktemp("data"), cases=6))


def weights(folder, which="last", prefix="net."):
    tensors = load_file(folder / f"{which}.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def steps_of(folder, what="loss"):
    return [line[what] for line in read_log(folder / "metrics.jsonl") if line["kind"] == "step"]


def test_schedules_by_hand():
    every30 = Schedule(name="step", epochs=30, factor=0.5)  # MSConvLSTM-Att: 1e-3, halved every 30 epochs
    for epoch, expected in ((0, 1e-3), (29.9, 1e-3), (30, 5e-4), (90, 1.25e-4), (499, 1.526e-8)):
        assert 1e-3 * factor(epoch / 500, every30, epochs=epoch) == pytest.approx(expected, rel=1e-3)
    every250 = Schedule(name="step", epochs=250, factor=0.5)  # Attention U-Net
    assert [1e-4 * factor(0, every250, epochs=e) for e in (249, 250, 999)] == pytest.approx([1e-4, 5e-5, 1.25e-5])
    plateau = Schedule(name="plateau", factor=0.1)  # RA-UNet
    assert [factor(0.5, plateau, drops=n) for n in range(3)] == pytest.approx([1, 0.1, 0.01])
    assert factor(0.5, Schedule(name="polynomial", warm_up=0.1)) == pytest.approx((1 - 0.4 / 0.9) ** 0.9)
    assert factor(0.05, Schedule(name="cosine", warm_up=0.1)) == pytest.approx(0.5)


def test_accumulated_gradients_are_those_of_one_large_batch(dataset, tmp_path, monkeypatch):
    """Two batches of two against one of the same four patches, in a net whose normalisation sees one patch only."""
    net = {"name": "plain-unet", "options": {"preset": "tiny"}}
    updates = {"train__steps": 2, "train__clip": None, "train__optimiser": "sgd", "train__learning_rate": 0.1}
    plain = {"augment": {}, "net": net, "train__patch": [32, 32, 32], **updates}
    places = PatchSampler.places
    fit(make.recipe(**plain, train__batch=4), dataset, tmp_path / "one")

    def half(self, number):
        whole = PatchSampler(self.cases, self.size, self.dims, 4, self.seed, self.how, self.members)
        return places(whole, number // 2)[2 * (number % 2) :][:2]

    monkeypatch.setattr(PatchSampler, "places", half)
    fit(make.recipe(**plain, train__batch=2, train__accumulate=2), dataset, tmp_path / "two")
    assert steps_of(tmp_path / "one") == pytest.approx(steps_of(tmp_path / "two"), rel=1e-5)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    for name in one:
        torch.testing.assert_close(one[name], two[name], rtol=1e-4, atol=1e-5)


def test_the_running_mean_follows_and_is_what_is_kept(dataset, tmp_path):
    recipe = make.recipe(train__ema=0.5, train__steps=3, train__validate_every=3)
    model = fit(recipe, dataset, tmp_path / "run")
    mean = weights(tmp_path / "run", prefix="mean.module.")
    kept = load_file(tmp_path / "run" / "weights.safetensors")
    assert {name.removeprefix("mean.module."): 0 for name in mean}.keys() == kept.keys()
    for name, tensor in kept.items():
        torch.testing.assert_close(tensor, mean[f"mean.module.{name}"])
    last = weights(tmp_path / "run")
    assert any(not torch.equal(tensor, last[f"net.{name}"]) for name, tensor in kept.items())
    assert model.recipe.train.ema == 0.5


def test_a_mean_and_a_scheduled_training_resume_exactly(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "validate", same_result)
    how = {
        "train__ema": 0.9,
        "train__accumulate": 2,
        "train__schedule": {"name": "plateau", "epochs": 1, "factor": 0.5},
        "train__validate_every": 1,
        "train__steps": 6,
    }
    fit(make.recipe(**how), dataset, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        fit(make.recipe(**how), dataset, tmp_path / "cut", progress=make.Watcher(3))
    fit(make.recipe(**how), dataset, tmp_path / "cut")
    for which in ("last", "weights"):
        whole, cut = (load_file(tmp_path / run / f"{which}.safetensors") for run in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        assert all(torch.equal(whole[name], cut[name]) for name in whole)
    assert peek_state(tmp_path / "whole" / "last.safetensors").drops > 0
    assert steps_of(tmp_path / "whole", "lr") == steps_of(tmp_path / "cut", "lr")
    assert steps_of(tmp_path / "whole", "lr")[-1] < 1e-3


def test_epochs_count_patches_per_case(dataset, tmp_path):
    how = {"train__epochs": 2, "sampling__per_case": 3, "train__batch": 2}
    fit(make.recipe(**how), dataset, tmp_path / "run")
    assert peek_state(tmp_path / "run" / "last.safetensors").step == 2 * 4 * 3 / 2  # of 6 cases 4 train


def same_result(net, cases, recipe, device):
    """A validation that never gets better."""
    return np.full((len(cases), 2), 0.5)


def test_minutes_and_patience_end_a_training(dataset, tmp_path, monkeypatch):
    fit(make.recipe(train__minutes=1e-4), dataset, tmp_path / "short")
    assert peek_state(tmp_path / "short" / "last.safetensors").step < 12
    monkeypatch.setattr(loop, "validate", same_result)
    how = {"train__patience": 1, "train__validate_every": 2, "train__steps": 99}
    fit(make.recipe(**how), dataset, tmp_path / "waits")  # an epoch has 2 steps
    assert peek_state(tmp_path / "waits" / "last.safetensors").step == 4


def test_a_third_part_is_what_the_evaluation_looks_at(dataset, tmp_path):
    fit(make.recipe(split={"sizes": [3, 2, 1]}), dataset, tmp_path / "run")
    data = json.loads((tmp_path / "run" / "data.json").read_text())
    assert [len(data[part]) for part in ("train", "validation", "test")] == [3, 2, 1]
    scores = from_json((tmp_path / "run" / "scores.json").read_text())
    assert scores.cases == list(data["test"])


def test_regions_are_learnt_and_written_over_each_other(dataset, tmp_path):
    recipe = make.recipe(
        regions=True,
        labels={"both": ["core", "shell"], "ball": ["core"]},
        train__steps=80,
        train__validate_every=80,
        train__learning_rate=5e-3,
        net__name="unet",
    )
    model = fit(recipe, dataset, tmp_path / "run")
    scores = from_json((tmp_path / "run" / "scores.json").read_text())
    assert scores.mean("dice", "both") > 0.6  # the box is harder
    assert scores.mean("dice", "ball") > 0.8
    scan, truth = make.case(77)
    found = model.predict(scan, probabilities=True)
    assert model.names == {"both": 2, "ball": 1}  # as the dataset's files have it
    assert found.probabilities.array.shape[0] == 2
    both, ball = found.labels.array > 0, found.labels.array == 1
    assert 2 * (both & (truth.array > 0)).sum() / (both.sum() + (truth.array > 0).sum()) > 0.6
    np.testing.assert_array_equal(ball[0], found.probabilities.array[1] > 0.5)


def test_ignored_voxels_are_marked_and_do_not_count(dataset, tmp_path):
    fit(make.recipe(ignore=["shell"], train__steps=3, augment={}), dataset, tmp_path / "a")
    scores = from_json((tmp_path / "a" / "scores.json").read_text())
    assert scores.structures == ["core"]
    hit = 0
    for case in scores.cases:
        found = io.read_labels(tmp_path / "a" / "validation" / f"{case}.nii.gz").array
        truth = io.read_labels(dataset[case].label).array
        hit += int((found[truth == 2] == 1).sum())
        both = ((found == 1) & (truth == 1)).sum()
        counted = ((found == 1) & (truth != 2)).sum() + (truth == 1).sum()
        assert scores.value(case, "core", "dice") == pytest.approx(2 * both / counted)
    assert hit  # or nothing was left out
    prepared = next((tmp_path / ".attentus-cache").iterdir())
    assert set(np.unique(np.load(prepared / "labels.npy"))) == {0, 1, 255}
    assert set(np.unique(np.load(prepared / "points.npy")[:, 0])) == {1}


def test_sigterm_saves_and_the_same_command_goes_on(dataset, tmp_path):
    code = (
        f"import sys; sys.path[:0] = {sys.path!r}; import make, torch; from attentus import Dataset, fit\n"
        "torch.set_num_threads(1)\n"
        f"fit(make.recipe(train__steps=2000, train__validate_every=2000, train__checkpoint_every=3600),"
        f" Dataset.open({str(dataset.root)!r}), {str(tmp_path / 'run')!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 300
    while len(read_log(tmp_path / "run" / "metrics.jsonl")) < 3 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, told = process.communicate(timeout=300)
    assert "KeyboardInterrupt" in told
    reached = peek_state(tmp_path / "run" / "last.safetensors")
    assert 0 < reached.step < 2000
    assert not reached.finished


def test_a_loss_that_is_not_finite_keeps_the_batch(dataset, tmp_path, monkeypatch):
    real, calls = loop.augment.apply, []

    def broken(images, labels, *rest):
        calls.append(1)
        images, labels = real(images, labels, *rest)
        return (images * float("nan") if len(calls) == 4 else images), labels

    monkeypatch.setattr(loop.augment, "apply", broken)
    with pytest.raises(TrainingStopped, match=r"at step 3 \(patches: case_0(?s:.*)failed-step-3\.safetensors"):
        fit(make.recipe(), dataset, tmp_path / "run")
    batch = load_file(tmp_path / "run" / "failed-step-3.safetensors")
    assert batch["images"].shape == (2, 1, 16, 16, 16)
    assert batch["images"].isnan().all()
    assert peek_state(tmp_path / "run" / "last.safetensors").step == 3
    monkeypatch.setattr(loop.augment, "apply", real)
    fit(make.recipe(), dataset, tmp_path / "run")  # and it goes on from there
    fit(make.recipe(), dataset, tmp_path / "undisturbed")
    one, two = weights(tmp_path / "run"), weights(tmp_path / "undisturbed")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_full_disk_keeps_the_last_checkpoint(dataset, tmp_path, monkeypatch):
    real, calls = state.save_file, []

    def full(tensors, path, **options):
        calls.append(1)
        if len(calls) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        real(tensors, path, **options)

    monkeypatch.setattr(state, "save_file", full)
    with pytest.raises(AttentusError, match=r"last\.safetensors: the disk is full"):
        fit(make.recipe(), dataset, tmp_path / "run")
    assert peek_state(tmp_path / "run" / "last.safetensors").step == 4
    assert not [p for p in (tmp_path / "run").iterdir() if "part" in p.name]
    monkeypatch.setattr(state, "save_file", real)
    assert fit(make.recipe(), dataset, tmp_path / "run")


def test_a_dying_loader_tells_why(dataset, tmp_path, monkeypatch):
    real = PatchSampler.cut

    def dying(self, number, *rest):
        if number == 5:
            raise MemoryError("cannot allocate 3 GiB")
        return real(self, number, *rest)

    monkeypatch.setattr(PatchSampler, "cut", dying)
    with pytest.raises(MemoryError, match="cannot allocate 3 GiB"):
        fit(make.recipe(), dataset, tmp_path / "run")


def test_a_damaged_cache_file_is_named_and_can_be_made_again(dataset, tmp_path):
    fit(make.recipe(train__steps=1), dataset, tmp_path / "a")
    for entry in (tmp_path / ".attentus-cache").iterdir():
        (entry / "image.npy").write_bytes(b"\x93NUMPY broken")
    with pytest.raises(BadInput, match=r"image\.npy: the prepared case is damaged(?s:.*)Delete .* and run again"):
        fit(make.recipe(train__steps=2), dataset, tmp_path / "b")


def test_a_missing_modality_is_left_out_with_its_reason(tmp_path):
    root = make.dataset(tmp_path / "data", cases=4, channels=2)
    file = root / "imagesTr" / "case_01.nii.gz"
    scan = io.read(file)
    io.write(type(scan)(scan.array[:1], scan.grid), file, overwrite=True)
    fit(make.recipe(train__steps=1, split__folds=2), Dataset.open(root), tmp_path / "run")
    left_out = json.loads((tmp_path / "run" / "data.json").read_text())["left out"]
    assert list(left_out) == ["case_01"]
    assert "has 1 channel(s), the dataset names ['channel 0', 'channel 1']" in left_out["case_01"]


# Fine-tuning


@pytest.fixture(scope="module")
def donor(dataset, tmp_path_factory):
    """A model of both structures, outputs exchanged, so that names and positions disagree."""
    folder = tmp_path_factory.mktemp("donor") / "run"
    fit(make.recipe(labels=["shell", "core"], train__steps=4), dataset, folder)
    return folder


def resolved(dataset, **changes):
    from attentus.data.resolve import resolve

    return resolve(make.recipe(**changes), dataset)


def made(recipe):
    how = recipe.net
    outputs = len(recipe.labels) + (not recipe.regions)
    return nets.create(how.name, how.dims, len(recipe.channels), outputs, **how.options)


def pick(tensor, outputs, of=3):
    """Some outputs of a head; the last convolution of the Attention U-Net joins four maps per output."""
    if tensor.ndim > 1 and tensor.shape[1] == 4 * of:
        tensor = tensor[:, [of * block + output for block in range(4) for output in outputs]]
    return tensor[outputs]


def test_weights_are_taken_by_name_and_outputs_by_structure(dataset, donor):
    recipe = resolved(dataset)
    net, old = made(recipe), Model.load(donor).net.state_dict()
    told = transfer(net, recipe, donor)
    new = net.state_dict()
    heads = [one.name for one in told if one.how not in ("whole", "new")]
    assert heads
    assert all(one.how == "background, core, shell of 3 outputs" for one in told if one.name in heads)
    for name, tensor in new.items():
        expected = pick(old[name], [0, 2, 1]) if name in heads else old[name]
        torch.testing.assert_close(tensor, expected, rtol=0, atol=0)


def test_only_shared_structures_are_taken(dataset, donor):
    recipe = resolved(dataset, labels={"ball": ["core"], "shell": ["shell"]})
    net = made(recipe)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    told = {one.name: one.how for one in transfer(net, recipe, donor)}
    heads = [name for name, how in told.items() if how == "background, shell of 3 outputs"]
    old = Model.load(donor).net.state_dict()
    for name in heads:
        assert torch.equal(net.state_dict()[name][1], before[name][1])  # "ball" is new
        assert torch.equal(pick(net.state_dict()[name], [0, 2]), pick(old[name], [0, 1]))


def test_a_unet_goes_into_an_attention_unet(dataset, tmp_path):
    fit(make.recipe(net__name="unet", train__steps=2), dataset, tmp_path / "unet")
    recipe = resolved(dataset)
    net = made(recipe)
    told = transfer(net, recipe, tmp_path / "unet")
    new = {one.name for one in told if one.how == "new"}
    assert new
    assert all("gat" in name for name in new)  # gates and the gating signal are all that a U-Net lacks


def test_fine_tuning_starts_where_the_model_ended(dataset, donor, tmp_path):
    progress = make.Watcher()
    how = {"labels": ["shell", "core"], "train__learning_rate": 1e-12, "train__steps": 1, "train__clip": None}
    fit(make.recipe(**how, start={"model": str(donor)}), dataset, tmp_path / "run", progress=progress)
    assert any(line.startswith("taken: ") for line in progress.said)
    old, new = weights(donor), weights(tmp_path / "run")
    for name in old:
        if not name.endswith(("running_mean", "running_var", "num_batches_tracked")):
            torch.testing.assert_close(old[name], new[name], rtol=1e-6, atol=1e-8)


def test_a_model_that_is_not_there_leaves_nothing_behind(dataset, tmp_path):
    with pytest.raises(BadFile, match="is no model folder"):
        fit(make.recipe(start={"model": str(tmp_path / "none")}), dataset, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert fit(make.recipe(train__steps=1), dataset, tmp_path / "run")


def test_another_net_has_nothing_to_take(dataset, donor):
    recipe = resolved(dataset, net={"name": "ra-unet", "options": {"preset": "tiny"}}, train__patch=[32, 32, 32])
    with pytest.raises(RecipeError, match="no weight of 'ra-unet' has its like"):
        transfer(made(recipe), recipe, donor)
    with pytest.raises(BadFile, match="is no model folder"):
        transfer(made(recipe), recipe, donor / "validation")


def test_frozen_weights_stay(dataset, donor, tmp_path):
    names = {name.split(".")[0] for name, _ in Model.load(donor).net.named_parameters()}
    part = min(names)
    fit(make.recipe(start={"model": str(donor), "freeze": [part]}, train__steps=2), dataset, tmp_path / "run")
    old, new = weights(donor), weights(tmp_path / "run")
    trained = {name for name in old if name.endswith(("weight", "bias")) and not torch.equal(old[name], new[name])}
    assert trained
    assert not any(name.startswith(f"net.{part}.") for name in trained)
    with pytest.raises(RecipeError, match="no weight of the net begins with 'encodr'"):
        freeze(Model.load(donor).net, ["encodr"])
    with pytest.raises(RecipeError, match="nothing is left to train"):
        freeze(Model.load(donor).net, sorted(names))


# Rehearsal


def test_a_rehearsal_tells_what_fits(dataset):
    recipe = make.recipe(net__name="unet", train__learning_rate=5e-3, train__steps=1000)
    found = rehearse(recipe, dataset, minutes=1, steps=80)
    assert found.verdict == "fits"
    assert len(found.cases) == 2
    assert min(found.dice.values()) > 0.8
    assert found.losses[1] < 0.5 * found.losses[0]
    assert found.hours == pytest.approx(1000 * found.seconds_per_step / 3600)
    assert 0 < found.share["core"] < 0.2


def test_a_rehearsal_tells_what_does_not_learn(dataset, tmp_path):
    """Labels that have nothing to do with the images."""
    root = make.dataset(tmp_path, cases=3)
    for number, file in enumerate(sorted((root / "imagesTr").iterdir())):
        scan = io.read(file)
        noise = np.random.default_rng(number).normal(size=scan.array.shape).astype(np.float32)
        io.write(type(scan)(noise, scan.grid), file, overwrite=True)
    found = rehearse(make.recipe(train__learning_rate=1e-5), Dataset.open(root), minutes=0.5, steps=10)
    assert found.verdict == "does not learn"
    assert any("look at images and labels" in line for line in found.advice)


def test_fewer_structures_take_their_rows_and_columns(dataset, donor):
    recipe = resolved(dataset, labels=["core"])
    net = made(recipe)
    told = {one.name: one.how for one in transfer(net, recipe, donor)}
    assert set(told.values()) == {"whole", "background, core of 2 outputs"}
    old = Model.load(donor).net.state_dict()
    joined = [name for name, tensor in old.items() if tensor.shape[:2] == (3, 12)]
    assert joined
    for name, how in told.items():
        expected = old[name] if how == "whole" else pick(old[name], [0, 2])
        torch.testing.assert_close(net.state_dict()[name], expected, rtol=0, atol=0)


def test_outputs_left_out_of_the_loss_have_no_vote(dataset, tmp_path):
    recipe = make.recipe(loss={"name": "dice", "options": {"active": [0, 2]}}, train__steps=1)
    model = fit(recipe, dataset, tmp_path / "run")
    with torch.no_grad():
        for name, bias in model.net.named_parameters():
            if name.endswith("bias") and bias.shape == (3,):
                bias[1] = 1e3  # it would win everywhere
    labels = model.predict(make.case(77)[0], probabilities=True)
    assert 1 not in np.unique(labels.labels.array)
    assert not labels.probabilities.array[1].any()

"""Several processes share a batch and end where one would have."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import make
import pytest
import torch
from safetensors.torch import load_file

from attentus import Dataset, fit
from attentus.errors import BadInput
from attentus.recipes import dump
from attentus.train.log import read_log
from attentus.train.state import peek_state

RUN = Path(sys.executable).with_name("attentus")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make.dataset(tmp_path_factory.mktemp("data"), cases=6)


def recipe(**changes):
    """Whose net normalises each patch on its own, so that it does not matter who else is in the batch."""
    net = {"name": "plain-unet", "options": {"preset": "tiny"}}
    return make.recipe(net=net, train__patch=[32, 32, 32], train__batch=4, train__steps=4, **changes)


def train(data, out, recipe, *options):
    file = out.with_suffix(".yaml")
    file.write_text(dump(recipe))
    command = [str(RUN), "train", str(file), str(data), "-o", str(out), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def of_steps(folder, what):
    return [line[what] for line in read_log(folder / "metrics.jsonl") if line["kind"] == "step"]


def test_two_processes_train_as_one(data, tmp_path):
    how = recipe(train__validate_every=2, train__accumulate=2)
    done = train(data, tmp_path / "two", how, "--devices", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("model: ") == 1  # told once
    fit(how, Dataset.open(data), tmp_path / "one")
    assert of_steps(tmp_path / "two", "loss") == pytest.approx(of_steps(tmp_path / "one", "loss"), rel=1e-4)
    one, two = (
        [line["mean"] for line in read_log(tmp_path / run / "metrics.jsonl") if line["kind"] == "validation"]
        for run in ("one", "two")
    )
    assert one == pytest.approx(two, abs=0.02)
    assert len(one) == 2
    left, right = (load_file(tmp_path / run / "last.safetensors") for run in ("one", "two"))
    assert left.keys() == right.keys()
    nets = [name for name in left if name.startswith("net.")]
    apart = max(float((left[name] - right[name]).abs().max()) for name in nets)
    assert apart < 2 * 4 * 1e-3  # Adam turns the rounding of a tiny gradient into at most a step each way
    assert sum(torch.allclose(left[name], right[name], atol=1e-4) for name in nets) > 0.8 * len(nets)
    assert (tmp_path / "two" / "scores.json").is_file()


def test_an_error_is_told_once_and_ends_all(data, tmp_path):
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "something.txt").write_text("mine")
    done = train(data, tmp_path / "two", recipe(), "--devices", "2")
    assert done.returncode == 2
    assert done.stderr.count("is not empty and holds no run") == 1


def test_batches_that_do_not_divide_are_refused(data, tmp_path):
    with pytest.raises(BadInput, match=r"batch of 4 cannot be divided among 3 devices(?s:.*)multiple of 3"):
        fit(recipe(), Dataset.open(data), tmp_path / "run", devices=3)


def test_ctrl_c_stops_all_processes_at_one_step(data, tmp_path):
    """A terminal sends it to each of them; they must agree where to stop, or one would wait for the other forever."""
    file = tmp_path / "r.yaml"
    file.write_text(dump(recipe(train__validate_every=9999).model_copy(update={"name": "long"})))
    command = [str(RUN), "train", str(file), str(data), "-o", str(tmp_path / "run"), "--devices", "2"]
    command += ["--set", "train.steps=9999", "--set", "train.checkpoint_every=3600"]
    process = subprocess.Popen(command, start_new_session=True, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 300
    while len(of_steps(tmp_path / "run", "loss")) < 3 and time.monotonic() < limit:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    try:
        _, told = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 130, told
    assert told.count("run the same command again to go on") == 1
    assert peek_state(tmp_path / "run" / "last.safetensors").step >= 3

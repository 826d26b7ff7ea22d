"""Schedule, state and log on their own."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from attentus.errors import BadFile
from attentus.recipes.schema import Schedule
from attentus.train.log import Log, read_log
from attentus.train.schedule import factor
from attentus.train.state import State, load_state, peek_state, save_state


def test_step_schedule_of_the_attention_unet():
    how = Schedule(name="step", every=0.25, factor=0.5)
    rates = [1e-4 * factor(epoch / 1000, how) for epoch in (0, 249, 250, 499, 500, 999)]
    assert rates == pytest.approx([1e-4, 1e-4, 5e-5, 5e-5, 2.5e-5, 1.25e-5])


def test_schedules_by_hand():
    assert factor(0.5, Schedule(name="cosine")) == pytest.approx(0.5)
    assert factor(1.0, Schedule(name="cosine")) == pytest.approx(0)
    assert factor(0.5, Schedule(name="polynomial")) == pytest.approx(0.5**0.9)
    assert factor(0.7, Schedule(name="constant")) == 1
    warm = Schedule(name="constant", warm_up=0.1)
    assert factor(0.0, warm) == 0.01
    assert factor(0.05, warm) == pytest.approx(0.5)
    assert factor(0.1, warm) == 1


@pytest.mark.parametrize("name", ["constant", "cosine", "polynomial", "step"])
def test_schedules_never_leave_0_to_1(name):
    for warm_up in (0.0, 0.3, 1.0):
        values = [factor(k / 50, Schedule(name=name, warm_up=warm_up)) for k in range(51)]
        assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_state_comes_back_whole(tmp_path, kind):
    def one(seed):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
        options = {"momentum": 0.9} if kind is torch.optim.SGD else {}
        return net, kind(net.parameters(), lr=0.1, **options)

    def step(net, optimiser, seed):
        torch.manual_seed(seed)
        optimiser.zero_grad()
        net(torch.randn(5, 3)).square().sum().backward()
        optimiser.step()

    net, optimiser = one(0)
    for seed in range(3):
        step(net, optimiser, seed)
    save_state(tmp_path / "s.safetensors", State(3, 1.5, 0.7, 2), net, optimiser)
    other, other_optimiser = one(9)
    state = load_state(tmp_path / "s.safetensors", other, other_optimiser)
    assert state == State(3, 1.5, 0.7, 2)
    assert peek_state(tmp_path / "s.safetensors") == state
    for pair in ((net, optimiser), (other, other_optimiser)):
        step(*pair, 7)
    for (name, a), b in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=name)


def test_a_damaged_state_is_named(tmp_path):
    assert peek_state(tmp_path / "nothing") is None
    file = tmp_path / "s.safetensors"
    file.write_bytes(b"rubbish")
    with pytest.raises(BadFile, match="damaged"):
        peek_state(file)
    net = nn.Linear(2, 2)
    with pytest.raises(BadFile, match="no state this training can go on from"):
        load_state(file, net, torch.optim.Adam(net.parameters()))


def test_the_log_forgets_what_will_be_done_again(tmp_path):
    log = Log(tmp_path, 0)
    for step in (1, 2, 3):
        log.write("step", step, loss=1 / step)
    log.write("validation", 3, mean=0.5)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "step", "st')  # a crash in the middle of a line
    assert [line["step"] for line in read_log(tmp_path / "metrics.jsonl")] == [1, 2, 3, 3]
    log = Log(tmp_path, 2)
    log.write("step", 3, loss=9.0)
    log.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1]["loss"] == 9.0

"""Recomputed blocks: same loss, gradients, statistics and random numbers, less kept; for every net of the catalogue."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from netting import drive, equal, passing, small
from torch import nn

from attentus import nets
from attentus.nets.recompute import recomputing

BUILT_IN = [name for name in nets.names() if nets.card(name)]


def pair(name, dims=2, **options):
    """The same net twice, the second one recomputing; both in training."""
    plain, lean = (small(name, dims, checkpoint=checkpoint, **options).train() for checkpoint in (False, True))
    assert list(plain.state_dict()) == list(lean.state_dict())
    return plain, lean


def step(net, x, seed=0):
    """Loss of one pass there and back."""
    torch.manual_seed(seed)
    loss = sum(output.square().mean() for output in net(x))
    loss.backward()
    return loss


def hold_equal(plain, lean):
    for (name, a), b in zip(plain.named_parameters(), lean.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-5, atol=1e-7, msg=name)
    for (name, a), b in zip(plain.named_buffers(), lean.buffers(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7, msg=name)


@pytest.mark.parametrize(("name", "dims"), [*((name, 2) for name in BUILT_IN), ("attention-unet", 3)])
def test_loss_gradients_and_statistics_stay_as_they_are(name, dims):
    plain, lean = pair(name, dims)
    x = torch.randn(2, 1, *[32] * dims)
    torch.testing.assert_close(step(plain, x), step(lean, x))
    hold_equal(plain, lean)


@pytest.mark.parametrize("name", BUILT_IN)
def test_less_is_kept(name):
    plain, lean = pair(name)
    x = torch.randn(2, 1, 32, 32)
    assert kept(lean, x) < 0.8 * kept(plain, x)


def kept(net, x):
    """Bytes that a pass keeps for the way back, weights aside; each storage counts once."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in net.parameters()}
    found = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        outputs = net(x)
    assert outputs[0].requires_grad
    return sum(found.values())


def test_batches_are_counted_once():
    _, lean = pair("classic-unet")
    x = torch.randn(2, 1, 32, 32)
    step(lean, x)
    step(lean, x)
    norms = [module for module in lean.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {int(norm.num_batches_tracked) for norm in norms} == {2}
    assert {norm.momentum for norm in norms} == {0.1}


def test_dropout_drops_the_same_channels_again():
    plain, lean = pair("fcn", dropout=0.5)
    x = torch.randn(2, 1, 32, 32)
    losses = [step(plain, x, seed).item() for seed in (1, 2)]
    assert losses[0] != losses[1]
    assert [step(lean, x, seed).item() for seed in (1, 2)] == pytest.approx(losses)
    hold_equal(plain, lean)


def test_blocks_run_twice_in_training_and_once_otherwise():
    _, lean = pair("classic-unet")
    x = torch.randn(2, 1, 32, 32)
    first = lean.pyramid.encoder[0][0]
    calls = []
    first.register_forward_hook(lambda *_: calls.append(1))
    step(lean, x)
    assert len(calls) == 2
    with torch.no_grad():
        lean(x)
    assert len(calls) == 3
    lean.eval()(x)[0].sum().backward()
    assert len(calls) == 4


def test_a_copy_and_a_pickle_recompute_with_weights_of_their_own():
    _, lean = pair("classic-unet")
    x = torch.randn(2, 1, 32, 32)
    for other in (copy.deepcopy(lean), pickle.loads(pickle.dumps(lean))):
        before = lean.eval()(x)[0]
        with passing(block=other.pyramid.encoder[0][0]) as seen, torch.enable_grad():
            step(other.train(), x)
        assert len(seen["block"]) == 2
        drive(other.heads[0], 7.0)
        drive(other.pyramid.encoder[0][0], 0.0)
        equal(lean.eval()(x)[0], before)
        equal(other.eval()(x)[0], torch.full_like(before, 7.0))


def test_attention_can_be_listened_to():
    plain, lean = pair("attention-unet")
    x = torch.randn(2, 1, 32, 32)
    heard = []
    for net in (plain, lean):
        with nets.listening(net) as maps:
            step(net, x)
        heard.append(maps)
    assert heard[0].keys() == heard[1].keys() == nets.taps(plain).keys()
    for name, maps in heard[0].items():
        equal(maps, heard[1][name])


def test_layers_that_stand_alone_are_left_alone():
    net = nn.ModuleDict({"head": nn.Conv2d(1, 1, 1), "block": nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())})
    recomputing(net)
    assert [name for name, module in net.named_modules() if "forward" in vars(module)] == ["block"]

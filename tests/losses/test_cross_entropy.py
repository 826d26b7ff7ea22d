"""Cross-entropy, binary cross-entropy and focal loss worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from attentus import losses

# Two voxels, the truth 1 and 0 gets 3/4 and 1/2.
SOFTMAX = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])
SIGMOID = SOFTMAX[:, 1:]
TARGET = torch.tensor([[1, 0]])
FIRST, SECOND = math.log(4 / 3), math.log(2)


def test_dpc_net_by_hand():
    logits, target = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]]).log(), torch.tensor([[0, 1]])
    # -(ln .8 + ln .6)/2
    assert losses.create("cross-entropy")(logits, target).item() == pytest.approx(0.3669845875)
    both = losses.create("dice-cross-entropy", denominator="squared", reduce="global")(logits, target)
    assert both.item() == pytest.approx(0.4919845875, abs=1e-5)


def test_ignored_voxels_leave_the_weighted_mean():
    logits = torch.cat([SOFTMAX, torch.full((1, 2, 1), 7.0)], dim=2)
    target = torch.tensor([[1, 0, 255]])
    loss = losses.create("cross-entropy", weights=[1.0, 3.0])(logits, target).item()
    assert loss == pytest.approx((3 * FIRST + SECOND) / 4)


def test_classes_of_weight_0_alone_cost_nothing():
    logits = torch.randn(1, 3, 4, requires_grad=True)
    loss = losses.create("cross-entropy", weights=[0.0, 1.0, 1.0])(logits, torch.zeros(1, 4))
    loss.backward()
    assert loss == 0
    assert logits.grad.abs().max() == 0


def test_binary_cross_entropy_by_hand():
    loss = losses.create("bce")
    assert loss(SIGMOID, TARGET).item() == pytest.approx((FIRST + SECOND) / 2)
    assert loss(SIGMOID, TARGET[:, None]).item() == pytest.approx((FIRST + SECOND) / 2)
    # A second output of logit 0 costs ln 2 wherever it counts: here in one voxel of two.
    logits, masks = torch.cat([SIGMOID, torch.zeros(1, 1, 2)], dim=1), torch.tensor([[[1, 0], [1, 255]]])
    assert loss(logits, masks).item() == pytest.approx((FIRST + 2 * SECOND) / 3)
    weighted = losses.create("bce", weights=[1.0, 4.0])(logits, masks).item()
    assert weighted == pytest.approx((FIRST + SECOND + 4 * SECOND) / 6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (FIRST / 16 + SECOND / 4) / 2),
        ({"gamma": 0.0}, (FIRST + SECOND) / 2),
        ({"gamma": 1.0}, (FIRST / 4 + SECOND / 2) / 2),
        ({"alpha": 0.75}, (0.75 * FIRST / 16 + 0.25 * SECOND / 4) / 2),
    ],
)
def test_focal_loss_by_hand(options, expected):
    assert losses.create("focal", **options)(SOFTMAX, TARGET).item() == pytest.approx(expected, rel=1e-5)
    binary = losses.create("focal", activation="sigmoid", **options)
    assert binary(SIGMOID, TARGET).item() == pytest.approx(expected, rel=1e-5)
    assert binary(SIGMOID, TARGET[:, None]).item() == pytest.approx(expected, rel=1e-5)


def test_focal_loss_with_weights_by_hand():
    loss = losses.create("focal", weights=[1.0, 3.0])(SOFTMAX, TARGET).item()
    assert loss == pytest.approx((3 * FIRST / 16 + SECOND / 4) / 4, rel=1e-5)
    # Two outputs, the second of logit 0: each of its voxels costs ln 2 / 4 and weighs 3.
    logits, masks = torch.cat([SIGMOID, torch.zeros(1, 1, 2)], dim=1), torch.tensor([[[1, 0], [1, 1]]])
    loss = losses.create("focal", activation="sigmoid", weights=[1.0, 3.0])(logits, masks).item()
    assert loss == pytest.approx((FIRST / 16 + SECOND / 4 + 2 * 3 * SECOND / 4) / 8, rel=1e-5)


def test_confident_mistakes_keep_their_slope():
    """A loss of probabilities would have saturated: 1 - p is 0 in float32 beyond a logit of 17."""
    for name, options in [("bce", {}), ("focal", {"activation": "sigmoid"}), ("anu-hybrid", {"activation": "sigmoid"})]:
        logits = torch.tensor([[[-60.0]]], requires_grad=True)
        losses.create(name, **options)(logits, torch.tensor([[1]])).backward()
        assert logits.grad.item() < -0.5

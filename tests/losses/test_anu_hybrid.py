"""ANU-Net's hybrid loss: the numbers of its three forms, and what is wrong with the printed one."""

from __future__ import annotations

import math

import pytest
import torch

from attentus import losses
from attentus.losses.anu_hybrid import against_rest

P = torch.tensor([0.9, 0.2, 0.6, 0.4], dtype=torch.float64)
TARGET = torch.tensor([[1, 0, 1, 0]])
# Σ p·t 1.5, Σ p² 1.37, Σ t 2: D = 3/3.37. Cross-entropies -ln .9, -ln .8, -ln .6, -ln .6.
DICE = 1 - 3 / 3.37
ENTROPIES = [-math.log(q) for q in (0.9, 0.8, 0.6, 0.6)]
TERMS = {
    # a = .75, .25, .75, .25 times (.5/.4)², (.5/.3)², (.5/.1)², (.5/.1)²
    "safe": [0.75 * 1.5625, 0.25 * 25 / 9, 0.75 * 25, 0.25 * 25],
    # times .1², .2², .4², .4²
    "focal": [0.75 * 0.01, 0.25 * 0.04, 0.75 * 0.16, 0.25 * 0.16],
    # foreground only: divided by .4², .1²
    "literal": [0.75 / 0.16, 0, 0.75 / 0.01, 0],
}
PUBLISHED = {"safe": 3.372060, "focal": 0.130980, "literal": 9.811242}  # of the specification, found independently


@pytest.mark.parametrize("form", TERMS)
def test_every_form_by_hand(form):
    expected = sum(f * e for f, e in zip(TERMS[form], ENTROPIES, strict=True)) / 4 + DICE
    assert expected == pytest.approx(PUBLISHED[form], abs=2e-6)
    one = losses.create("anu-hybrid", form=form, activation="sigmoid")
    assert one(P.logit()[None, None], TARGET).item() == pytest.approx(expected, abs=2e-6)
    two = losses.create("anu-hybrid", form=form)
    assert two(torch.stack([1 - P, P]).log()[None], TARGET).item() == pytest.approx(expected, abs=2e-6)


def test_options_by_hand():
    logits = P.logit()[None, None]
    safe = losses.create("anu-hybrid", activation="sigmoid", alpha=0.5, gamma=1.0, delta=0.25)
    # w = .5/.4, .5/.3, and .5/.25 twice.
    expected = sum(0.5 * w * e for w, e in zip((1.25, 5 / 3, 2, 2), ENTROPIES, strict=True)) / 4 + DICE
    assert safe(logits, TARGET).item() == pytest.approx(expected, abs=2e-6)
    focal = losses.create("anu-hybrid", form="focal", activation="sigmoid", gamma=1.0)
    expected = sum(f * e for f, e in zip((0.075, 0.05, 0.3, 0.1), ENTROPIES, strict=True)) / 4 + DICE
    assert focal(logits, TARGET).item() == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(("form", "slope"), [("safe", -3.281), ("focal", -0.523), ("literal", 34.281)])
def test_the_printed_form_pushes_a_missed_voxel_the_wrong_way(form, slope):
    """A foreground voxel at p = 0.3, without Dice; by hand for the safe form: -.75 · (.5/.2)² · (1 - .3)."""
    loss = losses.create("anu-hybrid", form=form, activation="sigmoid")
    logits = torch.tensor([[[0.3]]], dtype=torch.float64).logit().requires_grad_()
    target = torch.tensor([[1]])
    (loss(logits, target) - loss.dice(logits, target)).backward()
    assert logits.grad.item() == pytest.approx(slope, abs=5e-4)


def test_the_printed_form_keeps_its_distance_from_0_half_and_1():
    loss = losses.create("anu-hybrid", form="literal", activation="sigmoid")
    for logit, p, margin in [(40.0, 0.999, 0.499), (-40.0, 0.001, 0.499), (0.0, 0.5, 0.001)]:
        logits, target = torch.tensor([[[logit]]], dtype=torch.float64), torch.tensor([[1]])
        term = loss(logits, target) - loss.dice(logits, target)
        assert term.item() == pytest.approx(-0.75 * math.log(p) / margin**2)


def test_masks_are_averaged():
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 3, 5), torch.randint(0, 2, (2, 3, 5))
    loss = losses.create("anu-hybrid", activation="sigmoid")
    single = [loss(logits[:, k : k + 1], masks[:, k]) for k in range(3)]
    torch.testing.assert_close(loss(logits, masks), torch.stack(single).mean())


def test_each_class_against_the_rest_has_its_softmax_probability():
    torch.manual_seed(0)
    for outputs in (2, 3, 6):
        logits = 5 * torch.randn(2, outputs, 40, dtype=torch.float64)
        torch.testing.assert_close(against_rest(logits).sigmoid(), logits.softmax(1)[:, 1:])
    # Ties and certainty: ln 1/2 less than the rest, and no overflow.
    even = against_rest(torch.zeros(1, 3, 1))
    torch.testing.assert_close(even, torch.full((1, 2, 1), -math.log(2)))
    certain = against_rest(torch.tensor([[[1e4], [-1e4], [0.0]]]))
    torch.testing.assert_close(certain, torch.tensor([[[-2e4], [-1e4]]]))

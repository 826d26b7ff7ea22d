"""Losses worked out by hand, safe with empty masks and in bfloat16."""

from __future__ import annotations

import math

import pytest
import torch

from attentus import losses
from attentus.errors import BadInput, UnknownName
from attentus.losses.combine import coarser, halving


def sure(target: torch.Tensor, classes: int) -> torch.Tensor:
    """Logits that say exactly `target` with all but certainty."""
    return 40.0 * torch.nn.functional.one_hot(target.long(), classes).movedim(-1, 1).float()


def test_dice_by_hand():
    # Two classes, four voxels, probabilities of class 1: .8 .6 .3 .1; truth 1 1 0 0.
    p = torch.tensor([0.8, 0.6, 0.3, 0.1])
    logits = torch.stack([torch.zeros(4), torch.logit(p)])[None]
    target = torch.tensor([[1, 1, 0, 0]])
    foreground = 2 * (0.8 + 0.6) / (1.8 + 2)
    background = 2 * (0.7 + 0.9) / (2.2 + 2)
    expected = 1 - (foreground + background) / 2
    assert losses.create("dice")(logits, target).item() == pytest.approx(expected, abs=1e-5)


def test_dice_of_a_class_absent_from_both_costs_nothing():
    target = torch.zeros(1, 4, 4, dtype=torch.long)
    assert losses.create("dice")(sure(target, 3), target).item() == pytest.approx(0, abs=1e-4)


def test_the_release_style_doubles_the_smoothing():
    dice = losses.create("dice", style="release")
    target = torch.zeros(1, 1, 2, dtype=torch.long)
    target[0, 0, 1] = 1
    # Class 0 and class 1 hold one voxel each and score 1.004975; class 2 is absent and scores 2.
    expected = 1 - (1.0049751 + 1.0049751 + 2) / 3
    assert dice(sure(target, 3), target).item() == pytest.approx(expected, abs=1e-5)


def test_dice_is_averaged_over_samples_or_counted_over_the_batch():
    target = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 1]])
    said = torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]])
    each = losses.create("dice")(sure(said, 2), target).item()
    pooled = losses.create("dice", batch=True)(sure(said, 2), target).item()
    # Sample 1: absent class 0 scores 1, class 1 scores 1. Sample 2: class 0 scores 6/7, class 1 scores 0.
    assert each == pytest.approx(1 - (1 + 1 + 6 / 7 + 0) / 4, abs=1e-4)
    assert pooled == pytest.approx(1 - (6 / 7 + 8 / 9) / 2, abs=1e-4)


def test_inactive_classes_get_no_gradient():
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 5, 5, requires_grad=True)
    target = torch.randint(0, 2, (2, 5, 5)) * 2
    loss = losses.create("dice", active=[0, 2])(logits, target)
    loss.backward()
    assert 0 <= loss.item() <= 1
    assert logits.grad[:, [1, 3]].abs().max() == 0
    assert logits.grad[:, [0, 2]].abs().min() > 0


def test_cross_entropy_by_hand():
    logits = torch.tensor([[[0.0, 0.0], [math.log(3), 0.0]]])  # P(1) = 0.75, 0.5
    target = torch.tensor([[1, 0]])
    loss = losses.create("cross-entropy")(logits, target).item()
    assert loss == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)
    weighted = losses.create("cross-entropy", weights=[1.0, 3.0])(logits, target).item()
    assert weighted == pytest.approx((3 * math.log(4 / 3) + math.log(2)) / 4)


def test_the_sum_is_the_sum_of_its_parts():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    parts = 0.5 * losses.create("dice")(logits, target) + 2 * losses.create("cross-entropy")(logits, target)
    both = losses.create("dice-cross-entropy", dice=0.5, cross_entropy=2.0)(logits, target)
    torch.testing.assert_close(both, parts)


def test_deep_supervision_weighs_its_outputs():
    assert halving(3) == pytest.approx([4 / 7, 2 / 7, 1 / 7])
    torch.manual_seed(0)
    target = torch.randint(0, 2, (1, 6))
    outputs = tuple(torch.randn(1, 2, 6) for _ in range(2))
    loss = losses.create("cross-entropy")
    single = [loss(output, target) for output in outputs]
    torch.testing.assert_close(losses.DeepSupervision(loss)(outputs, target), (2 * single[0] + single[1]) / 3)
    torch.testing.assert_close(losses.DeepSupervision(loss, [1, 1])(outputs, target), single[0] + single[1])


def test_coarse_outputs_are_compared_with_every_second_fourth_voxel():
    target = torch.arange(5 * 7).view(1, 5, 7) % 2
    assert torch.equal(coarser(target, (5, 7)), target)
    assert torch.equal(coarser(target, (3, 4)), target[:, ::2, ::2])
    assert torch.equal(coarser(target, (2, 2)), target[:, ::4, ::4])
    with pytest.raises(BadInput, match=r"\[4, 4\] is not a halved form of the target's \[5, 7\]"):
        coarser(target, (4, 4))


def test_outputs_of_weight_0_are_left_out_and_weights_must_be_as_many_as_outputs():
    torch.manual_seed(0)
    target = torch.randint(0, 2, (1, 6, 6))
    fine, coarse = torch.randn(1, 2, 6, 6), torch.full((1, 2, 3, 3), torch.nan)
    loss = losses.create("cross-entropy")
    total = losses.DeepSupervision(loss, [1.0, 0.0])((fine, coarse), target)
    torch.testing.assert_close(total, loss(fine, target))
    with pytest.raises(BadInput, match="The net has 2 outputs, but 3 weights"):
        losses.DeepSupervision(loss, [1, 1, 1])((fine, coarse), target)


@pytest.mark.parametrize("name", losses.names())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("filled", [0, 1, "random"])
def test_contract(name, dtype, filled):
    torch.manual_seed(0)
    target = torch.randint(0, 3, (2, 4, 5, 6)) if filled == "random" else torch.full((2, 4, 5, 6), filled)
    for scale in (1.0, 100.0):
        logits = (scale * torch.randn(2, 3, 4, 5, 6)).to(dtype).requires_grad_()
        loss = losses.create(name)(logits, target.to(torch.uint8))
        assert loss.shape == ()
        assert loss.dtype == torch.float32
        assert torch.isfinite(loss)
        assert loss >= 0
        loss.backward()
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", losses.names())
def test_gradients_are_the_slopes(name):
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 2, 3, dtype=torch.float32, requires_grad=True)
    target = torch.randint(0, 3, (1, 2, 3))
    loss = losses.create(name)
    loss(logits, target).backward()
    step = 1e-2
    for index in [(0, 0, 0, 0), (0, 2, 1, 2)]:
        moved = logits.detach().clone()
        moved[index] += step
        up = loss(moved, target)
        moved[index] -= 2 * step
        down = loss(moved, target)
        assert (up - down).item() / (2 * step) == pytest.approx(logits.grad[index].item(), abs=2e-3)


@pytest.mark.parametrize("name", losses.names())
def test_the_truth_costs_nothing(name):
    target = torch.randint(0, 3, (2, 6, 6))
    assert losses.create(name)(sure(target, 3), target).item() == pytest.approx(0, abs=1e-4)


def test_unknown_losses_are_answered():
    with pytest.raises(UnknownName, match=r"No loss is called 'dise'\. Did you mean 'dice'"):
        losses.create("dise")

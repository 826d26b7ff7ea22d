"""Dice and Tversky worked out by hand."""

from __future__ import annotations

import pytest
import torch

from attentus import losses
from attentus.errors import BadInput

# DPC-Net's example: two voxels, two classes, p = [[.8, .2], [.4, .6]], truth 0, 1.
#   class 0: Σpt .8, Σp 1.2, Σp² .80, Σt 1
#   class 1: Σpt .6, Σp 0.8, Σp² .40, Σt 1
LOGITS = torch.tensor([[[0.8, 0.4], [0.2, 0.6]]]).log()
TARGET = torch.tensor([[0, 1]])


def by_hand(value: float):
    return pytest.approx(value, abs=2e-5)


@pytest.mark.parametrize(
    ("options", "score"),
    [
        ({}, (1.6 / 2.2 + 1.2 / 1.8) / 2),
        ({"denominator": "squared"}, (1.6 / 1.8 + 1.2 / 1.4) / 2),
        ({"reduce": "global"}, 2.8 / 4),
        ({"reduce": "global", "denominator": "squared"}, 2.8 / 3.2),  # DPC-Net Eq. 12: a loss of 0.125
        ({"background": False}, 1.2 / 1.8),
        ({"background": False, "reduce": "global"}, 1.2 / 1.8),
        ({"weights": [1, 3]}, (1.6 / 2.2 + 3 * 1.2 / 1.8) / 4),
        ({"weights": [1, 3], "reduce": "global"}, (1.6 + 3 * 1.2) / (2.2 + 3 * 1.8)),
        ({"weights": [1, 3], "background": False}, 1.2 / 1.8),
        ({"smooth": 1.0}, (2.6 / 3.2 + 2.2 / 2.8) / 2),
        ({"smooth": 1.0, "reduce": "global"}, 3.8 / 5),
        ({"smooth": 1.0, "denominator": "squared"}, (2.6 / 2.8 + 2.2 / 2.4) / 2),
        ({"smooth": 1.0, "style": "release"}, (3.6 / 3.2 + 3.2 / 2.8) / 2),
    ],
)
def test_every_option_by_hand(options, score):
    assert losses.create("dice", **options)(LOGITS, TARGET).item() == by_hand(1 - score)


def test_over_the_batch_by_hand():
    logits, target = LOGITS.permute(2, 1, 0), TARGET.T  # the two voxels as two samples
    # Sample 1: class 0 scores 1.6/1.8, class 1 0. Sample 2: class 0 scores 0, class 1 1.2/1.6.
    assert losses.create("dice")(logits, target).item() == by_hand(1 - (1.6 / 1.8 + 1.2 / 1.6) / 4)
    # Each sample has one ratio: 1.6/2 and 1.2/2.
    assert losses.create("dice", reduce="global")(logits, target).item() == by_hand(1 - (0.8 + 0.6) / 2)
    for options in ({}, {"reduce": "global"}, {"denominator": "squared"}):
        pooled = losses.create("dice", batch=True, **options)(logits, target)
        torch.testing.assert_close(pooled, losses.create("dice", **options)(LOGITS, TARGET))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"denominator": "squared"}, 0.0654205607),  # Eq. 3: 1 - 3 / (1.21 + 2)
        ({"smooth": 1.0}, 0.1489361702),  # the authors' code: 1 - (3 + 1) / (1.7 + 2 + 1)
    ],
)
def test_ra_unet_by_hand(options, expected):
    p = torch.tensor([0.9, 0.2, 0.6])
    target = torch.tensor([[1, 0, 1]])
    one = losses.create("dice", batch=True, activation="sigmoid", **options)
    assert one(p.logit()[None, None], target).item() == by_hand(expected)
    two = losses.create("dice", batch=True, background=False, **options)
    assert two(torch.stack([1 - p, p]).log()[None], target).item() == by_hand(expected)


def test_overlapping_masks_by_hand():
    p = torch.tensor([[[0.9, 0.5], [0.2, 0.6]]])
    target = torch.tensor([[[1, 1], [0, 1]]])
    # Mask 1: 2.8/(1.4 + 2). Mask 2: 1.2/(0.8 + 1). There is no background among masks.
    for background in (True, False):
        loss = losses.create("dice", activation="sigmoid", background=background)
        assert loss(p.logit(), target).item() == by_hand(1 - (2.8 / 3.4 + 1.2 / 1.8) / 2)


def test_sigmoid_of_integers_sets_each_class_against_the_rest():
    torch.manual_seed(0)
    logits, target = torch.randn(1, 3, 6), torch.tensor([[0, 1, 2, 2, 255, 0]])
    masks = torch.stack([(target == k).int() for k in range(3)], dim=1)
    masks[..., 4] = 255
    loss = losses.create("dice", activation="sigmoid")
    torch.testing.assert_close(loss(logits, target), loss(logits, masks))
    without = losses.create("dice", activation="sigmoid", background=False)
    torch.testing.assert_close(without(logits, target), loss(logits[:, 1:], masks[:, 1:]))


def test_active_classes_of_masks_are_those_of_the_chosen_outputs():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 6), torch.randint(0, 2, (2, 3, 6))
    target[0, 1, 2] = losses.IGNORE
    chosen = losses.create("dice", activation="sigmoid", active=[2, 1])(logits, target)
    torch.testing.assert_close(chosen, losses.create("dice", activation="sigmoid")(logits[:, 1:], target[:, 1:]))
    with pytest.raises(BadInput, match=r"active holds \[0, 3\], but the net has outputs 0..2"):
        losses.create("dice", active=[0, 3])(logits, target[:, 0])


def test_active_classes_come_in_any_order():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 6), 2 * torch.randint(0, 2, (2, 6))
    either = [losses.create("dice", active=active, background=False)(logits, target) for active in ([2, 0], [0, 2])]
    torch.testing.assert_close(*either)
    # Softmax over two outputs, of which only the second is scored.
    assert either[0] == losses.create("dice", background=False)(logits[:, [0, 2]], target // 2)


def test_a_global_ratio_counts_every_sample_once():
    torch.manual_seed(0)
    logits, masks = torch.randn(2, 2, 6), torch.randint(0, 2, (2, 2, 6))
    masks[0, 1] = losses.IGNORE
    loss = losses.create("dice", activation="sigmoid", reduce="global")
    single = [loss(logits[:1, :1], masks[:1, :1]), loss(logits[1:], masks[1:])]
    torch.testing.assert_close(loss(logits, masks), torch.stack(single).mean())


# Tversky on DPC-Net's example: class 0 has TP .8, FP .4, FN .2; class 1 has TP .6, FP .2, FN .4.
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 1 - (0.8 / 1.06 + 0.6 / 0.94) / 2),  # .8/(.8 + .3·.4 + .7·.2), .6/(.6 + .3·.2 + .7·.4)
        ({"alpha": 1.0, "beta": 1.0}, 1 - (0.8 / 1.4 + 0.6 / 1.2) / 2),  # the soft Jaccard index
        ({"alpha": 1.0, "beta": 0.0}, 1 - (0.8 / 1.2 + 0.6 / 0.8) / 2),  # the soft precision
        ({"gamma": 0.75}, ((0.26 / 1.06) ** 0.75 + (0.34 / 0.94) ** 0.75) / 2),
        ({"smooth": 1.0}, 1 - (1.8 / 2.06 + 1.6 / 1.94) / 2),
        ({"background": False}, 0.34 / 0.94),
        ({"weights": [1, 3]}, (0.26 / 1.06 + 3 * 0.34 / 0.94) / 4),
    ],
)
def test_tversky_by_hand(options, expected):
    assert losses.create("tversky", **options)(LOGITS, TARGET).item() == by_hand(expected)


def test_tversky_over_the_batch():
    logits, target = LOGITS.permute(2, 1, 0), TARGET.T
    assert losses.create("tversky", batch=True)(logits, target).item() == by_hand(1 - (0.8 / 1.06 + 0.6 / 0.94) / 2)


def test_tversky_with_even_prices_is_dice():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 9), torch.randint(0, 3, (2, 9))
    tversky = losses.create("tversky", alpha=0.5, beta=0.5, smooth=0.1)
    torch.testing.assert_close(tversky(logits, target), losses.create("dice", smooth=0.2)(logits, target))


def test_a_higher_price_of_misses_favours_too_much_over_too_little():
    target = torch.tensor([[0, 0, 1, 1]])
    more, less = torch.tensor([[0, 1, 1, 1]]), torch.tensor([[0, 0, 0, 1]])
    loss = losses.create("tversky", alpha=0.1, beta=0.9, background=False)
    said = [80.0 * torch.stack([1 - labels, labels], dim=1) for labels in (more, less)]
    # 2/(2 + .1) against 1/(1 + .9).
    assert [loss(logits, target).item() for logits in said] == [by_hand(1 - 2 / 2.1), by_hand(1 - 1 / 1.9)]

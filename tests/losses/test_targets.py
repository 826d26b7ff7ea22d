"""Targets: integers, masks of regions, and what is refused."""

from __future__ import annotations

import pytest
import torch

from attentus import losses
from attentus.errors import BadInput

# BraTS: 1 necrosis, 2 oedema, 3 enhancing; whole tumour, core, enhancing tumour.
TABLE = torch.tensor([[0, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int64])
def test_regions_by_hand(dtype):
    target = torch.tensor([[[0, 1, 2], [3, 255, 3]]]).to(dtype)
    found = losses.regions(target, TABLE.bool())
    assert found.dtype == torch.uint8
    assert found.tolist() == [
        [
            [[0, 1, 1], [1, 255, 1]],
            [[0, 1, 0], [1, 255, 1]],
            [[0, 0, 0], [1, 255, 1]],
        ]
    ]
    assert found.is_contiguous()


def test_region_based_training_learns_nested_regions():
    torch.manual_seed(0)
    labels = torch.tensor([[0, 1, 2, 3, 3, 255]])
    target = losses.regions(labels, TABLE)
    logits = torch.zeros(1, 3, 6, requires_grad=True)
    loss = losses.create("dice-cross-entropy", activation="sigmoid")
    optimiser = torch.optim.Adam([logits], lr=0.5)
    for _ in range(40):
        optimiser.zero_grad()
        loss(logits, target).backward()
        optimiser.step()
    assert torch.equal((logits > 0)[..., :5], target[..., :5] == 1)
    assert logits[..., 5].abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("name", losses.names())
def test_integers_of_any_type_will_do(name, dtype):
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4), torch.tensor([[0, 1, 2, 255], [2, 2, 0, 255]])
    loss = losses.create(name)
    assert torch.equal(loss(logits, target.to(dtype)), loss(logits, target))


def refused(name, logits, target, **options):
    with pytest.raises(BadInput) as caught:
        losses.create(name, **options)(torch.zeros(logits), target)
    return str(caught.value)


@pytest.mark.parametrize("name", [name for name in losses.names() if name != "bce"])
def test_softmax_refuses_masks(name):
    message = refused(name, (2, 3, 4), torch.zeros(2, 3, 4))
    assert message == (
        "A softmax loss of logits [2, 3, 4] expects integers [2, 4], not [2, 3, 4]."
        " Masks, one per output, need activation 'sigmoid'."
    )


@pytest.mark.parametrize("name", losses.names())
def test_other_shapes_and_labels_are_refused(name):
    masks = " masks [2, 3, 4] or" if name == "bce" else ""
    assert f"expects{masks} integers [2, 4], not [2, 5]." in refused(name, (2, 3, 4), torch.zeros(2, 5))
    labels = torch.tensor([[0, 1, 3, 255]])
    assert "holds the label 3; expected are 0..2, and 255 to ignore" in refused(name, (1, 3, 4), labels)
    assert "holds the label -1" in refused(name, (1, 3, 4), torch.tensor([[0, 1, -1, 1]]))


def test_softmax_refuses_a_single_output():
    assert "Softmax over one output is always 1" in refused("dice", (1, 1, 4), torch.zeros(1, 4))


def test_a_single_output_knows_0_and_1():
    assert "expected are 0..1" in refused("bce", (1, 1, 4), torch.tensor([[0, 1, 2, 0]]))


def test_labels_beyond_the_table_are_refused():
    with pytest.raises(BadInput, match=r"holds the label 4; expected are 0\.\.3"):
        losses.regions(torch.tensor([[4]]), TABLE)

"""Early exit: what counts as agreement, and that predictions are those of the head that answered."""

from __future__ import annotations

import make
import numpy as np
import pytest
import torch
from netting import drive

from attentus import Dataset, Model
from attentus.data.resolve import resolve
from attentus.errors import RecipeError
from attentus.infer.early_exit import EarlyExit
from attentus.infer.model import create_net
from attentus.train.fitting import check_buildable


class Heads(torch.nn.Module):
    """Stands for a nested net: keeps what the comparison of two given heads says."""

    def __init__(self, before, now):
        super().__init__()
        self.before, self.now = before, now

    def forward_until(self, x, agree):
        self.agreed = agree(self.before, self.now).tolist()
        return self.now, torch.full((len(x),), 2)


def agreed(before, now, agreement, **options):
    """Whether heads with these logits (N, K, voxels) agree, by sample."""
    net = Heads(torch.tensor(before), torch.tensor(now))
    wrapped = EarlyExit(net, agreement, **options)
    wrapped(torch.zeros(len(before), 1))
    assert wrapped.levels == [2] * len(before)
    return net.agreed


def classes(*samples, count=3):
    """Logits whose largest class is the number given, (N, count, voxels)."""
    return [[[float(c == k) for c in sample] for k in range(count)] for sample in samples]


def test_agreement_is_the_dice_of_the_worst_structure():
    # Structure 1: 2 and 3 voxels, 2 in common: Dice 0.8. Structure 2: 1 and 1, the same: 1. Background does not count.
    one, other = classes([1, 1, 0, 0, 2]), classes([1, 1, 1, 0, 2])
    assert agreed(one, other, 0.8) == [True]
    assert agreed(one, other, 0.81) == [False]
    # Two samples, each by itself; structures that both lack agree, one that only one of them has does not.
    one, other = classes([0, 0, 0], [0, 0, 0]), classes([0, 0, 0], [0, 2, 0])
    assert agreed(one, other, 1.0) == [True, False]


def test_regions_count_each_for_itself():
    one, other = [[[1.0, 1.0, -1.0], [1.0, -1.0, -1.0]]], [[[1.0, 1.0, -1.0], [1.0, 1.0, -1.0]]]
    assert agreed(one, other, 0.66, regions=True) == [True]  # 1 and 2/3
    assert agreed(one, other, 0.67, regions=True) == [False]


def test_outputs_without_a_vote_do_not_win():
    one, other = classes([1, 2, 2]), classes([1, 0, 2])
    assert agreed(one, other, 0.9) == [False]
    assert agreed(one, other, 1.0, mute=[2]) == [True]  # nobody votes for 2: ties go to the background in both
    assert agreed(classes([1, 2, 0]), classes([0, 2, 1]), 1.0, mute=[0, 1]) == [True]


def nested(tmp_path, winners=(1, 1, 2, 2)):
    """A nested net whose head on X[0,j] finds nothing but the class winners[j - 1], as a saved folder."""
    recipe = make.recipe(net__name="anu-net", net__options={"preset": "tiny"})
    resolved = resolve(recipe, Dataset.open(make.dataset(tmp_path / "data", cases=3)))
    net = create_net(resolved)
    for level, winner in enumerate(winners, start=1):
        drive(net.heads[f"x0_{level}"], 0.0)
        net.heads[f"x0_{level}"].bias.data[winner] = 1.0
    Model(resolved, net).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("winners", "level", "found"),
    [((1, 1, 2, 2), 2, 1), ((1, 2, 2, 1), 3, 2), ((1, 2, 1, 2), 4, 2), ((0, 0, 1, 1), 2, 0)],
)
def test_a_prediction_is_that_of_the_head_that_answered(tmp_path, winners, level, found):
    folder, (scan, _) = nested(tmp_path, winners), make.case(1)
    prediction = Model.load(folder, infer={"early_exit": 1.0}).predict(scan)
    assert prediction.level == level
    np.testing.assert_array_equal(np.unique(prediction.labels.array), [found])
    whole = Model.load(folder).predict(scan)
    assert whole.level is None
    np.testing.assert_array_equal(np.unique(whole.labels.array), [winners[-1]])


def test_attention_asks_for_the_whole_net(tmp_path):
    folder, (scan, _) = nested(tmp_path), make.case(1)
    found = Model.load(folder, infer={"early_exit": 1.0}).predict(scan, attention=True)
    assert (len(found.attention), found.level) == (20, None)


def test_nets_without_heads_to_compare_are_refused(tmp_path):
    folder = nested(tmp_path)
    with pytest.raises(RecipeError, match=r"infer\.early_exit"):
        Model.load(folder, infer={"early_exit": 2})
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("preset: tiny", "preset: tiny, ensemble: true"))
    with pytest.raises(
        RecipeError, match=r"early_exit: the net 'anu-net', as it is made here, has no heads to compare"
    ):
        Model.load(folder, infer={"early_exit": 0.9})
    with pytest.raises(RecipeError, match=r"'attention-unet'.*\n.*anu-net and unet\+\+"):
        check_buildable(make.recipe(infer__early_exit=0.9))

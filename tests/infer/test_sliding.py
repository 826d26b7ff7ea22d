from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from attentus.data.patches import window
from attentus.infer.sliding import Walk, Window, sliding_window
from attentus.nets.parts import AttentionTap

sizes = st.tuples(*[st.integers(1, 12)] * 3)


class Pointwise(nn.Module):
    """Says 2x + 1 and -x, whatever lies around; its attention is a sigmoid of x."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.gate = AttentionTap()
        self.calls = []

    def forward(self, x):
        self.calls.append(tuple(x.shape))
        self.gate(torch.sigmoid(x), x)
        return (torch.cat([self.scale * x + 1, -x], dim=1),)


def image(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(1, *shape)).astype(np.float32)


@given(sizes, sizes, st.sampled_from([0.0, 0.5, 0.75]), st.sampled_from(["gaussian", "constant"]), st.integers(1, 3))
def test_a_pointwise_net_is_seamless(shape, size, overlap, blend, batch):
    array = image(shape)
    logits = sliding_window(Pointwise(), array, Window(size, overlap, blend, batch))["logits"]
    np.testing.assert_allclose(logits, np.concatenate([2 * array + 1, -array]), atol=1e-5)


@given(st.integers(1, 40), st.integers(1, 20), st.floats(0, 0.9))
def test_windows_cover_everything_densely_enough(full, size, overlap):
    starts = [z for z, _, _ in Window((size, 1, 1), overlap).starts((full, 1, 1))]
    covered = np.zeros(full, bool)
    for start in starts:
        covered[max(start, 0) : start + size] = True
    assert covered.all()
    if full > size:
        assert starts[0] == 0
        assert starts[-1] == full - size
        assert max(np.diff(starts)) <= max(size * (1 - overlap), 1) + 1
    else:
        assert len(starts) == 1


@given(sizes, sizes, st.sampled_from([0.0, 0.5, 0.75]), st.booleans())
def test_no_row_is_prepared_twice_and_what_was_prepared_is_left_alone(shape, size, overlap, shared):
    array, asked = image(shape), []
    before = array.copy()

    def source(first, last):
        asked.extend(range(first, last))
        return array[:, first:last] if shared else array[:, first:last].copy()

    seen = []

    def run(windows):
        seen.append(windows.copy())
        return {"logits": windows}

    how = Window(size, overlap)
    Walk(run, source, shape, [float(array.min())], how).logits(0, shape[0])
    assert len(asked) == len(set(asked))
    np.testing.assert_array_equal(array, before)
    expected = [window(array, start, size, [float(array.min())]) for start in how.starts(shape)]
    np.testing.assert_array_equal(np.concatenate(seen), expected)


def test_two_dimensional_nets_get_slices_as_a_batch():
    net = Pointwise()
    array = image((7, 10, 9))
    logits = sliding_window(net, array, Window((1, 8, 8), 0.5, batch=4), dims=2)["logits"]
    np.testing.assert_allclose(logits[0], 2 * array[0] + 1, atol=1e-5)
    assert all(len(call) == 4 and call[1:] == (1, 8, 8) for call in net.calls)
    assert max(call[0] for call in net.calls) == 4


@pytest.mark.parametrize("dims", [2, 3])
def test_attention_is_stitched_like_the_logits(dims):
    array = image((6, 10, 9))
    size = (1, 8, 8) if dims == 2 else (4, 8, 8)
    maps = sliding_window(Pointwise(), array, Window(size, 0.5), dims=dims, attention=True)
    assert set(maps) == {"logits", "gate"}
    np.testing.assert_allclose(maps["gate"], 1 / (1 + np.exp(-array)), atol=1e-5)


def test_the_middle_of_a_window_counts_most():
    weight = Window((8, 16, 16)).weight()
    assert weight.shape == (8, 16, 16)
    assert weight.max() == 1
    assert weight[4, 8, 8] == 1
    assert 0 < weight[0, 0, 0] == weight.min()
    np.testing.assert_array_equal(Window((2, 2, 2), blend="constant").weight(), 1)


def test_the_net_is_left_as_it_was():
    net = Pointwise().train()
    sliding_window(net, image((3, 3, 3)), Window((2, 2, 2)))
    assert net.training


def test_windows_are_reported():
    done = []

    class Task:
        def advance(self, steps=1, note="", total=None):
            done.append(steps)

    how = Window((4, 4, 4), 0.5, batch=3)
    sliding_window(Pointwise(), image((8, 8, 8)), how, task=Task())
    assert sum(done) == len(how.starts((8, 8, 8)))

"""FCN-8s, -16s and -32s: exact counts, exact costs, sums of scores by hand, any size."""

from __future__ import annotations

import pytest
import torch
from netting import count, drive, equal, meta, on_meta, passing, shapes_of, small
from torch import nn
from torch.nn.functional import interpolate

from attentus import nets
from attentus.errors import BadInput


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        (134_280_588, {}),
        (134_280_588, {"preset": "8s"}),
        (134_279_560, {"preset": "16s"}),
        (134_277_508, {"preset": "32s"}),
        (27_828_620, {"preset": "light"}),
        (134_362_751, {"channels": 3, "classes": 21}),  # photographs, as published
    ],
)
def test_parameters_are_the_published_integers(expected, options):
    assert count(on_meta("fcn", **options)) == expected


def test_the_body_is_vgg_16():
    net = on_meta("fcn", channels=3)
    assert count(net.body) == 14_714_688
    assert count(net.classifier) == (512 * 7 * 7 * 4096 + 4096) + (4096 * 4096 + 4096)
    assert [sum(isinstance(m, nn.Conv2d) for m in group) for group in net.body] == [2, 2, 3, 3, 3]
    assert not any(isinstance(m, nn.BatchNorm2d | nn.ConvTranspose2d) for m in net.modules())


def test_flops_of_a_slice():
    assert nets.cost(on_meta("fcn"), 4, (190, 190)).flops == pytest.approx(31.06e9, abs=0.005e9)


def test_poolings_round_up():
    net = on_meta("fcn")
    with passing(**{f"pool{n}": group for n, group in enumerate(net.body, start=1)}) as seen:
        net(meta(1, 4, 190, 37))
    sides = [tuple(output.shape[2:]) for [(_, output)] in seen.values()]
    assert sides == [(95, 19), (48, 10), (24, 5), (12, 3), (6, 2)]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stride", [8, 16, 32])
@pytest.mark.parametrize("side", [1, 37])
def test_every_size_is_kept(dims, stride, side):
    net = on_meta("fcn", dims=dims, preset="tiny", stride=stride)
    size = (side, 53, 40)[:dims]
    assert shapes_of(net(meta(2, 4, *size))) == [(2, 4, *size)]


@pytest.mark.parametrize(("stride", "total"), [(8, 111.0), (16, 11.0), (32, 1.0)])
def test_scores_of_finer_poolings_are_added(stride, total):
    # Constant scores 1 (coarsest), 10 (fourth pooling) and 100 (third): interpolation leaves constants alone.
    net = small("fcn", stride=stride)
    for answer, head in zip((1.0, 10.0, 100.0), (net.score, *net.pool_scores.values()), strict=False):
        drive(head, answer)
    [logits] = net(torch.randn(1, 1, 37, 53))
    torch.testing.assert_close(logits, torch.full_like(logits, total))


def test_pool_scores_read_their_pooling():
    net = on_meta("fcn")
    assert {name: head.in_channels for name, head in net.pool_scores.items()} == {"pool4": 512, "pool3": 256}
    with passing(
        pool3=net.body[2], pool4=net.body[3], score3=net.pool_scores["pool3"], score4=net.pool_scores["pool4"]
    ) as seen:
        net(meta(1, 4, 64, 64))
    for n in (3, 4):
        [(_, pooled)], [([scored], _)] = seen[f"pool{n}"], seen[f"score{n}"]
        assert scored is pooled


def test_scores_are_brought_up_step_by_step_by_bilinear_interpolation():
    net = small("fcn")
    with passing(score=net.score, **net.pool_scores) as seen:
        [logits] = net(torch.randn(1, 1, 70, 100))
    scores = seen["score"][0][1]
    assert scores.shape[2:] == (3, 4)
    for finer in (seen["pool4"][0][1], seen["pool3"][0][1]):
        scores = interpolate(scores, size=finer.shape[2:], mode="bilinear", align_corners=False) + finer
    assert scores.shape[2:] == (9, 13)
    equal(logits, interpolate(scores, size=(70, 100), mode="bilinear", align_corners=False))


def test_half_of_the_classifier_drops_out_in_training_only():
    net = on_meta("fcn")
    assert [m.p for m in net.modules() if isinstance(m, nn.Dropout2d)] == [0.5, 0.5]
    x = torch.randn(1, 1, 32, 32)
    dropping = small("fcn", dropout=0.5)
    equal(dropping(x)[0], dropping(x)[0])
    assert not torch.equal(dropping.train()(x)[0], dropping(x)[0])


def test_other_strides_are_refused():
    with pytest.raises(BadInput, match="stride is one of 8, 16, 32; got 4"):
        nets.create("fcn", 2, 1, 2, stride=4)

"""nnU-Net's plain and residual-encoder nets: the parameter counts of the published library, blocks by hand.

Counts are those of dynamic_network_architectures 0.4.4 (PlainConvUNet, ResidualEncoderUNet, six levels, biases on);
with transplanted weights its outputs and these nets' are bit-identical.
"""

from __future__ import annotations

import pytest
import torch
from netting import close, count, equal, meta, on_meta, passing, put, shapes_of, small
from torch import nn
from torch.nn.functional import avg_pool2d, leaky_relu

from attentus import nets
from attentus.errors import BadInput
from attentus.nets.plain_unet import ResidualBlock


@pytest.mark.parametrize(
    ("expected", "name", "options"),
    [
        (16_548_076, "plain-unet", {"preset": "five-levels"}),
        (31_196_399, "plain-unet", {}),
        (31_196_399, "plain-unet", {"preset": "nnu-net"}),
        (31_199_796, "plain-unet", {"channels": 4, "classes": 4}),
        (20_620_079, "plain-unet", {"dims": 2}),
        (20_621_940, "plain-unet", {"dims": 2, "channels": 4, "classes": 4}),
        (102_350_575, "resenc-unet", {}),
        (102_350_575, "resenc-unet", {"preset": "nnu-net"}),
        (71_817_583, "resenc-unet", {"dims": 2}),
    ],
)
def test_parameters_are_those_of_the_published_library(expected, name, options):
    assert count(on_meta(name, **options)) == expected


@pytest.mark.parametrize("name", ["plain-unet", "resenc-unet"])
@pytest.mark.parametrize("size", [(32, 64, 32), (33, 20, 47)])
def test_training_answers_on_every_level_of_the_decoder(name, size):
    net = on_meta(name)
    labels = torch.empty(size)
    expected = [(2, 3, *labels[:: 2**i, :: 2**i, :: 2**i].shape) for i in range(5)]
    assert shapes_of(net.train()(meta(2, 1, *size))) == expected
    assert shapes_of(net.eval()(meta(2, 1, *size))) == expected[:1]
    assert net.multiple == 32
    # Each weight is half of the one before, the coarsest has none, and the sum is 1.
    assert net.supervision == pytest.approx((8 / 15, 4 / 15, 2 / 15, 1 / 15, 0.0))


@pytest.mark.parametrize("name", ["plain-unet", "resenc-unet"])
def test_evaluation_reads_the_finest_output_of_training(name):
    net = small(name)  # instance normalisation: no difference between training and evaluation
    x = torch.randn(1, 1, 32, 32)
    equal(net(x)[0], net.train()(x)[0])


def test_resolution_halves_by_strided_convolutions():
    net = on_meta("plain-unet")
    assert not any(isinstance(m, nn.MaxPool3d | nn.AvgPool3d) for m in net.modules())
    strides = [[m.stride[0] for m in stage if isinstance(m, nn.Conv3d)] for stage in net.pyramid.encoder]
    assert strides == [[1, 1]] + [[2, 1]] * 5
    widths = [[m.out_channels for m in stage if isinstance(m, nn.Conv3d)] for stage in net.pyramid.encoder]
    assert widths == [[c, c] for c in (32, 64, 128, 256, 320, 320)]


def test_the_decoder_joins_upsampled_features_before_the_skip():
    net = small("plain-unet")
    with passing(encoder=net.pyramid.encoder[0], up=net.pyramid.ups[-1], decoder=net.pyramid.decoder[-1]) as seen:
        net(torch.randn(1, 1, 32, 32))
    [(_, skip)], [(_, risen)], [([joined], _)] = seen["encoder"], seen["up"], seen["decoder"]
    equal(joined, torch.cat([risen, skip], dim=1))


def test_the_residual_encoder_has_the_published_depth():
    net = on_meta("resenc-unet")
    blocks = [sum(isinstance(m, ResidualBlock) for m in stage) for stage in net.pyramid.encoder]
    assert blocks == [1, 3, 4, 6, 6, 6]
    convolutions = [sum(isinstance(m, nn.Conv3d) for m in stage) for stage in net.pyramid.decoder]
    assert convolutions == [1] * 5


def test_the_way_around_averages_where_the_grid_is_halved():
    # The body is silenced, so the block answers leaky_relu(around(x)), slope 0.01.
    block = ResidualBlock(2, 1, 1, stride=2)
    nn.init.zeros_(block.second[1].weight)
    x = torch.tensor([[1.0, 2.0, -4.0, 0.0], [3.0, 6.0, 0.0, 0.0], [0.0, 0.0, -1.0, -1.0], [8.0, 0.0, -1.0, -1.0]])
    with torch.no_grad():
        close(block(x.view(1, 1, 4, 4)), [[3.0, -0.01], [2.0, -0.01]])  # means 3, -1, 2, -1


def test_the_way_around_is_normalised_where_the_width_changes():
    # 1x1 convolution by 2 without bias, then instance normalisation: (x - mean) / sd, whatever the factor.
    block = ResidualBlock(2, 1, 2)
    nn.init.zeros_(block.second[1].weight)
    assert block.around[0].bias is None
    put(block.around[0], [[2.0], [-2.0]])
    with torch.no_grad():
        out = block(torch.tensor([3.0, 5.0, 3.0, 5.0]).view(1, 1, 2, 2))  # mean 4, sd 1
    close(out, [[-0.01, 1.0, -0.01, 1.0], [1.0, -0.01, 1.0, -0.01]], atol=1e-5)


def test_the_sum_of_both_ways_is_rectified():
    torch.manual_seed(0)
    block = ResidualBlock(2, 3, 3, stride=2)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        equal(block(x), leaky_relu(block.second(block.first(x)) + avg_pool2d(x, 2), 0.01))


def test_convolutions_start_he_normal_without_bias():
    torch.manual_seed(0)
    net = nets.create("plain-unet", 2, 1, 2, widths=(32, 64))
    convolution = net.pyramid.encoder[1][3]  # 64 to 64, 3x3: sd sqrt(2 / (1 + 0.01^2) / (64 * 9)) = 0.058923
    assert convolution.weight.std().item() == pytest.approx(0.058923, rel=0.02)
    assert all(m.bias.abs().max() == 0 for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d))


@pytest.mark.parametrize(
    ("message", "name", "options"),
    [
        ("at least two levels; got \\[32\\]", "plain-unet", {"widths": (32,)}),
        ("at least two levels; got \\[8, 0\\]", "resenc-unet", {"widths": (8, 0)}),
        ("6 levels, got \\[1, 2\\]", "resenc-unet", {"blocks": (1, 2)}),
        ("2 levels, got \\[1, 0\\]", "resenc-unet", {"widths": (4, 8), "blocks": (1, 0)}),
    ],
)
def test_impossible_options_are_refused(message, name, options):
    with pytest.raises(BadInput, match=message):
        nets.create(name, 2, 1, 2, **options)

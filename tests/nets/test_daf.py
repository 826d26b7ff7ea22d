"""The 3D U-Net with deep attentive features: +0.68 M parameters, part by part, and attention driven by hand."""

from __future__ import annotations

import pytest
import torch
from netting import count, drive, equal, meta, on_meta, passing, shapes_of, small
from torch.nn.functional import interpolate

from attentus import nets

UNET = 22_581_283  # the 3D U-Net of the same comparison


def test_it_adds_the_published_parameters_to_the_3d_unet():
    net = on_meta("daf")
    heads = count(net.daf.head, net.daf.level_heads, net.daf.refined_heads)
    assert count(net) == UNET + 684_919
    assert count(net.pyramid, net.head) == UNET
    assert count(net.daf) == 684_919
    assert count(net.daf) - heads == 683_644
    assert heads == 4 * (64 * 3 + 3) + 4 * (32 * 3 + 3) + (32 * 3 + 3)  # nine heads of three classes


def test_parameters_by_part():
    # A unit is a convolution with bias, group normalisation (two per channel) and one slope.
    narrow, wide, to_narrow = 32 * 2 + 1, 64 * 2 + 1, 96 * 32 + 32
    cubic = 27 * 32 * 32 + 32  # 3x3x3, 32 to 32
    pair = 2 * (cubic + narrow)
    net = on_meta("daf").daf
    assert count(net.level) == (32 + 64 + 128 + 256) * 64 + 4 * (64 + wide)
    assert count(net.fuse) == 256 * 32 + 32 + narrow + pair
    assert count(net.attend) == 4 * (to_narrow + narrow + cubic + narrow + cubic)
    assert count(net.refine) == 4 * (to_narrow + narrow + pair)
    assert count(net.merge) == 128 * 32 + 32 + narrow
    assert count(net.dilated) == 4 * (cubic + 2 * 32)
    assert count(net.gather) == 128 * 32 + 32 + 2 * 32


@pytest.mark.parametrize("size", [(16, 32, 16), (17, 20, 9)])
def test_all_ten_outputs_are_supervised_at_full_size(size):
    net = on_meta("daf")
    assert shapes_of(net.train()(meta(1, 1, *size))) == [(1, 3, *size)] * 10
    assert shapes_of(net.eval()(meta(1, 1, *size))) == [(1, 3, *size)]
    assert net.supervision == (1.0,) * 10


def test_the_plane_is_dilated_but_not_the_axis_across_slices():
    assert [branch[0].dilation for branch in on_meta("daf").daf.dilated] == [
        (1, 1, 1),
        (1, 6, 6),
        (1, 12, 12),
        (1, 18, 18),
    ]
    assert [branch[0].dilation for branch in on_meta("daf", dims=2).daf.dilated] == [(1, 1), (6, 6), (12, 12), (18, 18)]


def test_attention_has_one_map_per_channel_at_full_resolution():
    points = nets.attention_points(on_meta("daf"), 1, (16, 32, 16))
    assert [(point.kind, point.maps, point.size) for point in points] == [("gate", 32, (16, 32, 16))] * 4


def test_coarser_levels_are_added_from_the_top_down():
    net = small("daf").daf
    torch.manual_seed(1)
    features = [torch.randn(1, width, 16 // 2**i, 16 // 2**i) for i, width in enumerate((4, 8, 16, 32))]

    def wide(x, level):
        return interpolate(x, size=(16 // 2**level,) * 2, mode="bilinear", align_corners=False)

    with torch.no_grad():
        found = net._levels(features)
        unit = [unit(x) for unit, x in zip(net.level, features, strict=True)]
        two = unit[2] + wide(unit[3], 2)
        one = unit[1] + wide(two, 1)
        expected = [unit[0] + wide(one, 0), wide(one, 0), wide(two, 0), wide(unit[3], 0)]
    for a, b in zip(found, expected, strict=True):
        equal(a, b)


@pytest.mark.parametrize(("answer", "share"), [(-1e4, 0.0), (0.0, 0.5), (1e4, 1.0)])
def test_attention_decides_how_much_of_the_fusion_a_level_sees(answer, share):
    net = small("daf").daf
    for attend in net.attend:
        drive(attend[-1], answer)
    features = [torch.randn(1, width, 16 // 2**i, 16 // 2**i) for i, width in enumerate((4, 8, 16, 32))]
    levels = net._levels(features)
    refine = {f"level{i}": module for i, module in enumerate(net.refine)}
    with passing(fuse=net.fuse, **refine) as seen:
        net(features)
    [(_, fused)] = seen["fuse"]
    for i, level in enumerate(levels):
        [([joined], _)] = seen[f"level{i}"]
        equal(joined, torch.cat([level.detach(), share * fused], dim=1))


def test_in_training_the_unets_own_output_comes_last():
    net = small("daf").train()
    x = torch.randn(2, 1, 32, 32)
    with passing(
        final=net.daf.head, refined=net.daf.refined_heads[0], level=net.daf.level_heads[0], unet=net.head
    ) as seen:
        outputs = net(x)
    for position, name in ((0, "final"), (1, "refined"), (5, "level"), (9, "unet")):
        equal(outputs[position], seen[name][0][1])

"""The classic U-Net and its relatives in the papers' comparisons: exact counts, recurrence and gates by hand."""

from __future__ import annotations

import pytest
import torch
from netting import close, count, equal, flops_with_all_heads, meta, on_meta, passing, put, shapes_of, small

from attentus import nets
from attentus.errors import BadInput
from attentus.nets.attention_unet import GridGate
from attentus.nets.r2u_net import Recurrent, RecurrentResidual

FOUR = {"channels": 4, "classes": 4}  # modalities and classes of the brain tumour comparison
FLAT = {"dims": 2, "classes": 1}  # of "unet" and "attention-unet", which are 3D by themselves
PLAIN_UP = {"up": "transposed-plain"}


@pytest.mark.parametrize(
    ("expected", "name", "options"),
    [
        (7_766_369, "classic-unet", {}),
        (7_766_369, "unet", {"preset": "anu", **FLAT}),
        (7_765_409, "classic-unet", PLAIN_UP),
        (7_759_521, "classic-unet", {"norm": "none", **PLAIN_UP}),
        (31_042_369, "classic-unet", {"width": 64, **PLAIN_UP}),
        (31_030_593, "classic-unet", {"width": 64, "norm": "none", **PLAIN_UP}),
        (34_525_889, "classic-unet", {"preset": "wide"}),
        (34_525_889, "unet", {"preset": "anu-wide", **FLAT}),
        (7_855_101, "classic-unet", {"preset": "anu-attention"}),
        (7_855_101, "attention-unet", {"preset": "anu", **FLAT}),
        (7_856_237, "attention-unet", {"preset": "anu-release", **FLAT}),
        (34_877_421, "classic-unet", {"preset": "wide-attention"}),
        (34_877_421, "attention-unet", {"preset": "anu-wide", **FLAT}),
        (7_767_332, "classic-unet", FOUR),
        (34_527_812, "classic-unet", {"preset": "wide", **FOUR}),
        (31_044_292, "classic-unet", {"width": 64, **PLAIN_UP, **FOUR}),
        (7_856_064, "classic-unet", {"preset": "anu-attention", **FOUR}),
        (34_879_344, "classic-unet", {"preset": "wide-attention", **FOUR}),
        (9_778_721, "r2u-net", {}),
        (39_091_265, "r2u-net", {"preset": "release"}),
        (39_091_393, "r2u-net", {"preset": "release", "channels": 3}),
        (9_867_453, "attention-r2u-net", {}),
        (39_442_797, "attention-r2u-net", {"preset": "release"}),
        (39_442_925, "attention-r2u-net", {"preset": "release", "channels": 3}),
        (22_581_283, "unet-3d", {}),  # 22.58 M
        (22_584_175, "unet-3d", {"preset": "pyramid"}),
        (22_581_283 + 1_022_915, "unet-3d", {"preset": "ag"}),  # + 1.02 M
        (22_581_283 + 1_022_915, "attention-unet", {"preset": "dpc", "classes": 3}),
    ],
)
def test_parameters_are_the_published_integers(expected, name, options):
    assert count(on_meta(name, **options)) == expected


def test_parameters_of_the_grid_gates_by_part():
    pyramid = on_meta("unet-3d", gated=True).pyramid
    assert {level: count(gate) for level, gate in pyramid.gates.items()} == {
        "level1": 53_569,
        "level2": 180_865,
        "level3": 656_641,
    }
    assert count(pyramid.gating) == 131_840
    assert count(pyramid.gates, pyramid.gating) == 1_022_915  # printed as 1.02 M


@pytest.mark.parametrize(
    ("giga", "side", "name", "options"),
    [
        (24.07, 256, "classic-unet", {}),
        (24.07, 256, "classic-unet", PLAIN_UP),
        (24.61, 256, "classic-unet", {"preset": "anu-attention"}),
        (130.54, 256, "classic-unet", {"preset": "wide"}),
        (132.70, 256, "classic-unet", {"preset": "wide-attention"}),
        (304.96, 256, "r2u-net", {"preset": "release"}),
        (307.11, 256, "attention-r2u-net", {"preset": "release"}),
        (76.24, 256, "r2u-net", {}),
        (76.78, 256, "attention-r2u-net", {}),
        (13.61, 192, "classic-unet", FOUR),
        (73.57, 192, "classic-unet", {"preset": "wide", **FOUR}),
        (13.91, 192, "classic-unet", {"preset": "anu-attention", **FOUR}),
        (74.78, 192, "classic-unet", {"preset": "wide-attention", **FOUR}),
    ],
)
def test_flops_of_a_slice(giga, side, name, options):
    net = on_meta(name, **options)
    assert nets.cost(net, options.get("channels", 1), (side, side)).flops == pytest.approx(giga * 1e9, abs=0.005e9)


def test_flops_of_the_pyramid_baseline():
    net = on_meta("unet-3d", preset="pyramid")
    assert flops_with_all_heads(net, meta(1, 1, 128, 128, 128)) == 951_603_167_232
    # In evaluation the heads of the four coarser levels rest: 1x1x1 convolutions from 64 ... 512 channels to 3.
    resting = sum(2 * 3 * width * side**3 for width, side in ((64, 64), (128, 32), (256, 16), (512, 8)))
    assert nets.cost(net, 1, (128, 128, 128)).flops == 951_603_167_232 - resting


def test_recurrence_adds_depth_but_no_parameters():
    costs = [nets.cost(on_meta("r2u-net", t=t), 1, (64, 64)) for t in (1, 2, 3)]
    assert {cost.parameters for cost in costs} == {9_778_721}
    # One more application of the 3x3 convolutions: two in each of nine blocks; width^2 times pixels is 32^2 * 64^2
    # on every level, and an operation is two per multiply-add.
    more = 9 * 2 * (2 * 9 * 32**2 * 64**2)
    assert costs[2].flops - costs[1].flops == costs[1].flops - costs[0].flops == more
    x = torch.randn(1, 1, 32, 32)
    one, two = small("r2u-net", t=1), small("r2u-net", t=2)
    two.load_state_dict(one.state_dict())
    assert not torch.equal(one(x)[0], two(x)[0])


@pytest.mark.parametrize(("t", "expected"), [(0, 1.0), (1, 1.5), (2, 1.75), (3, 1.875)])
def test_a_recurrent_unit_by_hand(t, expected):
    # C(z) = relu(z / 2) and x = 2: y = 1; then C(2 + 1) = 1.5; C(2 + 1.5) = 1.75; C(2 + 1.75) = 1.875.
    unit = Recurrent(2, 1, t).eval()
    put(unit.unit[0], [[0.5]])
    with torch.no_grad():
        close(unit(torch.full((1, 1, 1, 1), 2.0)), [expected], atol=5e-5)  # batch norm adds its epsilon
        close(unit(torch.full((1, 1, 1, 1), -2.0)), [0.0])


def test_a_recurrent_residual_block_by_hand():
    # The 1x1 convolution makes 2 of 1 and -2 of -1. Two units with C(z) = relu(z / 2), t = 2, make of 2:
    # 1.75 (above), then 0.875, 0.5 (1.75 + 0.875) = 1.3125, 0.5 (1.75 + 1.3125) = 1.53125; plus 2 is 3.53125.
    # Of -2 they make 0; nothing rectifies the sum, so -2 stays.
    block = RecurrentResidual(2, 1, 1, 2).eval()
    put(block.widen, [[2.0]])
    for unit in block.units:
        put(unit.unit[0], [[0.5]])
    with torch.no_grad():
        close(block(torch.tensor([1.0, -1.0]).view(1, 1, 1, 2)), [3.53125, -2.0], atol=1e-4)


def test_negative_recurrence_is_refused():
    with pytest.raises(BadInput, match="t counts recurrences and cannot be negative, got -1"):
        nets.create("r2u-net", 2, 1, 1, t=-1)


@pytest.mark.parametrize("name", ["classic-unet", "r2u-net"])
def test_same_grid_gates_stand_on_all_four_skips(name):
    assert not nets.taps(on_meta(name))
    points = nets.attention_points(on_meta(name, gated=True), 1, (64, 96))
    sizes = {point.name: point.size for point in points}
    assert sizes == {f"pyramid.gates.level{i}": (64 // 2**i, 96 // 2**i) for i in range(4)}


def test_grid_gates_leave_the_finest_skip_alone_and_listen_to_the_bottom():
    net = small("unet-3d", 3, gated=True)
    gates = net.pyramid.gates
    assert sorted(gates) == ["level1", "level2", "level3"]
    with passing(gating=net.pyramid.gating, **gates) as seen:
        net(torch.randn(1, 1, 32, 32, 32))
    [(_, signal)] = seen["gating"]
    assert signal.shape == (1, 32, 2, 2, 2)  # half the bottom's 64 channels
    for level, gate in gates.items():
        assert isinstance(gate, GridGate)
        [((skip, heard), _)] = seen[level]
        assert skip.shape[2:] == (32 // 2 ** int(level[-1]),) * 3
        equal(heard, signal)


def test_a_gated_skip_reaches_the_decoder_weighed():
    net = small("classic-unet", gated=True)
    finest = net.pyramid.decoder[-1]
    with (
        passing(encoder=net.pyramid.encoder[0], up=net.pyramid.ups[-1], decoder=finest) as seen,
        nets.listening(net) as heard,
    ):
        net(torch.randn(1, 1, 32, 32))
    [(_, skip)], [(_, risen)], [([joined], _)] = seen["encoder"], seen["up"], seen["decoder"]
    equal(joined, torch.cat([skip * heard["pyramid.gates.level0"], risen], dim=1))
    assert not torch.equal(joined[:, : skip.shape[1]], skip)


@pytest.mark.parametrize("size", [(16, 32, 48), (17, 20, 33)])
def test_levels_of_the_pyramid_match_labels_taken_every_second_voxel(size):
    net = on_meta("unet-3d", preset="pyramid")
    labels = torch.empty(size)
    expected = [(2, 3, *labels[:: 2**i, :: 2**i, :: 2**i].shape) for i in range(5)]
    assert shapes_of(net.train()(meta(2, 1, *size))) == expected
    assert shapes_of(net.eval()(meta(2, 1, *size))) == expected[:1]
    assert net.supervision == (1 / 5, 1 / 10, 1 / 20, 1 / 40, 1 / 80)  # Eq. 13 of DPC-Net


@pytest.mark.parametrize("bad", [{"up": "bilinear"}, {"norm": "group"}])
def test_impossible_options_are_refused(bad):
    with pytest.raises(BadInput, match=next(iter(bad))):
        nets.create("classic-unet", 2, 1, 1, **bad)
    with pytest.raises(BadInput, match="heads is one of"):
        nets.create("unet-3d", 3, 1, 1, heads="all")

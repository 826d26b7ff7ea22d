"""ANU-Net and UNet++ against the paper: Table 6 to the last digit, Eq. 1-4 by hand, pruning bit for bit."""

from __future__ import annotations

import pytest
import torch
from netting import (
    close,
    count,
    drive,
    equal,
    flops_with_all_heads,
    meta,
    on_meta,
    passing,
    put,
    shapes_of,
    small,
)
from torch import nn

from attentus import nets
from attentus.errors import BadInput
from attentus.nets.anu_net import Agreement, SameGridGate

TABLE_6 = (103_812, 513_387, 2_191_829, 8_950_594)
"""Printed as 0.1038, 0.5134, 2.1918 and 8.9506 M, for L1 to L4."""

NODES = {"x0_0": 9_696, "x1_0": 55_680, "x2_0": 221_952, "x3_0": 886_272, "x4_0": 3_542_016}
NODES |= {"x0_1": 27_840, "x0_2": 37_056, "x0_3": 46_272, "x0_4": 55_488}
NODES |= {"x1_1": 110_976, "x1_2": 147_840, "x1_3": 184_704, "x2_1": 443_136, "x2_2": 590_592, "x3_1": 1_771_008}

MODES = ("all", "last", "source", "separate", "none")


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("l1_to_l4", "name", "options"),
    [
        (TABLE_6, "anu-net", {}),
        (TABLE_6, "anu-net", {"gates": "last"}),
        (TABLE_6, "anu-net", {"gates": "source"}),
        ((103_812, 515_662, 2_202_977, 8_994_048), "anu-net", {"gates": "separate"}),
        ((103_812, 521_675, 2_241_365, 9_172_834), "anu-net", {"share_up": False}),
        ((104_388, 513_963, 2_192_405, 8_951_170), "anu-net", {"channels": 3}),
        ((408_100, 2_038_027, 8_739_061, 35_752_674), "anu-net", {"width": 64}),
        ((296_900, 1_476_523, 6_327_317, 25_886_082), "anu-net", {"dims": 3}),
        ((101_537, 504_514, 2_159_523, 8_828_420), "unet++", {}),
    ],
)
def test_parameters_of_all_levels(level, l1_to_l4, name, options):
    assert count(on_meta(name, levels=level, **options)) == l1_to_l4[level - 1]


@pytest.mark.parametrize(
    ("expected", "name", "options"),
    [
        (8_950_594, "anu-net", {"preset": "paper"}),
        (8_950_594, "anu-net", {"preset": "release"}),
        (35_752_674, "anu-net", {"preset": "wide"}),
        (513_387, "anu-net", {"preset": "l2"}),
        (8_950_990, "anu-net", {"classes": 4}),
        (8_950_495, "anu-net", {"deep_supervision": False}),  # three heads of 33 less
        (8_828_420, "unet++", {"preset": "anu"}),
        (9_048_996, "unet++", {"share_up": False, "up": "transposed-plain"}),
        (9_041_601, "unet++", {"preset": "official"}),
    ],
)
def test_parameters_of_variants(expected, name, options):
    assert count(on_meta(name, **options)) == expected


def test_parameters_by_part():
    net = on_meta("anu-net")
    assert {name: count(node) for name, node in net.nodes.items()} == NODES
    assert count(net.nodes) == 8_130_528
    assert [count(net.ups[f"row{i}"]) for i in range(4)] == [8_288, 32_960, 131_456, 525_056]
    per_row = [2_275] * 4 + [4_323] * 3 + [16_835] * 2 + [66_435]  # inner width 32, 32, 64, 128
    assert sorted(count(gate) for gate in net.gates.values()) == per_row
    assert [count(head) for head in net.heads.values()] == [33] * 4  # 32 weights and a bias


@pytest.mark.parametrize(
    ("expected", "gates"),
    [
        ((7.227e9, 18.716e9, 37.056e9, 63_589_580_800), "all"),
        ((7.227e9, 18.443e9, 36.103e9, 61_413_261_312), "last"),
    ],
)
def test_flops_of_a_slice(expected, gates):
    found = [
        flops_with_all_heads(on_meta("anu-net", levels=n, gates=gates), meta(1, 1, 256, 256)) for n in (1, 2, 3, 4)
    ]
    assert found == pytest.approx(expected, abs=0.0005e9)  # the first three as printed, to the fifth digit
    assert found[-1] == expected[-1]


def test_evaluation_computes_only_the_head_it_reads():
    resting = 3 * 2 * 32 * 256**2  # three 1x1 convolutions from 32 channels to one
    assert nets.cost(on_meta("anu-net"), 1, (256, 256)).flops == 63_589_580_800 - resting


def test_flops_of_unet_plus_plus():
    assert flops_with_all_heads(on_meta("unet++"), meta(1, 1, 256, 256)) == pytest.approx(59.51e9, abs=0.005e9)


def test_training_supervises_every_head_and_evaluation_reads_the_deepest():
    net = on_meta("anu-net")
    x = meta(2, 1, 64, 96)
    assert shapes_of(net.train()(x)) == [(2, 1, 64, 96)] * 4
    assert shapes_of(net.eval()(x)) == [(2, 1, 64, 96)]
    assert net.supervision == (1.0, 1.0, 1.0, 1.0)  # Eq. 8 is a plain sum
    assert on_meta("anu-net", deep_supervision=False).supervision == (1.0,)


def test_outputs_come_deepest_first():
    net = small("anu-net").train()
    x = torch.randn(2, 1, 32, 32)
    nodes = net._nodes(x)
    for output, depth in zip(net(x), (4, 3, 2, 1), strict=True):
        equal(output, net.heads[f"x0_{depth}"](nodes[f"x0_{depth}"]))


def test_the_grid_halves_from_level_to_level():
    net = on_meta("anu-net")
    with passing(**net.nodes) as seen:
        net(meta(1, 1, 64, 96))
    for name, [(_, output)] in seen.items():
        i = int(name[1])
        assert output.shape == (1, 32 * 2**i, 64 // 2**i, 96 // 2**i), name


@pytest.mark.parametrize(
    ("gates", "in_charge"),
    [
        ("all", {0: "x0_3", 1: "x0_3", 2: "x0_3"}),  # one gate per node
        ("last", {2: "x0_3"}),  # earlier skips raw
        ("source", {0: "x0_0", 1: "x0_1", 2: "x0_2"}),  # one gate per skip's source
        ("separate", {k: f"x0_3_from_x0_{k}" for k in range(3)}),
        ("none", {}),
    ],
)
def test_a_node_joins_what_equation_4_says(gates, in_charge):
    """[Ag(X00; g), Ag(X01; g), Ag(X02; g), g] with g = Up(X12), in front of the node X[0,3]."""
    net = small("anu-net", gates=gates)
    with passing(node=net.nodes["x0_3"]) as seen:
        nodes = net._nodes(torch.randn(2, 1, 32, 32))
        signal = net.ups["row0"](nodes["x1_2"])
        parts = [nodes[f"x0_{k}"] for k in range(3)]
        for k, gate in in_charge.items():
            parts[k] = parts[k] * net.gates[gate](parts[k], signal)
    [([joined], node)] = seen["node"]
    equal(joined, torch.cat([*parts, signal], dim=1))
    equal(node, nodes["x0_3"])


@pytest.mark.parametrize(
    ("gates", "modules"), [("all", 10), ("last", 10), ("source", 10), ("separate", 20), ("none", 0)]
)
def test_gates_are_shared_as_asked(gates, modules):
    net = on_meta("anu-net", gates=gates)
    assert sum(isinstance(module, Agreement) for module in net.modules()) == modules


@pytest.mark.parametrize(
    ("gates", "points"), [("all", 20), ("last", 10), ("source", 20), ("separate", 20), ("none", 0)]
)
def test_attention_can_be_heard_at_every_gated_skip(gates, points):
    found = nets.attention_points(on_meta("anu-net", gates=gates), 1, (256, 256))
    assert len(found) == points
    for point in found:
        target, source = point.name.removeprefix("attention.").split("_from_")
        assert target[:2] == source[:2]  # the same row
        assert point.size == (256 // 2 ** int(target[1]),) * 2
        assert (point.kind, point.maps) == ("gate", 1)


def test_listening_to_shared_gates_tells_skips_apart():
    net = small("anu-net")
    with nets.listening(net) as heard:
        nodes = net._nodes(torch.randn(1, 1, 32, 32))
    signal = net.ups["row0"](nodes["x1_1"])
    for k in (0, 1):
        equal(heard[f"attention.x0_2_from_x0_{k}"], net.gates["x0_2"](nodes[f"x0_{k}"], signal).detach())


def test_a_gate_by_hand():
    # Columns are pixels. F = relu(f_1 + g_1 + g_2) = relu(1 + 1 + 0), relu(-1 + 0 + 2) = 2, 1; minus 1: 1, 0;
    # sigmoid: 0.731059, 0.5. The epsilon of three normalisations takes 3e-6 off.
    gate = SameGridGate(2, 2, 1).eval()
    put(gate.agreement.of_skip[0], [[1.0, 0.0]])
    put(gate.agreement.of_signal[0], [[1.0, 1.0]])
    put(gate.agreement.score[0], [[1.0]], -1.0)
    skip = torch.tensor([[1.0, -1.0], [2.0, 3.0]]).view(1, 2, 1, 2)
    signal = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)
    with torch.no_grad():
        close(gate.agreement(skip, signal), [0.731056, 0.5], atol=2e-6)
        close(gate(skip, signal), [[0.731056, -0.5], [1.462111, 1.5]], atol=5e-6)


def test_every_convolution_of_a_gate_is_normalised():
    # Means 1, 2 and 4, variances 4 - eps: relu((3 - 1) / 2 + (6 - 2) / 2) = 3; (3 - 4) / 2 = -0.5; sigmoid 0.377541.
    # Another voxel: relu((1 - 1) / 2 + (0 - 2) / 2) = 0; (0 - 4) / 2 = -2; sigmoid 0.119203.
    agreement = Agreement(2, 1, 1).eval()
    for branch, mean in ((agreement.of_skip, 1.0), (agreement.of_signal, 2.0), (agreement.score, 4.0)):
        put(branch[0], [[1.0]])
        branch[1].running_mean.fill_(mean)
        branch[1].running_var.fill_(4.0 - branch[1].eps)
    with torch.no_grad():
        skip, signal = torch.tensor([3.0, 1.0]).view(1, 1, 1, 2), torch.tensor([6.0, 0.0]).view(1, 1, 1, 2)
        close(agreement(skip, signal), [0.377541, 0.119203])


@pytest.mark.parametrize("gates", ["all", "last", "source", "separate"])
def test_coefficients_lie_between_0_and_1(gates):
    net = small("anu-net", gates=gates)
    with nets.listening(net) as heard:
        net(5 * torch.randn(2, 1, 32, 32))
    together = torch.cat([alpha.flatten() for alpha in heard.values()])
    assert 0 <= together.min() < 0.4
    assert 0.6 < together.max() <= 1


def test_a_gate_without_a_score_lets_half_through():
    net = nets.create("anu-net", 2, 1, 1, preset="tiny").eval()
    for gate in net.gates.values():
        drive(gate.score[0], 0.0)
    with nets.listening(net) as heard:
        net(torch.randn(1, 1, 32, 32))
    for alpha in heard.values():
        equal(alpha, torch.full_like(alpha, 0.5))


@pytest.mark.parametrize("level", [1, 2, 3, 4])
@pytest.mark.parametrize("gates", MODES)
def test_a_pruned_net_is_the_full_net_cut_off_bit_for_bit(gates, level):
    full = small("anu-net", gates=gates)
    pruned = full.prune(level)
    x = torch.randn(2, 1, 32, 48)
    with torch.no_grad():
        [output] = pruned(x)
        nodes = full._nodes(x)
        difference = output - full.heads[f"x0_{level}"](nodes[f"x0_{level}"])
    assert difference.abs().max() == 0
    assert not pruned.training
    assert len(pruned.train()(x)) == level


def test_pruned_nets_have_the_parameters_of_table_6():
    with torch.device("meta"):
        full = nets.create("anu-net", 2, 1, 1)
        assert tuple(count(full.prune(level)) for level in (1, 2, 3, 4)) == TABLE_6


def test_a_pruned_net_is_a_copy():
    full = small("anu-net")
    x = torch.randn(1, 1, 32, 32)
    pruned = full.prune(2)
    before = pruned(x)[0]
    drive(full.heads["x0_2"], 7.0)
    equal(pruned(x)[0], before)
    equal(pruned.prune(1)(x)[0], full.prune(1)(x)[0])


def test_impossible_pruning_is_refused():
    net = small("anu-net", levels=3)
    for level in (0, 4):
        with pytest.raises(BadInput, match=f"has 3 levels; it cannot be pruned to {level}"):
            net.prune(level)
    with pytest.raises(BadInput, match=r"Level 2 has no head.*deep_supervision=False"):
        small("anu-net", deep_supervision=False).prune(2)


def test_without_deep_supervision_the_deepest_head_remains():
    net = small("anu-net", deep_supervision=False)
    assert list(net.heads) == ["x0_4"]
    x = torch.randn(2, 1, 32, 32)
    assert len(net(x)) == len(net.train()(x)) == 1
    equal(net.eval().prune(4)(x)[0], net(x)[0])


def test_an_ensemble_answers_with_the_mean_of_its_heads():
    net = small("anu-net", ensemble=True)
    x = torch.randn(1, 1, 32, 32)
    nodes = net._nodes(x)
    heads = [net.heads[f"x0_{depth}"](nodes[f"x0_{depth}"]) for depth in (1, 2, 3, 4)]
    [output] = net(x)
    torch.testing.assert_close(output, (heads[0] + heads[1] + heads[2] + heads[3]) / 4)
    assert len(net.train()(x)) == 4
    with pytest.raises(BadInput, match="ensemble averages the heads"):
        small("anu-net", ensemble=True, deep_supervision=False)


def test_without_gates_it_is_unet_plus_plus():
    bare, plus_plus = small("anu-net", gates="none"), small("unet++")
    x = torch.randn(1, 1, 32, 32)
    equal(bare(x)[0], plus_plus(x)[0])
    assert not nets.taps(plus_plus)


@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_odd_sides_are_padded_by_repeating_the_edge_and_cropped_back(level):
    net = small("anu-net", levels=level)
    x = torch.randn(1, 1, 29, 18)
    missing = [-n % 2**level for n in (18, 29)]
    padded = nn.functional.pad(x, (0, missing[0], 0, missing[1]), mode="replicate")
    equal(net(x)[0], net(padded)[0][..., :29, :18])


@pytest.mark.parametrize("norm", ["batch", "instance", "none"])
def test_every_convolution_of_a_block_is_normalised_as_asked(norm):
    kinds = {"batch": nn.BatchNorm2d, "instance": nn.InstanceNorm2d, "none": ()}
    net = on_meta("unet++", norm=norm)
    # 15 blocks of two convolutions and four ways up.
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d | nn.InstanceNorm2d)]
    assert len(norms) == (0 if norm == "none" else 2 * 15 + 4)
    assert all(isinstance(m, kinds[norm]) for m in norms)


@pytest.mark.parametrize("bad", [{"levels": 5}, {"gates": "first"}])
def test_impossible_options_are_refused(bad):
    with pytest.raises(BadInput, match=next(iter(bad))):
        nets.create("anu-net", 2, 1, 1, **bad)


def test_each_sample_stops_at_the_head_that_agrees_and_nothing_deeper_is_computed():
    net = small("anu-net")
    x = torch.randn(3, 1, 29, 32)  # one side is padded
    answers = iter([[True, False, False], [True, False]])
    with passing(**net.nodes) as seen:
        logits, levels = net.forward_until(x, lambda before, now: torch.tensor(next(answers)))
        nodes = net._nodes(nn.functional.pad(x, (0, 0, 0, 3), mode="replicate"))
    assert levels.tolist() == [2, 3, 4]
    assert [len(seen[name][0][1]) for name in ("x2_0", "x0_2", "x3_0", "x0_3", "x4_0", "x0_4")] == [3, 3, 2, 2, 1, 1]
    for sample, level in enumerate(levels.tolist()):
        whole = net.heads[f"x0_{level}"](nodes[f"x0_{level}"])
        torch.testing.assert_close(logits[sample], whole[sample, :, :29])


def test_heads_are_compared_in_a_row_and_in_the_samples_order():
    net = small("anu-net")
    x = torch.randn(2, 1, 32, 32)
    compared = []

    def agree(before, now):
        compared.append((before, now))
        return torch.tensor([False, True][: len(now)])

    logits, levels = net.forward_until(x, agree)
    assert levels.tolist() == [4, 2]
    heads = [net.heads[f"x0_{depth}"](net._nodes(x)[f"x0_{depth}"]) for depth in (1, 2, 3, 4)]
    torch.testing.assert_close(logits, torch.stack([heads[3][0], heads[1][1]]))
    torch.testing.assert_close(compared[0][0], heads[0])
    torch.testing.assert_close(compared[0][1], heads[1])
    [(before, now)] = compared[1:]
    torch.testing.assert_close(before, heads[1][:1])
    torch.testing.assert_close(now, heads[2][:1])


def test_when_all_agree_the_deeper_levels_are_never_touched():
    net = small("anu-net")
    x = torch.randn(2, 1, 32, 32)
    with passing(**net.nodes) as seen:
        logits, levels = net.forward_until(x, lambda before, now: torch.ones(len(now), dtype=torch.bool))
    assert levels.tolist() == [2, 2]
    assert not any(seen[name] for name in net.nodes if int(name[1]) + int(name[3]) > 2)
    equal(logits, net.prune(2)(x)[0])


def test_a_net_of_one_level_has_one_answer():
    net = small("anu-net", levels=1)
    x = torch.randn(2, 1, 32, 32)
    logits, levels = net.forward_until(x, lambda before, now: pytest.fail("there is nothing to compare"))
    assert levels.tolist() == [1, 1]
    equal(logits, net(x)[0])


@pytest.mark.parametrize(
    ("options", "can"), [({}, True), ({"deep_supervision": False}, False), ({"ensemble": True}, False)]
)
def test_only_a_net_with_every_head_can_stop(options, can):
    assert small("unet++", **options).can_stop == can

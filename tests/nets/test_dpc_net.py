"""DPC-Net: counts of Tables 1, 2 and 4, both correlations by hand and against Eq. 4-9 as printed, wiring, outputs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
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
from attentus.nets.dpc_net import SemCor, SpaCor

BASELINE = {"pfe": False}  # the 3D U-Net, 512 wide
PFE_ONLY = {"preset": "pfe"}
BOTH = ("avg", "max")


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        (17_577_123, {}),
        (17_577_123, {"preset": "table4"}),
        (17_577_123, {"preset": "sem-first"}),
        (18_080_491, {"preset": "equations"}),
        (17_245_839, PFE_ONLY),
        (16_549_039, {"down": "strided3", **PFE_ONLY}),
        (16_880_323, {"down": "strided3"}),
        (17_500_319, {"semcor": False}),
        (17_322_643, {"spacor": False}),
        (22_584_175, {"spacor": False, "semcor": False, **BASELINE}),
        (23_104_003, BASELINE),
        (23_104_003, {"preset": "no-pfe"}),
        (23_104_003, {"order": "sem_first", **BASELINE}),
        (23_014_911, {"semcor": False, **BASELINE}),
        (22_673_267, {"spacor": False, **BASELINE}),
    ],
)
def test_parameters_are_the_specified_integers(expected, options):
    assert count(on_meta("dpc-net", **options)) == expected


@pytest.mark.parametrize(
    ("spacor", "semcor", "options"),
    [
        (427_844, 87_640, {}),  # printed as 0.43 and 0.09 M
        (401_924, 697_760, {"design": "equations"}),
        (401_924, 87_640, {"spa_pools": ("max",), "sem_pools": ("avg",)}),
        (401_924, 436_640, {"design": "equations", "spa_pools": ("avg",), "sem_pools": ("max",)}),
    ],
)
def test_parameters_of_the_correlations_on_the_baseline(spacor, semcor, options):
    net = on_meta("dpc-net", **BASELINE, **options)
    assert count(net.spacor) == spacor
    assert count(net.semcor) == semcor


def test_parameters_level_by_level():
    baseline, full = on_meta("dpc-net", **BASELINE), on_meta("dpc-net")
    spa, sem = [9_409, 27_009, 86_785, 304_641], [1_064, 4_176, 16_544, 65_856]
    assert [count(baseline.spacor[f"level{i}"]) for i in (1, 2, 3, 4)] == spa
    assert [count(baseline.semcor[f"level{i}"]) for i in (0, 1, 2, 3)] == sem
    assert [count(full.spacor[f"level{i}"]) for i in (1, 2, 3, 4)] == [*spa[:3], 128_961]  # 320 wide, not 512
    assert [count(full.semcor[f"level{i}"]) for i in (0, 1, 2, 3)] == [*sem[:3], 53_568]
    assert (count(full.spacor), count(full.semcor)) == (252_164, 75_352)


def test_every_supervised_map_has_a_head_of_its_own():
    baseline, full = on_meta("dpc-net", **BASELINE), on_meta("dpc-net")
    assert {stage: count(heads) for stage, heads in baseline.heads.items()} == {
        "pfe": 2_991,
        "spa": 2_892,
        "sem": 1_452,
    }
    assert {stage: count(heads) for stage, heads in full.heads.items()} == {"pfe": 2_415, "spa": 2_316, "sem": 1_452}


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        (986_758_942_720, {}),
        (985_176_297_472, BASELINE),
        (953_477_431_296, PFE_ONLY),
        (951_603_167_232, {"spacor": False, "semcor": False, **BASELINE}),
    ],
)
def test_flops_of_a_patch(expected, options):
    net = on_meta("dpc-net", **options)
    assert flops_with_all_heads(net, meta(1, 1, 128, 128, 128)) == expected
    # Evaluation reads one map at full resolution; the heads of the others rest (1x1x1 convolutions to 3 classes).
    levels = {"pfe": range(5), "spa": range(1, 5), "sem": range(4)}
    heads = [(i, head) for stage, heads in net.heads.items() for i, head in zip(levels[stage], heads, strict=True)]
    resting = sum(2 * 3 * head.in_channels * (128 >> i) ** 3 for i, head in heads) - 2 * 3 * 32 * 128**3
    assert nets.cost(net, 1, (128, 128, 128)).flops == expected - resting


def test_thirteen_maps_are_supervised():
    net = on_meta("dpc-net")
    outputs = net.train()(meta(1, 1, 128, 128, 128))
    sides = {"pfe": (128, 64, 32, 16, 8), "spa": (None, 64, 32, 16, 8), "sem": (128, 64, 32, 16)}
    assert shapes_of(outputs) == [(1, 3, *[sides[name[:3]][int(name[3:])]] * 3) for name in net.outputs]
    fine_to_coarse = "sem0 pfe0 sem1 spa1 pfe1 sem2 spa2 pfe2 sem3 spa3 pfe3 spa4 pfe4"
    assert net.outputs == tuple(fine_to_coarse.split())
    assert shapes_of(net.eval()(meta(1, 1, 128, 128, 128))) == [(1, 3, 128, 128, 128)]


def test_the_weights_of_the_maps_sum_to_095():
    # W_i = 1 / (2^i * 5): 0.3875 for the pyramid's five, 0.1875 for SpaCor's four, 0.375 for SemCor's four.
    net = on_meta("dpc-net")
    assert sum(net.supervision) == pytest.approx(0.95)
    expected = {"0": 0.2, "1": 0.1, "2": 0.05, "3": 0.025, "4": 0.0125}
    assert net.supervision == pytest.approx([expected[name[-1]] for name in net.outputs])
    stages = {
        stage: sum(w for n, w in zip(net.outputs, net.supervision, strict=True) if stage in n)
        for stage in ("pfe", "spa", "sem")
    }
    assert stages == pytest.approx({"pfe": 0.3875, "spa": 0.1875, "sem": 0.375})
    six = on_meta("dpc-net", preset="nnu-net-levels")
    assert six.supervision[:2] == pytest.approx((1 / 6, 1 / 6))  # sem0 and pfe0 of six levels


@pytest.mark.parametrize("size", [(16, 32, 48), (17, 20, 33)])
def test_maps_match_labels_taken_every_second_voxel(size):
    net = on_meta("dpc-net")
    labels = torch.empty(size)
    steps = [2 ** int(name[3:]) for name in net.outputs]
    assert shapes_of(net.train()(meta(2, 1, *size))) == [(2, 3, *labels[::n, ::n, ::n].shape) for n in steps]
    assert shapes_of(net.eval()(meta(2, 1, *size))) == [(2, 3, *size)]


def _ramp():
    """0 ... 7 in a volume of 2 x 2 x 2."""
    return torch.arange(8, dtype=torch.float64).view(1, 1, 2, 2, 2)


def test_spatial_correlation_by_hand():
    # Finer k = 0 ... 7 under (1, -2): mean (1 - 2 + k) / 3, maximum max(1, k). With centre taps only, each voxel
    # scores 0.5 lrelu(mean) - 0.25 lrelu(max - 3) + 0.1; the eight sigmoids average to 0.5561463120.
    # g makes (1, -4 + 1) of (1, -2).
    module = SpaCor(3, 2, "table4", BOTH).double()
    put(module.net[0], [[1.0, 0.0], [0.0, 1.0]], [0.0, -3.0])
    put(module.net[2], [[0.5, -0.25]], 0.1)
    put(module.g, [[1.0, 0.0], [0.0, 2.0]], [0.0, 1.0])
    level = torch.tensor([1.0, -2.0], dtype=torch.float64).view(1, 2, 1, 1, 1)
    with torch.no_grad():
        close(module(level, _ramp()), [0.5561463120, -1.6684389360], atol=1e-10)


def test_spatial_correlation_of_a_sum_by_hand():
    # As above with T = mean + maximum, scores 0.5 lrelu(T) + 0.25 lrelu(-T), g the identity.
    module = SpaCor(3, 2, "equations", BOTH).double()
    put(module.net[0], [[1.0], [-1.0]])
    put(module.net[2], [[0.5, 0.25]])
    put(module.g, [[1.0, 0.0], [0.0, 1.0]])
    level = torch.tensor([1.0, -2.0], dtype=torch.float64).view(1, 2, 1, 1, 1)
    with torch.no_grad():
        close(module(level, _ramp()), [0.8344967611, -1.6689935222], atol=1e-10)


def _two_levels():
    coarser = torch.tensor([3.0, -1.0, 2.0], dtype=torch.float64).view(1, 3, 1, 1, 1)
    return torch.cat([_ramp(), -_ramp()], dim=1), coarser


def test_semantic_correlation_by_hand():
    # Means (3.5, -3.5, 3, -1, 2) give 0.35 - 0.7 + 0.9 + 0.1 + 0.1 = 0.75, maxima (7, 0, 3, -1, 2) give 1.8;
    # scores 0.75 + 1.8 = 2.55 and -2.55 + 2 * 0.5 = -1.55 (the shared bias enters twice).
    module = SemCor(3, 2, 3, "table4", BOTH).double()
    put(module.net[0], [[0.1, 0.2, 0.3, -0.1, 0.05]])
    put(module.net[2], [[1.0], [-1.0]], [0.0, 0.5])
    level, coarser = _two_levels()
    with torch.no_grad():
        out = module(level, coarser)
    close(out, torch.cat([0.9275735146 * _ramp(), -0.1750862682 * _ramp()], dim=1), atol=1e-9)


def test_semantic_correlation_of_both_pools_at_once_by_hand():
    # The first row sums all ten means and maxima, 15, times 0.1: sigmoid(1.5). Channel 1 of g is F_0 + F_1 = 0.
    module = SemCor(3, 2, 3, "equations", BOTH).double()
    put(module.net[0], [[0.1] * 10, [-0.1, 0.1] * 5])
    put(module.net[2], [[1.0, 0.0], [0.0, 1.0]])
    put(module.g, [[1.0, 0.0], [1.0, 1.0]])
    level, coarser = _two_levels()
    with nets.listening(module) as heard, torch.no_grad():
        out = module(level, coarser)
    close(heard["alpha"][:, 0], [0.8175744762], atol=1e-10)
    close(out, torch.cat([0.8175744762 * _ramp(), torch.zeros_like(_ramp())], dim=1), atol=1e-9)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("design", ["table4", "equations"])
@pytest.mark.parametrize("pools", [("avg",), ("max",), BOTH])
def test_the_fast_spatial_correlation_is_equations_4_to_6(dims, design, pools):
    torch.manual_seed(5)
    module = SpaCor(dims, 6, design, pools)
    level, finer = torch.randn(2, 6, *(3, 4, 2)[:dims]), torch.randn(2, 4, *(6, 8, 4)[:dims])
    with torch.no_grad():
        raised = F.interpolate(level, scale_factor=2, mode="nearest")
        both = torch.cat([raised, finer], dim=1)
        squeezes = {"avg": both.mean(1, keepdim=True), "max": both.amax(1, keepdim=True)}
        chosen = [squeezes[pool] for pool in pools]
        squeezed = torch.cat(chosen, dim=1) if design == "table4" else sum(chosen)
        weighed = torch.sigmoid(module.net(squeezed)) * module.g(raised)
        expected = F.avg_pool2d(weighed, 2) if dims == 2 else F.avg_pool3d(weighed, 2)
        close(module(level, finer), expected, atol=1e-6)


@pytest.mark.parametrize("design", ["table4", "equations"])
@pytest.mark.parametrize("pools", [("avg",), ("max",), BOTH])
def test_semantic_correlation_is_equations_7_to_9(design, pools):
    torch.manual_seed(6)
    module = SemCor(3, 8, 5, design, pools)
    level, coarser = torch.randn(2, 8, 4, 6, 2), torch.randn(2, 5, 2, 3, 1)
    with torch.no_grad():
        both = torch.cat([level, F.interpolate(coarser, scale_factor=2, mode="nearest")], dim=1)
        squeezes = {"avg": both.mean((2, 3, 4)), "max": both.amax((2, 3, 4))}
        chosen = [squeezes[pool] for pool in pools]
        score = sum(module.net(s) for s in chosen) if design == "table4" else module.net(torch.cat(chosen, dim=1))
        expected = torch.sigmoid(score)[:, :, None, None, None] * module.g(level)
        close(module(level, coarser), expected)


@pytest.mark.parametrize("design", ["table4", "equations"])
def test_correlations_without_a_score_halve(design):
    torch.manual_seed(7)
    spa, sem = SpaCor(2, 6, design, BOTH), SemCor(2, 6, 4, design, BOTH)
    drive(spa.net[2], 0.0)
    drive(sem.net[2], 0.0)
    level = torch.randn(2, 6, 4, 4)
    with torch.no_grad():
        equal(spa(level, torch.randn(2, 3, 8, 8)), 0.5 * spa.g(level))
        equal(sem(level, torch.randn(2, 4, 2, 2)), 0.5 * (level if design == "table4" else sem.g(level)))


def test_the_small_nets_have_the_widths_of_their_level():
    # SpaCor: a hidden layer of the level's width. SemCor: a quarter of it ("table4") or all of it ("equations").
    assert [layer.out_channels for layer in SpaCor(3, 64, "table4", BOTH).net[::2]] == [64, 1]
    assert [layer.out_features for layer in SemCor(3, 64, 128, "table4", BOTH).net[::2]] == [16, 64]
    assert [layer.out_features for layer in SemCor(3, 64, 128, "equations", BOTH).net[::2]] == [64, 64]


def _wiring(**options):
    """Features of the pyramid, and inputs and output of every correlation, of one pass."""
    net = small("dpc-net", **options)
    modules = {f"spa{name[-1]}": module for name, module in net.spacor.items()}
    modules |= {f"sem{name[-1]}": module for name, module in net.semcor.items()}
    seen_features = []
    handle = net.pyramid.register_forward_hook(lambda _m, _i, output: seen_features.extend(output))
    with passing(**modules) as seen:
        net(torch.randn(1, 1, 32, 32))
    handle.remove()
    return seen_features, {name: call for name, [call] in seen.items()}


@pytest.mark.parametrize("recursive", [False, True])
@pytest.mark.parametrize("order", ["spa_first", "sem_first"])
def test_correlations_read_what_the_equations_say(order, recursive):
    """Raw neighbours, or already correlated ones if recursive; the second stage reads what the first has made."""
    features, calls = _wiring(order=order, recursive=recursive)
    made = {
        "spa": [None, *(calls[f"spa{i}"][1] for i in range(1, 5))],
        "sem": [*(calls[f"sem{i}"][1] for i in range(4)), None],
    }
    first, second = ("spa", "sem") if order == "spa_first" else ("sem", "spa")
    given = {first: features}
    given[second] = [raw if new is None else new for raw, new in zip(features, made[first], strict=True)]
    neighbour = {"spa": -1, "sem": 1}  # the finer level, the coarser level
    assert len(calls) == 8
    for name, ((level, guide), _) in calls.items():
        stage, i = name[:3], int(name[3:])
        j = i + neighbour[stage]
        assert level is given[stage][i]
        correlated = made[stage][j] if recursive else None
        assert guide is (given[stage][j] if correlated is None else correlated)


@pytest.mark.parametrize("module", ["spacor", "semcor"])
def test_stages_can_be_left_out(module):
    net = small("dpc-net", **{module: False})
    assert len(net.outputs) == 9
    assert {name[:3] for name in net.outputs} == {"pfe", "sem" if module == "spacor" else "spa"}
    assert not getattr(net, module)
    features, calls = _wiring(**{module: False})
    assert len(calls) == 4
    assert all(level is features[int(name[3:])] for name, ((level, _), _) in calls.items())


def _assert_changes(option, value, **others):
    plain, other = small("dpc-net", **others), small("dpc-net", **{option: value}, **others)
    other.load_state_dict(plain.state_dict())
    x = torch.randn(1, 1, 32, 32)
    assert (plain(x)[0] - other(x)[0]).abs().max() > 1e-4


def test_both_orders_have_the_same_parameters_but_other_answers():
    assert count(on_meta("dpc-net", order="spa_first")) == count(on_meta("dpc-net", order="sem_first"))
    _assert_changes("order", "sem_first")


@pytest.mark.parametrize(
    ("option", "value", "others"),
    [
        ("recursive", True, {}),
        ("sem_pools", ("avg",), {}),
        ("sem_pools", ("max",), {}),
        ("spa_pools", ("avg",), {"design": "equations"}),  # of one size, so that both nets can have the same weights
        ("spa_pools", ("max",), {"design": "equations"}),
        ("infer_from", "pfe0", {}),
        ("infer_from", "mean", {}),
    ],
)
def test_options_change_the_answer_of_the_same_weights(option, value, others):
    _assert_changes(option, value, **others)


@pytest.mark.parametrize("pools", [("avg",), ("max",)])
def test_a_single_pool_reads_that_pool_only(pools):
    # Two finer maps with the same channel mean (0) but other maxima, and the other way round.
    module = SpaCor(2, 2, "table4", pools)
    level = torch.zeros(1, 2, 2, 2)
    flat, spread = torch.zeros(1, 2, 4, 4), torch.stack([torch.ones(4, 4), -torch.ones(4, 4)])[None]
    low = torch.stack([torch.zeros(4, 4), -torch.ones(4, 4)])[None]
    nn.init.ones_(module.g.bias)
    with torch.no_grad():
        same_mean = torch.equal(module(level, flat), module(level, spread))
        same_maximum = torch.equal(module(level, flat), module(level, low))
    assert (same_mean, same_maximum) == (pools == ("avg",), pools == ("max",))


@pytest.mark.parametrize(
    ("read", "options"),
    [
        ("sem0", {}),
        ("sem0", {"order": "sem_first"}),
        ("sem0", {"spacor": False}),
        ("pfe0", {"spacor": False, "semcor": False}),
        ("pfe0", {"infer_from": "pfe0"}),
    ],
)
def test_evaluation_reads_the_first_output_of_training(read, options):
    net = small("dpc-net", classes=3, **options)  # instance normalisation: no difference in evaluation
    x = torch.randn(2, 1, 32, 32)
    assert net.outputs[0] == read
    equal(net(x)[0], net.train()(x)[0])


@pytest.mark.parametrize(
    ("averaged", "options"),
    [
        (("pfe0", "spa1"), {"semcor": False}),  # where SpaCor is alone, by itself
        (("pfe0", "spa1", "sem0"), {"infer_from": "mean"}),
        (("pfe0", "sem0"), {"infer_from": "mean", "spacor": False}),
    ],
)
def test_a_mean_averages_probabilities_at_full_size(averaged, options):
    net = small("dpc-net", classes=3, **options)
    x = torch.randn(2, 1, 32, 32)
    with torch.no_grad():
        maps = dict(zip(net.outputs, net.train()(x), strict=True))
        shares = [maps[name].softmax(1) for name in averaged]
        shares = [
            share if len(share[0, 0]) == 32 else F.interpolate(share, scale_factor=2, mode="bilinear")
            for share in shares
        ]
        [output] = net.eval()(x)
    close(output, torch.log(sum(shares) / len(shares)), atol=1e-5)
    close(output.exp().sum(1), torch.ones(2, 32, 32), atol=1e-5)


def test_the_encoder_halves_by_its_own_convolutions():
    stages = on_meta("dpc-net").pyramid.encoder
    assert not any(isinstance(m, nn.MaxPool3d | nn.BatchNorm3d) for stage in stages for m in stage.modules())
    for stage, width in zip(stages[1:], (32, 64, 128, 256), strict=True):
        halve = stage[0]
        assert (halve.kernel_size, halve.stride) == ((2, 2, 2), (2, 2, 2))
        assert halve.in_channels == halve.out_channels == width  # the next convolution changes the width
    strided = on_meta("dpc-net", down="strided3").pyramid.encoder
    first = [next(m for m in stage.modules() if isinstance(m, nn.Conv3d)) for stage in strided]
    assert [(m.kernel_size[0], m.stride[0]) for m in first] == [(3, 1)] + [(3, 2)] * 4


def test_the_encoder_normalises_instances_and_leaks():
    net = on_meta("dpc-net", **PFE_ONLY)
    norms = [m for m in net.modules() if isinstance(m, nn.InstanceNorm3d)]
    assert len(norms) == 2 * 9
    assert all(norm.affine and norm.eps == 1e-5 for norm in norms)
    slopes = [m.negative_slope for m in net.modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes == [0.01] * 18


def test_the_decoder_joins_upsampled_features_before_the_skip():
    net = small("dpc-net")
    with passing(encoder=net.pyramid.encoder[0], up=net.pyramid.ups[-1], decoder=net.pyramid.decoder[-1]) as seen:
        net(torch.randn(1, 1, 32, 32))
    [(_, skip)], [(_, risen)], [([joined], _)] = seen["encoder"], seen["up"], seen["decoder"]
    equal(joined, torch.cat([risen, skip], dim=1))


def test_attention_can_be_heard_at_every_level():
    found = {point.name: point for point in nets.attention_points(on_meta("dpc-net"), 1, (64, 64, 32))}
    for i in range(1, 5):  # averaged back to the level's own size
        assert (found[f"spacor.level{i}"].kind, found[f"spacor.level{i}"].maps) == ("gate", 1)
        assert found[f"spacor.level{i}"].size == (64 >> i, 64 >> i, 32 >> i)
    for i, width in enumerate((32, 64, 128, 256)):
        assert (found[f"semcor.level{i}"].kind, found[f"semcor.level{i}"].maps) == ("channel", width)
    assert len(found) == 8


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("design is one of 'table4', 'equations'; got 'eq'", {"design": "eq"}),
        ("order is one of", {"order": "both"}),
        ("down is one of", {"down": "pool"}),
        ("infer_from is one of", {"infer_from": "spa1"}),
        ("infer_from='sem0' needs semcor=True", {"infer_from": "sem0", "semcor": False}),
        ("spa_pools or sem_pools is one of", {"spa_pools": ()}),
        ("spa_pools or sem_pools is one of", {"sem_pools": ("median",)}),
    ],
)
def test_impossible_options_are_refused(message, options):
    with pytest.raises(BadInput, match=message):
        nets.create("dpc-net", 3, 1, 3, **options)

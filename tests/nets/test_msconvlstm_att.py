"""MSConvLSTM-Att: counts per stage, attention and ConvLSTM by hand, the order of quadrants, the mean of the scales."""

from __future__ import annotations

from math import log

import pytest
import torch
from netting import close, count, drive, equal, meta, on_meta, passing, put, shapes_of, small
from torch import nn

from attentus import nets
from attentus.errors import BadInput
from attentus.nets.msconvlstm_att import (
    ConvLSTM,
    SEInception,
    SEResidual,
    SpatialAttention,
    SqueezeExcitation,
    quadrants,
    tile,
)


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        (2_598_703, {}),
        (2_598_703, {"preset": "paper"}),
        (951_403, {"share_branches": True}),
        (2_709_103, {"preset": "detail"}),
        (2_614_306, {"n_sam": 2}),
        (2_719_279, {"widths": (32, 64, 128)}),
        (355_751, {"preset": "small"}),
        (383_303, {"preset": "small", "detail": True}),
        (911_077, {"channels": 1, "classes": 2}),
        (2_598_703, {"attention_stride": 1}),
    ],
)
def test_parameters_are_the_specified_integers(expected, options):
    assert count(on_meta("msconvlstm-att", **options)) == expected


def test_parameters_stage_by_stage():
    net = on_meta("msconvlstm-att")
    assert len(net.branches) == 4
    for branch in net.branches:
        assert [count(branch.lstm), count(branch.inception), count(branch.residual)] == [9_856, 9_308, 529_936]
    assert [count(join) for join in net.join] == [4_224, 16_512, 32_896]
    assert count(net.multi_scale) == 110_720
    assert [count(refine) for refine in net.refine] == [73_856] * 3
    assert [count(sam) for sam in net.sam] == [5_201] * 3
    assert [count(head) for head in net.heads] == [260] * 3


@pytest.mark.parametrize(
    ("expected", "printed_to", "options"),
    [
        (82_684_724_224, 0, {}),
        (90.68e9, 0.005e9, {"detail": True}),
        (35.01e9, 0.005e9, {"preset": "small"}),
        (1.04e12, 0.005e12, {"attention_stride": 1}),
    ],
)
def test_flops_of_a_slice(expected, printed_to, options):
    assert nets.cost(on_meta("msconvlstm-att", **options), 4, (190, 190)).flops == pytest.approx(
        expected, abs=printed_to
    )


@pytest.mark.parametrize("size", [(190, 190), (96, 96), (189, 95)])
def test_the_slice_keeps_its_size(size):
    assert shapes_of(on_meta("msconvlstm-att")(meta(2, 4, *size))) == [(2, 4, *size)]


def test_the_three_scales_have_190_95_and_48_pixels():
    net = on_meta("msconvlstm-att")
    refine = {f"refine{i}": module for i, module in enumerate(net.refine)}
    with passing(branch=net.branches[0], **refine) as seen:
        net(meta(1, 4, 190, 190))
    [(_, scales)] = seen["branch"]
    assert shapes_of(scales) == [(1, 16, 190, 190), (1, 64, 95, 95), (1, 128, 48, 48)]
    for name in refine:  # every scale meets the multi-scale map on the common grid
        [([joined], _)] = seen[name]
        assert joined.shape == (1, 128, 95, 95)


@pytest.mark.parametrize(("stride", "grid"), [(1, 190), (2, 95), (4, 48)])
def test_attention_spans_the_grid_of_its_stride(stride, grid):
    net = on_meta("msconvlstm-att", preset="tiny", attention_stride=stride)
    points = [point for point in nets.attention_points(net, 4, (190, 190)) if point.kind == "received"]
    assert [(point.maps, point.size) for point in points] == [(1, (grid, grid))] * 3


def test_the_output_is_the_mean_of_the_three_scales():
    net = small("msconvlstm-att", channels=2)
    x = torch.randn(2, 2, 20, 26)
    with torch.no_grad():
        first, second, third = net.scale_logits(x)
        torch.testing.assert_close(net(x)[0], (first + second + third) / 3)
    assert not torch.equal(first, second)
    for head, answer in zip(net.heads, (1.0, 2.0, 6.0), strict=True):
        drive(head, answer)
    close(net(x)[0].detach(), torch.full((2, 2, 20, 26), 3.0))  # logits: a mean of softmaxes would give a half


def test_odd_sides_repeat_their_edge():
    net = small("msconvlstm-att")
    x = torch.randn(1, 1, 19, 25)
    padded = nn.functional.pad(x, (0, 1, 0, 1), mode="replicate")
    equal(net(x)[0], net(padded)[0][..., :19, :25])


def test_every_modality_has_a_branch_of_its_own():
    net = small("msconvlstm-att", channels=3)
    x = torch.randn(1, 3, 16, 16)
    with passing(**{f"branch{m}": branch for m, branch in enumerate(net.branches)}) as seen:
        net(x)
    for m in range(3):
        [([image], _)] = seen[f"branch{m}"]
        equal(image, x[:, m : m + 1])
    shared = small("msconvlstm-att", channels=3, share_branches=True)
    with passing(branch=shared.branches[0]) as seen:
        shared(x)
    assert len(shared.branches) == 1
    equal(torch.cat([image for [image], _ in seen["branch"]], dim=1), x)


def _by_hand(strength):
    """One channel, two positions: of V = (2, 4), K = (0, ln 3), Q = (1, 0) and X = (1, 5)."""
    module = SpatialAttention(1)
    put(module.key, [[log(3) / 2]], -log(3))
    put(module.query, [[-0.5]], 2.0)
    put(module.value, [[2.0]], -3.0)
    nn.init.constant_(module.strength, strength)
    return module, torch.tensor([2.0, 4.0]).view(1, 1, 1, 2)


def test_spatial_attention_by_hand():
    # S[i,j] = softmax over i of K_i Q_j: column 0 is (1, 3) / 4, column 1 is (1, 1) / 2.
    # O_0 = 0.5 (0.25 * 1 + 0.75 * 5) + 2 = 4; O_1 = 0.5 (0.5 * 1 + 0.5 * 5) + 4 = 5.5.
    module, v = _by_hand(0.5)
    with torch.no_grad():
        close(module(v), [4.0, 5.5])
        output, share = module.dense(v)
        close(output, [4.0, 5.5])
        close(share, [[0.25, 0.5], [0.75, 0.5]])
        close(module.attention_of(v, [(0, 1), (0, 0)]), [[0.5, 0.5], [0.25, 0.75]])


def test_received_attention_by_hand():
    # Mean of the columns of S: (0.25 + 0.5) / 2 and (0.75 + 0.5) / 2.
    module, v = _by_hand(0.0)
    with nets.listening(module) as heard, torch.no_grad():
        module(v)
    close(heard["alpha"], [0.375, 0.625])


def test_received_attention_is_not_worked_out_unless_somebody_listens(monkeypatch):
    module, v = _by_hand(0.5)
    monkeypatch.setattr(module.alpha, "shown", lambda _coefficients: pytest.fail("worked out"))
    module(v)


def test_where_a_position_looks():
    module, v = _random_attention()
    with torch.no_grad():
        _, share = module.dense(v)
        for y, x in ((0, 0), (4, 6), (2, 3)):
            found = module.alpha.towards((module.key(v), module.query(v)), (y, x))
            close(found.flatten(1), share[:, :, 7 * y + x])


def test_of_many_positions_some_are_asked():
    module = SpatialAttention(8)
    v = torch.randn(1, 8, 40, 50)
    with torch.no_grad(), nets.listening(module) as heard:
        module(v)
        share = module.dense(v)[1]
    close(heard["alpha"].flatten(1), share[:, :, ::8].mean(2))  # 250 of 2000
    close(heard["alpha"].sum(), 1.0, atol=1e-5)


def _random_attention(channels=16):
    torch.manual_seed(4)
    module = SpatialAttention(channels)
    nn.init.constant_(module.strength, 0.7)
    return module, torch.randn(2, channels, 5, 7)


@pytest.mark.parametrize("channels", [1, 8, 16, 20])
def test_the_printed_and_the_memory_saving_attention_agree(channels):
    module, v = _random_attention(channels)
    with torch.no_grad():
        output, share = module.dense(v)
        close(module(v), output, atol=1e-5)
        close(share.sum(1), torch.ones(2, 35))
        some = [(0, 0), (4, 6), (2, 3)]
        columns = share[:, :, [7 * y + x for y, x in some]].transpose(1, 2).reshape(2, 3, 5, 7)
        close(module.attention_of(v, some), columns)
        with nets.listening(module) as heard:
            module(v)
        close(heard["alpha"].flatten(1), share.mean(2))


def test_attention_starts_silent_but_learns_from_the_first_step():
    module = SpatialAttention(16)
    v = torch.randn(1, 16, 6, 6)
    output = module(v)
    equal(output, v)
    output.square().sum().backward()
    assert module.strength.grad.abs() > 1e-3


def test_stacked_attention_modules_follow_each_other():
    net = on_meta("msconvlstm-att", n_sam=2)
    assert [[type(module) for module in sam] for sam in net.sam] == [[SpatialAttention] * 2] * 3


def test_a_convlstm_by_hand():
    # Gates sigmoid(0), sigmoid(1), sigmoid(0), tanh(1): c = 0.731059 c + 0.5 * 0.761594, h = 0.5 tanh(c).
    lstm = ConvLSTM(1, 1)
    put(lstm.gates, torch.zeros(4, 2), [0.0, 1.0, 0.0, 1.0])
    with torch.no_grad():
        states = lstm(torch.randn(1, 4, 1, 1, 1))
    close(states, [0.181700, 0.288909, 0.348823, 0.383187])


def test_a_convlstm_hears_its_input_and_its_own_last_state():
    # Only the candidate listens: g = tanh(x + 2 h) at the centre; i = o = 1/2, f = 0 (bias -1e4).
    # x = 1: c = 0.5 tanh(1) = 0.380797, h = 0.5 tanh(c) = 0.181700.
    # x = 0: c = 0.5 tanh(0.363400) = 0.174102, h = 0.5 tanh(c) = 0.086182.
    lstm = ConvLSTM(1, 1)
    put(lstm.gates, [[0.0, 0.0]] * 3 + [[1.0, 2.0]], [0.0, -1e4, 0.0, 0.0])
    with torch.no_grad():
        close(lstm(torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)), [0.181700, 0.086182])


def test_a_convlstm_remembers_until_taught_otherwise():
    bias = ConvLSTM(1, 3).gates.bias
    equal(bias[3:6], torch.ones(3))
    assert (torch.cat([bias[:3], bias[6:]]).abs() < 1).all()


def test_quadrants_are_read_from_the_top_left_row_by_row():
    x = torch.tensor([[1, 1, 2, 2, 2], [3, 3, 4, 4, 4]])[:, [0, 1, 2, 3]].float().view(1, 1, 2, 4)
    equal(quadrants(x).flatten(2), torch.tensor([[1.0, 1], [2, 2], [3, 3], [4, 4]]).view(1, 4, 2))


def test_tiling_undoes_the_split():
    x = torch.randn(2, 3, 6, 10)
    assert quadrants(x).shape == (2, 4, 3, 3, 5)
    equal(tile(quadrants(x)), x)


@pytest.mark.parametrize("changed", [0, 1, 2, 3])
def test_a_quadrant_changes_itself_and_later_ones_only(changed):
    torch.manual_seed(2)
    lstm = ConvLSTM(1, 4)
    x = torch.randn(1, 1, 8, 8)
    parts = quadrants(x)
    parts[:, changed] += 1.0
    with torch.no_grad():
        before, after = (quadrants(tile(lstm(quadrants(image)))) for image in (x, tile(parts)))
    differs = [not torch.equal(before[:, q], after[:, q]) for q in range(4)]
    assert differs == [q >= changed for q in range(4)]


def test_squeeze_and_excitation_without_weights_halves():
    module = SqueezeExcitation(8)
    for layer in (module.factors[0], module.factors[2]):
        drive(layer, 0.0)
    x = torch.randn(2, 8, 3, 3)
    equal(module(x), x / 2)


def test_squeeze_and_excitation_by_hand():
    # Means 1 and -1; inner units relu(1 - (-1)) = 2 and three zeros; scores 2 * ln(3) / 2 = ln 3 and -ln 3.
    module = SqueezeExcitation(2)
    drive(module.factors[0], 0.0)
    drive(module.factors[2], 0.0)
    with torch.no_grad():
        module.factors[0].weight[0] = torch.tensor([1.0, -1.0])
        module.factors[2].weight[:, 0] = torch.tensor([log(3) / 2, -log(3) / 2])
        x = torch.tensor([[0.0, 2.0], [-3.0, 1.0]]).view(1, 2, 1, 2)
        close(module(x), [[0.0, 1.5], [-0.75, 0.25]])


def test_the_inception_block_joins_four_views():
    block = SEInception(16, 64)
    with passing(**{f"view{i}": view for i, view in enumerate(block.views)}, excite=block.excite) as seen:
        block(torch.randn(2, 16, 6, 5))
    views = [seen[f"view{i}"][0][1] for i in range(4)]
    assert [view.shape[1] for view in views] == [16, 32, 8, 8]
    equal(seen["excite"][0][0][0], torch.cat(views, dim=1))


def test_a_residual_block_adds_what_it_was_given():
    block = SEResidual(4, 4).eval()
    nn.init.zeros_(block.body[2].weight)  # the body's last normalisation
    x = torch.randn(1, 4, 5, 5)
    equal(block(x), x.relu())
    assert isinstance(block.shortcut, nn.Identity)
    with torch.device("meta"):
        assert SEResidual(4, 8, stride=2)(meta(1, 4, 95, 95)).shape == (1, 8, 48, 48)
        assert count(SEResidual(4, 8, stride=2).shortcut) == 4 * 8 + 2 * 8  # convolution without bias, normalisation


def test_detail_lets_the_heads_see_the_first_scale_at_full_size():
    net = small("msconvlstm-att", detail=True)
    with passing(first=net.join[0], detail=net.detail[2]) as seen:
        net(torch.randn(1, 1, 20, 24))
    [(_, first)], [([joined], out)] = seen["first"], seen["detail"]
    equal(joined[:, 16:], first)
    assert out.shape == (1, 8, 20, 24)


def test_volumes_are_refused():
    with pytest.raises(BadInput, match=r"2D net.*four quadrants of a slice.*Take dims=2; volumes .* slice by slice"):
        nets.create("msconvlstm-att", 3, 1, 2)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("widths are three numbers, one per scale", {"widths": (4, 8)}),
        ("attention_stride is one of 1, 2, 4; got 3", {"attention_stride": 3}),
    ],
)
def test_impossible_options_are_refused(message, options):
    with pytest.raises(BadInput, match=message):
        nets.create("msconvlstm-att", 2, 1, 2, **options)

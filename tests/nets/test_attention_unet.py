"""The Attention U-Net against its specification: exact counts, exact costs, a gate worked out by hand."""

from __future__ import annotations

import pytest
import torch
from netting import count, meta, on_meta
from torch import nn

from attentus import nets
from attentus.errors import BadInput
from attentus.nets.attention_unet import AttentionUNet, GridGate


@pytest.mark.parametrize(
    ("expected", "name", "options"),
    [
        (5_888_004, "unet", {}),
        (6_444_328, "unet", {"preset": "capacity-match"}),
        (10_403_190, "unet", {"preset": "huge"}),
        (1_473_516, "unet", {"feature_scale": 8}),
        (5_887_028, "unet", {"deep_supervision": "off"}),
        (5_887_466, "unet", {"classes": 2}),
        (1_966_308, "unet", {"dims": 2}),
        (7_854_804, "unet", {"dims": 2, "feature_scale": 2, "channels": 4}),
        (6_407_018, "attention-unet", {}),
        (6_407_018, "attention-unet", {"preset": "paper"}),
        (6_473_322, "attention-unet", {"preset": "release"}),
        (6_407_402, "attention-unet", {"gating": 128}),
        (6_147_847, "attention-unet", {"n_gates": 1}),
        (6_214_151, "attention-unet", {"n_gates": 1, "gating": 256}),
        (6_666_189, "attention-unet", {"n_gates": 3}),
        (6_925_360, "attention-unet", {"n_gates": 4}),
        (11_316_817, "attention-unet", {"feature_scale": 3}),
        (1_604_002, "attention-unet", {"feature_scale": 8}),
        (6_406_042, "attention-unet", {"deep_supervision": "off"}),
        (6_406_480, "attention-unet", {"classes": 2}),
        (6_408_314, "attention-unet", {"channels": 4}),
        (2_313_290, "attention-unet", {"dims": 2}),
        (9_236_890, "attention-unet", {"dims": 2, "feature_scale": 2, "channels": 4}),
    ],
)
def test_parameters_are_the_specified_integers(expected, name, options):
    assert count(on_meta(name, **options)) == expected


def test_parameters_by_part():
    net = on_meta("attention-unet")
    assert count(net.encoder) + count(net.center) == 3_535_440
    assert count(net.gates) == 519_014
    assert [count(net.gates[f"level{level}"]) for level in (2, 3, 4)] == [24_994, 99_138, 394_882]
    assert count(net.decoder) == 2_351_520
    assert count(net.heads) == 976
    assert count(net.final) == 68
    assert [count(GridGate(3, c, g)) for c, g in ((32, 64), (64, 128), (128, 256))] == [11_425, 45_377, 180_865]


@pytest.mark.parametrize(
    ("expected", "name", "options"),
    [
        (339_409_305_600, "unet", {}),
        (354_699_753_600, "unet", {"preset": "capacity-match"}),
        (587_119_114_800, "unet", {"preset": "huge"}),
        (346_572_288_000, "attention-unet", {}),
        (346_650_931_200, "attention-unet", {"preset": "release"}),
        (342_990_796_800, "attention-unet", {"n_gates": 1}),
    ],
)
def test_flops_of_one_forward_pass_of_the_papers_patch(expected, name, options):
    assert nets.cost(on_meta(name, **options), 1, (96, 160, 160)).flops == expected


def test_the_papers_patch_keeps_its_size():
    assert on_meta("attention-unet")(meta(1, 1, 96, 160, 160))[0].shape == (1, 4, 96, 160, 160)
    small = nets.create("attention-unet", 3, 1, 4, feature_scale=16)
    assert small(torch.randn(2, 1, 32, 48, 64))[0].shape == (2, 4, 32, 48, 64)


def test_gates_start_open():
    net = nets.create("attention-unet", 3, 1, 2, feature_scale=16).eval()
    with nets.listening(net) as heard:
        net(10 * torch.randn(1, 1, 32, 32, 32))
    assert len(heard) == 6
    for alpha in heard.values():
        torch.testing.assert_close(alpha, torch.full_like(alpha, 0.952574), rtol=0, atol=1e-6)
    shapes = {name: tuple(alpha.shape[2:]) for name, alpha in heard.items()}
    assert shapes["gates.level2.each.0"] == (16, 16, 16)
    assert shapes["gates.level4.each.1"] == (4, 4, 4)


def test_open_gates_learn_from_the_first_step():
    net = nets.create("attention-unet", 2, 1, 2, feature_scale=16)
    net(torch.randn(2, 1, 32, 32))[0].square().mean().backward()
    assert net.gates["level3"].each[0].psi.weight.grad.abs().sum() > 0


def test_a_grid_gate_by_hand():
    # theta: mean of 2x2x2 voxels of value 2 -> 2.0; plus g = 0.5; relu 2.5; psi - 1 -> 1.5; sigmoid -> 0.817574.
    gate = GridGate(3, 1, 1).eval()
    with torch.no_grad():
        gate.theta.weight.fill_(1 / 8)
        gate.phi.weight.fill_(1.0)
        gate.phi.bias.zero_()
        gate.psi.weight.fill_(1.0)
        gate.psi.bias.fill_(-1.0)
        gate.out[0].weight.fill_(1.0)
        gate.out[0].bias.zero_()
        skip = torch.tensor([1.0, 3.0, 2.0, 2.0, 0.0, 4.0, 2.5, 1.5]).view(1, 1, 2, 2, 2)
        seen = []
        gate.alpha.register_forward_hook(lambda _m, inputs, _output: seen.append(inputs[0]))
        gated = gate(skip, torch.full((1, 1, 1, 1, 1), 0.5))
    torch.testing.assert_close(seen[0], torch.full((1, 1, 2, 2, 2), 0.817574), rtol=0, atol=1e-6)
    torch.testing.assert_close(gated, 0.817574 * skip, rtol=2e-5, atol=0)  # batch norm adds its epsilon


def test_the_first_skip_is_not_gated():
    net = nets.create("attention-unet", 2, 1, 2, feature_scale=16)
    assert sorted(net.gates) == ["level2", "level3", "level4"]
    seen = {}
    net.encoder[0].register_forward_hook(lambda _m, _i, output: seen.__setitem__("skip", output))
    net.decoder["level1"].register_forward_hook(lambda _m, i, _o: seen.__setitem__("joined", i[0]))
    net.eval()(torch.randn(1, 1, 32, 32))
    width = seen["skip"].shape[1]
    torch.testing.assert_close(seen["joined"][:, :width], seen["skip"], rtol=0, atol=0)


def test_auxiliary_outputs_come_finest_first():
    net = nets.create("attention-unet", 2, 1, 3, feature_scale=16, deep_supervision="aux").eval()
    outputs = net(torch.randn(1, 1, 64, 64))
    assert len(outputs) == 4
    roughness = [output.diff(dim=-1).diff(dim=-1).abs().mean() / output.std() for output in outputs]
    assert roughness == sorted(roughness, reverse=True)


def test_without_gates_it_is_the_baseline():
    torch.manual_seed(3)
    plain = nets.create("unet", 2, 1, 2, feature_scale=16)
    torch.manual_seed(3)
    bare = AttentionUNet(2, 1, 2, n_gates=0, feature_scale=16)
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(plain.eval()(x)[0], bare.eval()(x)[0])
    assert not nets.taps(plain)
    assert not any(isinstance(module, GridGate) for module in plain.modules())


def test_padding_does_not_leak_into_a_size_that_fits():
    net = nets.create("unet", 2, 1, 2, feature_scale=16).eval()
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(
        net(x[..., :30])[0], net(nn.functional.pad(x[..., :30], (0, 2, 0, 0), mode="replicate"))[0][..., :30]
    )


@pytest.mark.parametrize("bad", [{"deep_supervision": "on"}, {"gate_init": "shut"}, {"feature_scale": 100}])
def test_impossible_options_are_refused(bad):
    with pytest.raises(BadInput, match=next(iter(bad))):
        nets.create("attention-unet", 2, 1, 2, **bad)

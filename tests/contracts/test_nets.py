"""What every net promises, whatever its paper."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from attentus import nets
from attentus.errors import BadInput, UnknownName

SMALL = {
    "attention-unet": {"feature_scale": 16},
    "unet": {"feature_scale": 16},
    "classic-unet": {"width": 4},
}
VARIANTS = [(name, preset) for name in nets.names() for preset in (None, *nets.presets(name))]
SIZES = {2: (24, 40), 3: (20, 33, 17)}


def small(name, dims=2, channels=1, classes=2, **options):
    torch.manual_seed(0)
    return nets.create(name, dims, channels, classes, **{**SMALL[name], **options})


def test_every_net_is_held_to_the_contract():
    assert set(SMALL) == set(nets.names())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", nets.names())
@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (2, 2), (4, 5)])
def test_returns_a_tuple_of_logits_of_the_input_size_even_if_odd(name, dims, channels, classes):
    net = small(name, dims, channels, classes)
    x = torch.randn(2, channels, *SIZES[dims])
    for mode in (net.train(), net.eval()):
        outputs = mode(x)
        assert isinstance(outputs, tuple)
        assert all(output.shape == (2, classes, *SIZES[dims]) for output in outputs)
        assert all(torch.isfinite(output).all() for output in outputs)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", nets.names())
def test_gradients_reach_every_parameter(name, dims):
    net = small(name, dims)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):  # a gate that starts open hears of its inputs from the second step on
        optimiser.zero_grad()
        loss = sum(output.square().mean() for output in net(torch.randn(2, 1, *[32] * dims)))
        loss.backward()
        optimiser.step()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        if parameter.ndim > 1:  # biases in front of a normalisation cancel out
            assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize("name", nets.names())
def test_a_seed_decides_everything(name):
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(small(name).eval()(x), small(name).eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", nets.names())
def test_weights_survive_safetensors(name, tmp_path):
    net, other = small(name), nets.create(name, 2, 1, 2, **SMALL[name])
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    x = torch.randn(1, 1, 32, 32)
    torch.testing.assert_close(net.eval()(x), other.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("name", nets.names())
def test_runs_under_bf16_autocast_and_channels_last(name):
    net = small(name, 3).to(memory_format=torch.channels_last_3d).eval()
    x = torch.randn(1, 1, 16, 32, 16)
    with torch.no_grad():
        exact = net(x)[0]
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x.to(memory_format=torch.channels_last_3d))[0]
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max() + 0.05


@pytest.mark.parametrize("name", nets.names())
def test_can_be_exported(name):
    net = small(name).eval()
    x = torch.randn(1, 1, 32, 48)
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x)[0], net(x)[0])


@pytest.mark.parametrize(
    ("name", "preset"), [v for v in VARIANTS if nets.taps(nets.create(v[0], 2, 1, 2, preset=v[1]))]
)
def test_attention_lies_between_0_and_1_and_listening_changes_nothing(name, preset):
    net = small(
        name, 2, 2, 3, preset=preset, **({"feature_scale": 16, "gating": None} if name == "attention-unet" else {})
    )
    net.eval()
    x = torch.randn(2, 2, 32, 48)
    plain = net(x)
    with nets.listening(net) as heard:
        listened = net(x)
    torch.testing.assert_close(plain, listened, rtol=0, atol=0)
    assert heard.keys() == nets.taps(net).keys()
    for name_of_gate, alpha in heard.items():
        assert alpha.shape[:2] == (2, 1), name_of_gate
        assert 0 <= alpha.min() <= alpha.max() <= 1, name_of_gate
    heard.clear()
    net(x)
    assert not heard


@pytest.mark.parametrize("name", nets.names())
def test_overfits_two_small_pictures(name):
    torch.manual_seed(1)
    net = nets.create(name, 2, 1, 2, **({"width": 8} if name == "classic-unet" else {"feature_scale": 8}))
    y, x = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    truth = torch.stack([(y - 12) ** 2 + (x - 14) ** 2 < 60, (y - 20) ** 2 + (x - 9) ** 2 < 40]).long()
    image = truth[:, None] + 0.5 * torch.randn(2, 1, 32, 32)
    optimiser = torch.optim.Adam(net.parameters(), lr=3e-3)
    for _ in range(60):
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(image)[0], truth)
        loss.backward()
        optimiser.step()
    found = net(image)[0].argmax(1)
    assert 2 * (found * truth).sum() / (found.sum() + truth.sum()) > 0.95


def test_wrong_names_are_answered_with_the_right_ones():
    with pytest.raises(UnknownName, match=r"No net is called 'atention-unet'\. Did you mean 'attention-unet'"):
        nets.create("atention-unet", 3, 1, 2)
    with pytest.raises(BadInput, match=r"no option 'n_gate'\. Did you mean 'n_gates'"):
        nets.create("attention-unet", 3, 1, 2, n_gate=1)
    with pytest.raises(UnknownName, match=r"No preset is called 'papers'\. Did you mean 'paper'"):
        nets.create("attention-unet", 3, 1, 2, preset="papers")
    with pytest.raises(BadInput, match="dims must be 2 or 3"):
        nets.create("unet", 4, 1, 2)

"""What every net promises, whatever its paper. A new net is held to all of it by being in the catalogue."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from attentus import losses, nets
from attentus.data.phantom import abdomen
from attentus.errors import BadInput, UnknownName

BUILT_IN = [name for name in nets.names() if nets.card(name)]
EACH = [(name, dims) for name in BUILT_IN for dims in nets.card(name).dims]
IN_2D = [each for each in EACH if each[1] == 2]
IN_3D = [each for each in EACH if each[1] == 3]
VARIANTS = [
    (name, preset)
    for name in BUILT_IN
    for preset in nets.presets(name)
    if preset != "tiny" and 2 in nets.card(name).dims
]
ODD = {2: (37, 50), 3: (20, 33, 17)}
EVEN = {2: (32, 64), 3: (32, 32, 32)}
LIVER = 1


def tiny(name, dims=2, channels=1, classes=2):
    torch.manual_seed(0)
    return nets.create(name, dims, channels, classes, preset="tiny")


def levels_of(size):
    """All sizes an output may have: the input's, halved again and again, rounded up."""
    return [tuple(-(-n // 2**level) for n in size) for level in range(6)]


@pytest.mark.parametrize(("name", "dims"), EACH)
@pytest.mark.parametrize(("channels", "classes"), [(1, 1), (2, 2), (4, 5)])
def test_returns_a_tuple_of_finite_logits_the_first_of_the_inputs_size(name, dims, channels, classes):
    net, size = tiny(name, dims, channels, classes), EVEN[dims]
    x = torch.randn(2, channels, *size)
    for mode in (net.train(), net.eval()):
        outputs = mode(x)
        assert isinstance(outputs, tuple)
        assert outputs[0].shape == (2, classes, *size)
        sizes = [tuple(output.shape[2:]) for output in outputs[1:]]
        assert sizes == sorted(sizes, reverse=True), "heads go from fine to coarse"
        assert set(sizes) <= set(levels_of(size))
        assert all(output.shape[:2] == (2, classes) for output in outputs)
        assert all(torch.isfinite(output).all() for output in outputs)
    assert len(outputs) == 1, "evaluation returns what inference reads"


@pytest.mark.parametrize(("name", "dims"), EACH)
def test_odd_sizes_come_back_as_they_were_or_are_refused_with_the_size_to_pad_to(name, dims):
    net, size = tiny(name, dims).eval(), ODD[dims]
    x = torch.randn(1, 1, *size)
    try:
        assert net(x)[0].shape[2:] == size
        assert net.train()(torch.cat([x, x]))[0].shape[2:] == size
    except BadInput as refusal:
        padded = [int(n) for n in re.search(r"pad it to \[(.*)\]", str(refusal))[1].split(",")]
        assert net(torch.randn(1, 1, *padded))[0].shape[2:] == tuple(padded)


@pytest.mark.parametrize(("name", "dims"), EACH)
def test_gradients_reach_every_parameter(name, dims):
    net = tiny(name, dims).train()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    for _ in range(2):  # a gate that starts open, or closed, hears of its inputs from the second step on
        optimiser.zero_grad()
        loss = sum(output.square().mean() for output in net(torch.randn(2, 1, *[32] * dims)))
        loss.backward()
        optimiser.step()
    for parameter_name, parameter in net.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert torch.isfinite(parameter.grad).all(), parameter_name
        if parameter.ndim > 1:  # biases in front of a normalisation cancel out
            assert parameter.grad.abs().sum() > 0, parameter_name


@pytest.mark.parametrize(("name", "dims"), EACH)
def test_a_seed_decides_everything(name, dims):
    x = torch.randn(2, 1, *EVEN[dims], generator=torch.Generator().manual_seed(3))
    first, second = ([(net := tiny(name, dims)).train()(x), net.eval()(x)] for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize(("name", "dims"), EACH)
def test_weights_survive_safetensors(name, dims, tmp_path):
    net, other = tiny(name, dims), nets.create(name, dims, 1, 2, preset="tiny")
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    other.load_state_dict(load_file(tmp_path / "w.safetensors"))
    x = torch.randn(1, 1, *EVEN[dims])
    torch.testing.assert_close(net.eval()(x), other.eval()(x), rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("name", "dims"), EACH)
def test_runs_in_half_precision_and_channels_last(name, dims, dtype):
    last = torch.channels_last_3d if dims == 3 else torch.channels_last
    net = tiny(name, dims).to(memory_format=last).eval()
    x = torch.randn(1, 1, *EVEN[dims])
    with torch.no_grad():
        exact = net(x)[0]
        with torch.autocast("cpu", dtype):
            rough = net(x.to(memory_format=last))[0]
    assert rough.dtype == dtype
    assert (rough.float() - exact).abs().max() < 0.05 * exact.abs().max() + 0.05


@pytest.mark.parametrize(("name", "dims"), IN_2D)
def test_torch_export_traces_the_whole_net(name, dims):
    net = tiny(name, dims).eval()
    x = torch.randn(1, 1, *EVEN[dims])
    exported = torch.export.export(net, (x,)).module()
    torch.testing.assert_close(exported(x)[0], net(x)[0])


def hold_to_compiled(net, x, backend):
    compiled = torch.compile(net, fullgraph=True, backend=backend)  # fails where the graph would break
    outputs = compiled(x)
    torch.testing.assert_close(outputs, net(x), rtol=1e-3, atol=1e-3)
    outputs[0].square().mean().backward()
    assert any(parameter.grad is not None for parameter in net.parameters())
    torch.compiler.reset()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), EACH)
def test_compiles_without_breaks(name, dims):
    hold_to_compiled(tiny(name, dims).eval(), torch.randn(1, 1, *EVEN[dims]), "aot_eager")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # the compiler's own
@pytest.mark.parametrize(("name", "dims"), [("attention-unet", 2), ("dpc-net", 2)])  # a minute each
def test_compiled_code_says_the_same(name, dims):
    hold_to_compiled(tiny(name, dims).eval(), torch.randn(1, 1, *EVEN[dims]), "inductor")


@pytest.mark.parametrize(("name", "dims"), EACH)
def test_attention_can_be_listened_to_without_changing_anything(name, dims):
    net = tiny(name, dims, 2, 3).eval()
    x = torch.randn(2, 2, *EVEN[dims])
    plain = net(x)
    with nets.listening(net) as heard:
        listened = net(x)
    torch.testing.assert_close(plain, listened, rtol=0, atol=0)
    assert heard.keys() == nets.taps(net).keys()
    for place, maps in heard.items():
        assert maps.ndim == dims + 2
        assert 0 <= maps.min() <= maps.max() <= 1, place
    heard.clear()
    net(x)
    assert not heard


with torch.device("meta"):
    GATED = [each for each in EACH if nets.taps(tiny(*each))]


@pytest.mark.parametrize(("name", "dims"), GATED)
def test_attention_can_be_replaced(name, dims):
    net, x = tiny(name, dims).eval(), torch.randn(1, 1, *EVEN[dims])
    with torch.no_grad():
        for sam in (module for module in net.modules() if hasattr(module, "strength")):
            sam.strength.fill_(0.5)  # starts at zero, where nothing that is gathered counts
        plain = net(x)
        for tap in nets.taps(net):
            with nets.replacing(net, {tap: lambda own: own}):
                torch.testing.assert_close(net(x), plain, rtol=0, atol=0)
        with nets.replacing(net, dict.fromkeys(nets.taps(net), lambda _own: None)):
            assert not torch.equal(net(x)[0], plain[0])
        torch.testing.assert_close(net(x), plain, rtol=0, atol=0)
    with pytest.raises(UnknownName, match="No attention module is called 'gate'"), nets.replacing(net, {"gate": id}):
        pass


@pytest.mark.parametrize(("name", "dims"), GATED)
def test_attention_can_be_left_out_for_good(name, dims, tmp_path):
    net, x = tiny(name, dims).eval(), torch.randn(1, 1, *EVEN[dims])
    names, parts = list(nets.taps(net)), nets.makers(net)
    for chosen in ([names[0]], names[1:], names):
        smaller = nets.leave_out(copy.deepcopy(net), chosen)
        with torch.no_grad(), nets.replacing(net, dict.fromkeys(chosen, lambda _own: None)):
            torch.testing.assert_close(smaller(x), net(x), rtol=0, atol=0)
        assert nets.left_out(smaller) == chosen
        assert set(nets.taps(smaller)) == {*names} - {*chosen}
        kept = {path for name in nets.taps(smaller) for path in parts[name]}
        gone = [path for name in chosen for path in parts[name] if path not in kept]
        count, whole = (sum(p.numel() for p in one.parameters()) for one in (smaller, net))
        assert whole - count == nets.parameters_of(net, gone)
        save_file(smaller.state_dict(), tmp_path / "w.safetensors")
        again = nets.create(name, dims, 1, 2, preset="tiny", without=chosen).eval()
        again.load_state_dict(load_file(tmp_path / "w.safetensors"))
        with torch.no_grad():
            torch.testing.assert_close(again(x), smaller(x), rtol=0, atol=0)
            with nets.listening(again) as heard:
                again(x)
        assert set(heard) == {*names} - {*chosen}
    assert count < whole
    if dims == 2:
        exported = torch.export.export(again, (x,)).module()
        torch.testing.assert_close(exported(x)[0], again(x)[0])


@pytest.mark.parametrize(("name", "preset"), VARIANTS)
def test_every_preset_can_be_built_and_costed_and_names_its_attention(name, preset):
    card = nets.card(name)
    with torch.device("meta"):
        net = nets.create(name, 2, card.channels, card.classes, preset=preset)
    price = nets.cost(net, card.channels, (64, 64))
    points = nets.attention_points(net, card.channels, (64, 64))
    assert price.parameters == sum(p.numel() for p in net.parameters())
    assert price.flops > price.parameters
    assert {point.name for point in points} == set(nets.taps(net))
    for point in points:
        assert point.maps >= 1
        assert point.size == (1, 1) if point.kind == "channel" else min(point.size) >= 2


def test_a_gated_net_names_its_gates_and_a_plain_one_none():
    counted = {name: len(nets.taps(tiny(name))) for name in BUILT_IN}
    plain = {"unet", "classic-unet", "unet++", "r2u-net", "fcn", "unet-3d", "plain-unet", "resenc-unet"}
    assert {name for name, count in counted.items() if count == 0} == plain


@pytest.fixture(scope="module")
def patients():
    """Two phantoms, 4 times coarser than a scan: images (2, 1, 16, 64, 64), livers (2, 16, 64, 64)."""
    images, livers = [], []
    for seed in (0, 1):
        phantom = abdomen(seed, coarse=4)
        middle = int((phantom.labels.array[0] == LIVER).sum((1, 2)).argmax())
        depth = [min(max(middle - 8 + k, 0), phantom.labels.array.shape[1] - 1) for k in range(16)]
        images.append(np.clip(phantom.image.array[:, depth], -100, 200) / 150)
        livers.append(phantom.labels.array[0, depth] == LIVER)
    return torch.from_numpy(np.stack(images)).float(), torch.from_numpy(np.stack(livers)).long()


def hold_to_overfitting(name, dims, image, liver, *, steps=200, least=0.95):
    net = tiny(name, dims).train()
    loss = losses.DeepSupervision(losses.create("dice-cross-entropy"), getattr(net, "supervision", None))
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    best = 0.0
    for _ in range(steps):
        optimiser.zero_grad()
        outputs = net(image)
        loss(outputs, liver).backward()
        optimiser.step()
        found = outputs[0].argmax(1)
        best = max(best, float(2 * (found * liver).sum() / (found.sum() + liver.sum())))
        if best > least:
            break
    assert best > least


@pytest.mark.parametrize(("name", "dims"), IN_2D)
def test_learns_two_patients_by_heart(name, dims, patients):
    image, liver = (x[:, :, 8] if x.ndim == 5 else x[:, 8] for x in patients)
    hold_to_overfitting(name, dims, image, liver)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "dims"), IN_3D)
def test_learns_two_patients_by_heart_in_3d(name, dims, patients):
    image, liver = (torch.nn.functional.interpolate(x.view(2, 1, 16, 64, 64).float(), (32,) * 3) for x in patients)
    least = 0.8 if name == "fcn" else 0.95  # its scores have an eighth of the resolution: 4 x 4 x 4 voxels
    hold_to_overfitting(name, dims, image, liver[:, 0].long(), least=least)


def test_wrong_names_are_answered_with_the_right_ones():
    with pytest.raises(UnknownName, match=r"No net is called 'atention-unet'\. Did you mean 'attention-unet'"):
        nets.create("atention-unet", 3, 1, 2)
    with pytest.raises(BadInput, match=r"no option 'n_gate'\. Did you mean 'n_gates'"):
        nets.create("attention-unet", 3, 1, 2, n_gate=1)
    with pytest.raises(UnknownName, match=r"No preset is called 'papers'\. Did you mean 'paper'"):
        nets.create("attention-unet", 3, 1, 2, preset="papers")


@pytest.mark.parametrize("name", BUILT_IN)
def test_dimensions_and_channels_are_checked(name):
    with pytest.raises(BadInput, match="dims"):
        nets.create(name, 4, 1, 2, preset="tiny")
    for dims in {2, 3} - set(nets.card(name).dims):
        with pytest.raises(BadInput, match=f"{name} is a 2D net"):
            nets.create(name, dims, 1, 2, preset="tiny")
    with pytest.raises(BadInput, match="at least one channel"):
        nets.create(name, 2, 0, 2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("anu-net", {"levels": 5}),
        ("anu-net", {"gates": "some"}),
        ("anu-net", {"ensemble": True, "deep_supervision": False}),
        ("attention-unet", {"deep_supervision": "on"}),
        ("attention-unet", {"feature_scale": 100}),
        ("classic-unet", {"up": "bilinear"}),
        ("classic-unet", {"norm": "layer"}),
        ("unet-3d", {"heads": "all"}),
        ("r2u-net", {"t": -1}),
        ("fcn", {"stride": 4}),
        ("ra-unet", {"widths": (8, 8)}),
        ("ra-unet", {"depths": (0, 1, 2, 4)}),
        ("msconvlstm-att", {"widths": (8, 8)}),
        ("msconvlstm-att", {"attention_stride": 3}),
        ("dpc-net", {"design": "table5"}),
        ("dpc-net", {"infer_from": "sem0", "semcor": False}),
        ("dpc-net", {"spa_pools": ()}),
        ("plain-unet", {"widths": (8,)}),
        ("resenc-unet", {"blocks": (1, 1)}),
    ],
)
def test_options_a_net_does_not_take_are_refused_by_name(name, options):
    with pytest.raises(BadInput, match="|".join(options)):
        nets.create(name, 2, 1, 2, **options)

"""Kernels compiled here compute what torch's layers do, in any size, and nets keep what they are."""

from __future__ import annotations

import copy
import gc
import platform
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from netting import small
from torch import nn

from attentus import nets
from attentus.errors import BadInput, Unusable
from attentus.infer import backends
from attentus.infer.backends import winograd
from attentus.infer.backends.winograd import compiled, layers
from attentus.infer.backends.winograd.features import Features
from attentus.infer.backends.winograd.parts import Later, OneByOne, Parts
from attentus.nets.parts import resize

pytestmark = pytest.mark.skipif(bool(winograd.missing()), reason=winograd.missing())
SIDES = {2: ("h", "w"), 3: ("d", "h", "w")}


@pytest.fixture(scope="module")
def kernels():
    return winograd.kernels(2)


@pytest.fixture(scope="module")
def kernels_bf16():
    if reason := winograd.missing(bf16=True):
        pytest.skip(reason)
    return winograd.kernels(2, bf16=True)


@pytest.fixture(scope="module", params=["kernels", "kernels_bf16"])
def either(request):
    return request.getfixturevalue(request.param)


def exact(layer, x):
    return copy.deepcopy(layer).double()(x.double())


def close(found, expected, tolerance=3e-5):
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * max(1.0, float(expected.abs().max()))


def as_multiplied(x, kernels):
    """What products of features or weights take, here as fp32."""
    return x.bfloat16().float() if kernels.pair == 2 else x


@st.composite
def inputs(draw, dims):
    shape = [draw(st.integers(1, 2)), draw(st.integers(1, 9)), *(draw(st.integers(1, 21)) for _ in range(dims))]
    return torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 99))))


def made(kind, x, channels, kernel, **options):
    torch.manual_seed(1)
    return kind(x.shape[1], channels, kernel, **options)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([2, 3]), st.integers(1, 19), st.sampled_from([1, 3]))
def test_convolutions_of_any_size(either, data, dims, channels, taps):
    x, bias = data.draw(inputs(dims)), data.draw(st.booleans())
    kernel = (3, 3) if dims == 2 else (taps, 3, 3)
    kind = nn.Conv2d if dims == 2 else nn.Conv3d
    conv = made(kind, x, channels, kernel, padding=tuple(k // 2 for k in kernel), bias=bias)
    layer = layers.WinogradConv(conv, either)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(layers, "pays", lambda *_: True)  # small ones, too
        close(layer(x), exact(conv, x), 3e-5 if either.pair == 1 else 0.08)


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([2, 3]), st.integers(1, 19), st.sampled_from([1, 3]))
def test_halving_pointwise_and_doubling_of_any_size(either, data, dims, channels, taps):
    x, step = data.draw(inputs(dims)), data.draw(st.sampled_from([1, 2]))
    kernel, stride = ((3, 3), (2, 2)) if dims == 2 else ((taps, 3, 3), (step, 2, 2))
    kind, twice = (nn.Conv2d, nn.ConvTranspose2d) if dims == 2 else (nn.Conv3d, nn.ConvTranspose3d)
    padding = tuple(k // 2 for k in kernel)
    halved = made(kind, x, channels, kernel, stride=stride, padding=padding)
    point = made(kind, x, channels, 1, bias=False)
    doubled = made(twice, x, channels, stride, stride=stride)
    x = as_multiplied(x, either)
    with torch.no_grad():
        for layer in (halved, point, doubled):
            layer.weight.copy_(as_multiplied(layer.weight, either))
        close(layers.HalvingConv(halved, either)(x), exact(halved, x))
        close(layers.PointwiseConv(point, either)(x), exact(point, x))
        close(layers.DoublingConv(doubled, either)(x), exact(doubled, x))


def as_kept(layer):
    layer.in_half = True
    return layer


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([2, 3]), st.integers(1, 19), st.sampled_from([1, 3]))
def test_features_kept_in_bf16_of_any_size(kernels_bf16, data, dims, channels, taps):
    """Read or written in half as many bytes they are what they were, but for the rounding of results."""
    x = data.draw(inputs(dims)).bfloat16()
    kernel, stride = ((3, 3), (2, 2)) if dims == 2 else ((taps, 3, 3), (1, 2, 2))
    kind, twice = (nn.Conv2d, nn.ConvTranspose2d) if dims == 2 else (nn.Conv3d, nn.ConvTranspose3d)
    padding = tuple(k // 2 for k in kernel)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(layers, "pays", lambda *_: True)
        for layer in (
            layers.WinogradConv(made(kind, x, channels, kernel, padding=padding), kernels_bf16, 0.01),
            layers.HalvingConv(made(kind, x, channels, kernel, stride=stride, padding=padding), kernels_bf16),
            layers.PointwiseConv(made(kind, x, channels, 1), kernels_bf16),
            layers.DoublingConv(made(twice, x, channels, stride, stride=stride), kernels_bf16),
        ):
            expected = layer(x.float())
            assert torch.equal(layer(x), expected)
            assert torch.equal(as_kept(layer)(x), expected.bfloat16())


@settings(max_examples=40, deadline=None)
@given(st.data(), st.sampled_from([2, 3]), st.booleans())
def test_pooling_and_enlarging_of_any_size(either, data, dims, half):
    x = data.draw(inputs(dims))
    x, half = as_multiplied(x, either), half and either.pair == 2
    given_as = x.bfloat16() if half else x
    pool = nn.MaxPool2d(2) if dims == 2 else nn.MaxPool3d(2)
    if min(x.shape[2:]) > 1:
        found = layers.Pool(either)(given_as)
        assert torch.equal(found.float(), pool(x))
        assert found.dtype == given_as.dtype
    double, size = layers.Enlarge(either), [2 * n for n in x.shape[2:]]
    close(double(given_as, size), resize(x, size))
    other = [n + 1 for n in x.shape[2:]]
    if other != size:
        assert torch.equal(layers.Enlarge(either)(x, other), resize(x, other)), "torch does what it does not"


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.booleans())
def test_two_parts_in_bf16_are_read_in_one_go(kernels_bf16, first, second, late):
    x = torch.randn(2, first + second, 5, 13, 22, generator=torch.Generator().manual_seed(first)).bfloat16()
    layer = layers.WinogradConv(made(nn.Conv3d, x, 5, 3, padding=1), kernels_bf16)
    one, two = x[:, :first], x[:, first:]
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(layers, "pays", lambda *_: True)
        expected = layer(x)
        for parts in ((one, two), (Later(nn.Identity(), one), two), (one, Later(nn.Identity(), two.float()))):
            assert torch.equal(layer(Parts(parts)), expected)
        patch.setattr(layers, "pays", lambda *_: False)
        close(layer(Parts((one, two))), expected, 0.05)


@pytest.mark.parametrize("across", [64, 63])
def test_results_too_many_for_caches_are_complete(either, across):
    """They are written past the caches where rows allow it; nobody may read what was there before."""
    x = as_multiplied(torch.randn(1, 2, 66, 64, across, generator=torch.Generator().manual_seed(0)), either)
    same, halved = nn.Conv3d(2, 33, 3, padding=1), nn.Conv3d(2, 258, 3, stride=2, padding=1)
    point, doubled = nn.Conv3d(2, 33, 1), nn.ConvTranspose3d(2, 5, 2, stride=2)
    kinds = (layers.WinogradConv, layers.HalvingConv, layers.PointwiseConv, layers.DoublingConv)
    with torch.inference_mode():
        for kind, layer in zip(kinds, (same, halved, point, doubled), strict=True):
            layer.weight.copy_(as_multiplied(layer.weight, either))
            expected = layer(x)
            assert expected.numel() > 2**23
            room = either.features.empty(expected.shape).fill_(torch.nan)  # what the results' memory holds before
            del room
            rounds = kind is layers.WinogradConv and either.pair == 2
            close(kind(layer, either)(x), expected, 5e-2 if rounds else 3e-5)
            if either.pair == 2:
                room = either.features.empty(expected.shape, half=True).fill_(torch.nan)
                del room
                close(as_kept(kind(layer, either))(x).float(), expected, 5e-2)


@pytest.mark.parametrize("across", [64, 63])
def test_resized_features_too_many_for_caches_are_complete(either, across):
    coarse = torch.randn(1, 1, 66, 64, across).expand(1, 16, 66, 64, across).contiguous()
    size = (132, 128, 2 * across)
    fine = torch.randn(1, 1, *size).expand(1, 32, *size).contiguous()
    for call, expected in (
        (lambda: layers.Enlarge(either)(coarse, size), resize(coarse, size)),
        (lambda: layers.Pool(either)(fine), nn.functional.max_pool3d(fine, 2)),
    ):
        assert expected.numel() > 2**23
        room = either.features.empty(expected.shape).fill_(torch.nan)  # what the results' memory holds before
        del room
        close(call(), expected)


@pytest.mark.parametrize("channels", [1, 6, 7])
def test_bf16_is_rounded_to_nearest(kernels_bf16, channels):
    same = nn.Conv2d(channels, channels, 1, bias=False)
    x = torch.randn(1, channels, 50, 60) * torch.logspace(-20, 20, 60)
    with torch.no_grad():
        same.weight.copy_(torch.eye(channels)[..., None, None])
        found = layers.PointwiseConv(same, kernels_bf16)(x)
    assert float(((found - x) / x).abs().max()) <= 2**-8
    assert float((found == x.bfloat16()).float().mean()) > 0.999, "all but those in the middle between two"


def test_what_is_no_number_stays_seen(either):
    conv = nn.Conv3d(3, 2, 3, padding=1)
    for bad in (float("nan"), float("inf")):
        x = torch.zeros(1, 3, 20, 20, 20)
        x[0, 1, 9, 9, 9] = bad
        with torch.no_grad():
            assert not layers.WinogradConv(conv, either)(x)[0, :, 9, 9, 9].isfinite().any()
            assert not layers.Pool(either)(x)[0, 1, 4, 4, 4].isfinite()
            assert not layers.Enlarge(either)(x, (40, 40, 40))[0, 1, 18:20, 18:20, 18:20].isfinite().any()


def test_a_processor_without_bf16_says_so(monkeypatch):
    monkeypatch.setattr(compiled, "best_precision", lambda _: "fp32")
    assert backends.missing("winograd-bf16") == "this processor does not multiply bf16"
    with pytest.raises(BadInput, match="does not multiply bf16"):
        backends.create("winograd-bf16", nn.Identity(), (1, 1, 8, 8))
    monkeypatch.undo()
    if platform.machine() == "x86_64":
        monkeypatch.setattr(compiled, "FOR_PROCESSOR", ("-msse2",))
        monkeypatch.setattr(compiled, "best_precision", lambda _: "bf16")
        compiled.compiling.cache_clear()
        with pytest.raises(Unusable, match="does not multiply bf16"):
            backends.create("winograd-bf16", nn.Identity(), (1, 1, 8, 8))
        compiled.compiling.cache_clear()


@pytest.mark.parametrize("flags", ["-mavx2 -mfma", "-msse2", ""])
def test_older_processors_compute_the_same(flags, monkeypatch):
    if flags and (platform.machine() != "x86_64" or torch.backends.cpu.get_cpu_capability() == "DEFAULT"):
        pytest.skip("not such a processor")
    monkeypatch.setattr(compiled, "FOR_PROCESSOR", (flags,))
    compiled.compiling.cache_clear()
    older = winograd.kernels(2)
    compiled.compiling.cache_clear()
    torch.manual_seed(0)
    conv, up = nn.Conv3d(5, 11, 3, padding=1), nn.ConvTranspose3d(5, 11, 2, stride=2)
    x = torch.randn(2, 5, 9, 19, 26)
    with torch.no_grad():
        close(layers.WinogradConv(conv, older)(x), exact(conv, x))
        close(layers.DoublingConv(up, older)(x), exact(up, x))


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("slope", [1.0, 0.01, 0.0])
def test_normalisation_is_exact_far_from_zero(either, affine, slope):
    norm = nn.InstanceNorm3d(3, affine=affine)
    if affine:
        nn.init.uniform_(norm.weight)
        nn.init.uniform_(norm.bias)
    x = torch.randn(2, 3, 17, 40, 41) + 50
    with torch.no_grad():
        expected = nn.functional.leaky_relu(exact(norm, x), slope)
        found = layers.RectifiedNorm(norm, either, slope)(x.clone())
    assert float((found - expected).abs().max()) < 2e-5


@pytest.mark.parametrize("size", [(17, 40, 41), (1, 1, 3)])
def test_normalisation_in_bf16_is_rounded_once(kernels_bf16, size):
    norm = nn.InstanceNorm3d(3, affine=True)
    nn.init.uniform_(norm.weight)
    x = (torch.randn(2, 3, *size) + 5).bfloat16()
    with torch.no_grad():
        expected = nn.functional.leaky_relu(exact(norm, x), 0.01)
        found = layers.RectifiedNorm(norm, kernels_bf16, 0.01)(x.clone())
    assert found.dtype == torch.bfloat16
    assert float((found - expected).abs().max()) <= 2**-8 * float(expected.abs().max())


@pytest.mark.parametrize(("name", "options"), [("plain-unet", {}), ("unet-3d", {}), ("unet-3d", {"gated": True})])
def test_features_are_kept_in_bf16_where_kernels_alone_read_them(kernels_bf16, kernels, name, options):
    net, kept = small(name, 3, 1, 2, **options), not options
    types = []
    changed = winograd.with_kernels(net, kernels_bf16)
    for block in (*changed.pyramid.encoder, *changed.pyramid.decoder):
        block.register_forward_hook(lambda _, __, output: types.append(output.dtype))
    inner = [layer for layer in changed.modules() if getattr(layer, "in_half", False)]
    with torch.inference_mode():
        logits = changed(torch.randn(1, 1, 32, 64, 64))[0]
    assert set(types) == {torch.bfloat16 if kept else torch.float32}
    assert logits.dtype == torch.float32
    assert inner, "at least between the convolutions of a block"
    assert not any(getattr(layer, "in_half", False) for layer in winograd.with_kernels(net, kernels).modules())


@pytest.mark.parametrize(
    ("name", "options"),
    [("attention-unet", {}), ("attention-unet", {"n_gates": 0}), ("anu-net", {}), ("anu-net", {"gates": "none"})],
)
def test_decoders_read_what_they_join_without_a_joint_copy(either, monkeypatch, name, options):
    net = small(name, 3, 1, 2, **options)
    changed = winograd.with_kernels(net, either)
    assert isinstance(changed.join, OneByOne)
    assert isinstance(changed.pool, layers.Pool)
    monkeypatch.setattr(layers, "pays", lambda *_: True)
    joined, cat = [], torch.cat
    monkeypatch.setattr(layers.torch, "cat", lambda parts, dim=0: joined.append(len(parts)) or cat(parts, dim))
    with torch.inference_mode():
        x = torch.randn(2, 1, 16, 32, 32)
        found = changed(x)[0]
        ours = len(joined)
        close(found, net(x)[0], 1e-4 if either.pair == 1 else 5e-2)
    assert len(joined) > ours == 0


@pytest.mark.parametrize("count", [3, compiled.PARTS, compiled.PARTS + 1])
def test_any_number_of_parts_is_read(either, monkeypatch, count):
    parts = [torch.randn(2, k % 3 + 1, 5, 9, 11, generator=torch.Generator().manual_seed(k)) for k in range(count)]
    x = torch.cat(parts, 1)
    monkeypatch.setattr(layers, "pays", lambda *_: True)
    with torch.no_grad():
        same = layers.WinogradConv(made(nn.Conv3d, x, 5, 3, padding=1), either)
        point = layers.PointwiseConv(made(nn.Conv3d, x, 5, 1), either)
        assert torch.equal(same(Parts(parts)), same(x))
        assert torch.equal(point(Parts(parts)), point(x))


@pytest.mark.parametrize(
    "pool", [nn.MaxPool2d(3), nn.MaxPool2d(2, stride=1), nn.MaxPool2d(2, padding=1), nn.MaxPool2d(2, ceil_mode=True)]
)
def test_other_pooling_is_left_to_torch(kernels, pool):
    assert isinstance(winograd.with_kernels(nn.Sequential(pool), kernels)[0], nn.MaxPool2d)


def test_sequences_become_fewer_layers_that_compute_the_same(kernels):
    shared = nn.Conv2d(4, 4, 3, padding=1)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(),
        shared, nn.LeakyReLU(0.2), shared, nn.InstanceNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2), nn.ReLU(),
        nn.Conv2d(4, 4, 3, padding="same"), nn.Sigmoid(),
        nn.Conv2d(4, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4, track_running_stats=False),
    ).eval()  # fmt: skip
    nn.init.uniform_(net[1].running_var, 0.5, 2)
    nn.init.normal_(net[1].running_mean)
    before = copy.deepcopy(net.state_dict())
    changed = winograd.with_kernels(net, kernels)
    x = torch.randn(2, 2, 31, 45)
    with torch.no_grad():
        close(changed(x), net(x))
    kinds = [type(layer).__name__ for layer in changed]
    assert kinds == [
        "WinogradConv", "WinogradConv", "WinogradConv", "RectifiedNorm", "Conv2d", "ReLU", "WinogradConv", "Sigmoid",
        "Conv2d", "BatchNorm2d",
    ]  # fmt: skip
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items()), "left as it was"


def test_a_layer_in_two_places_is_exchanged_once(kernels):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.ModuleDict({"conv": nn.Conv2d(1, 1, 3, padding=1)})

        def forward(self, x):
            return self.second["conv"](self.first["conv"](x))

    net, x = Twice(), torch.randn(1, 1, 30, 30)
    with torch.no_grad():
        close(winograd.with_kernels(net, kernels)(x), net(x))


NETS = [(name, dims) for name in nets.names() for dims in (2, 3) if (name, dims) != ("msconvlstm-att", 3)]


@pytest.mark.parametrize("backend", ["winograd", "winograd-bf16"])
@pytest.mark.parametrize(("name", "dims"), NETS)
def test_every_net_says_what_torch_says(name, dims, backend):
    if reason := backends.missing(backend):
        pytest.skip(reason)
    torch.manual_seed(0)
    net = small(name, dims, 1, 2)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
    size = (32, 64, 64)[-dims:]
    windows = np.random.default_rng(0).normal(size=(2, 1, *size)).astype(np.float32)
    expected = backends.create("torch", net, windows.shape)(windows)
    found = backends.create(backend, net, windows.shape)(windows)
    allowed = 1e-4 * np.abs(expected).max()
    if backend == "winograd-bf16":
        allowed = 5 * np.abs(backends.create("torch-bf16", net, windows.shape)(windows) - expected).max()
    assert np.abs(found - expected).max() <= allowed


@pytest.mark.parametrize("windows", [1, 2])
def test_others_in_the_batch_do_not_decide_what_is_computed_how(monkeypatch, windows):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(32, 32, 3, padding=1)

        def forward(self, x):
            return (self.conv(x),)

    net, called, right = Net().eval(), [], compiled.Kernels.__call__
    assert [layers.pays(net.conv, (n, 32, 14, 14)) for n in (1, 2)] == [False, True]
    runner = backends.create("winograd", net, (2, 32, 14, 14))
    monkeypatch.setattr(compiled.Kernels, "__call__", lambda *a, **k: (called.append(a[1]), right(*a, **k)))
    runner(np.ones((windows, 32, 14, 14), np.float32))
    assert called == ["convolve"]


def test_the_work_it_takes_over_is_counted():
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 4, 1))
    with winograd.counted(net) as products, torch.no_grad():
        net(torch.zeros(2, 1, 40, 40))
    voxels = 2 * 40 * 40
    assert products.taken_over == voxels * (9 * 8 + 9 * 64)
    assert products.whole == products.taken_over + voxels * 32
    assert not any(layer._forward_hooks for layer in net)
    assert winograd.expected_gain(products) == pytest.approx(1 / (1 - 0.6 * 648 / 680))


@given(st.integers(1, 5000))
def test_memory_begins_with_a_line_of_the_cache(count):
    assert Features().empty((count,)).data_ptr() % 64 == 0


def test_memory_is_used_again_when_nobody_reads_it():
    features = Features()
    one = features.empty((2, 30))
    place, part = one.data_ptr(), one[:, 3:]
    del one
    gc.collect()
    other = features.empty((60,))
    assert other.data_ptr() != place, "a view is left"
    del part
    gc.collect()
    assert features.empty((58,)).data_ptr() == place
    assert features.empty((10,)).data_ptr() not in (place, other.data_ptr()), "far too large for it"


def test_memory_for_windows_of_another_size_is_given_back():
    runner = backends.create("winograd", small("plain-unet", 3, 1, 2), (1, 1, 32, 32, 32), threads=1)
    held = [cell.cell_contents for cell in runner.forward.__closure__]
    [features] = [one.features for one in held if isinstance(one, compiled.Kernels)]
    sizes = []
    for side in (64, 32, 32, 64):
        runner(np.zeros((1, 1, 32, side, side), np.float32))
        gc.collect()
        sizes.append(sum(piece.nbytes for piece in features.free))
    assert sizes[0] == sizes[3] > 3 * sizes[1] > 0
    assert sizes[1] == sizes[2]


def test_after_the_first_window_no_memory_is_fetched(kernels):
    net = winograd.with_kernels(small("plain-unet", 3, 1, 2), kernels)
    x, sizes = torch.randn(1, 1, 32, 64, 64), []
    with torch.inference_mode():
        for _ in range(3):
            net(x)
            gc.collect()
            sizes.append(sum(piece.nbytes for piece in kernels.features.free))
    assert sizes[0] == sizes[1] == sizes[2] > 0


def test_a_decoder_never_holds_skip_and_rising_features_at_once(kernels):
    """The two of the finest level are the largest there are: two pieces of their size serve all its convolutions."""
    fresh = compiled.Kernels(compiled.load(), 1)
    net = winograd.with_kernels(small("plain-unet", 3, 1, 2), fresh)
    with torch.inference_mode():
        net(torch.randn(1, 1, 32, 64, 64))
    gc.collect()
    sizes = sorted((piece.size for piece in fresh.features.free), reverse=True)
    assert sizes[0] == sizes[1] > sizes[2]


def test_a_machine_without_a_compiler_says_so(monkeypatch):
    compiled.compiling.cache_clear()
    monkeypatch.setattr(compiled, "COMPILERS", ("no-such-compiler",))
    assert "needs a C compiler" in backends.missing("winograd")
    assert "winograd" not in backends.names()
    with pytest.raises(BadInput, match="apt install gcc"):
        backends.create("winograd", nn.Identity(), (1, 1, 8, 8))
    compiled.compiling.cache_clear()


def test_a_compiler_that_fails_is_quoted(monkeypatch, tmp_path):
    compiled.compiling.cache_clear()
    monkeypatch.setattr(compiled, "SOURCE", tmp_path / "kernels.c")
    (tmp_path / "kernels.c").write_text("this is no C")
    for _ in range(2):
        with pytest.raises(Unusable, match=r"cannot compile its kernels: .*kernels\.c"):
            backends.create("winograd", nn.Identity(), (1, 1, 8, 8))
        (tmp_path / "kernels.c").unlink(missing_ok=True)  # the second time nothing is tried again
    compiled.compiling.cache_clear()


@pytest.mark.parametrize("name", compiled.FUNCTIONS)
def test_a_miscompiled_library_is_not_used(monkeypatch, name):
    right = compiled.Kernels.__call__

    def wrong(self, function, tensors, sizes, **options):
        right(self, function, tensors, sizes, **options)
        if function == name:
            tensors["y"][..., -1] = float("nan")

    monkeypatch.setattr(compiled.Kernels, "__call__", wrong)
    winograd.checking.cache_clear()
    for _ in range(2):
        with pytest.raises(Unusable, match=r"computes wrong results\.\n  Use another backend"):
            backends.create("winograd", nn.Identity(), (1, 1, 8, 8))
    winograd.checking.cache_clear()


def test_tensors_stay_until_every_thread_has_ended(kernels):
    """Ctrl-C ends the waiting, not the kernels."""
    seen, begun = [], threading.Event()
    x = torch.zeros(3)
    left = weakref.ref(x)

    def kernel(*_):
        begun.set()
        time.sleep(0.2)
        seen.append(left() is not None)

    run = kernels._pool.submit(kernels._run, kernel, compiled._Layer(), 0, (x,))
    begun.wait(5)
    del x
    run.result()
    assert seen == [True]


def test_several_may_use_the_same_kernels_at_once(kernels):
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 4, 3, padding=1)
    layer, inputs = layers.WinogradConv(conv, kernels), [torch.randn(1, 4, 40, 40) for _ in range(16)]

    def run(x):
        with torch.no_grad():
            return layer(x)

    with torch.no_grad(), ThreadPoolExecutor(4) as pool:
        for x, found in zip(inputs, pool.map(run, inputs), strict=True):
            close(found, exact(conv, x))


def test_random_numbers_are_left_alone():
    net = nn.Conv2d(1, 1, 3)
    before = torch.get_rng_state()
    backends.create("winograd", net, (1, 1, 8, 8))
    assert torch.equal(torch.get_rng_state(), before)

"""Every backend says what torch says, is found again in the cache, and names what it lacks."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from netting import small
from torch import nn

from attentus.errors import BadInput, MissingExtra, UnknownName, Unusable
from attentus.infer import backends
from attentus.infer.backends import choice, int8, kept, openvino_net

SHAPE = (2, 1, 16, 32, 32)
ALL = [name for name in backends.NAMES if name not in {"torch", "torch-compile", "torch-cuda-graph"}]
ROUGH = {"torch-bf16": 0.05, "winograd-bf16": 0.05, "openvino-bf16": 0.05, "openvino-int8": 0.25}
"""Largest error as a share of the largest logit, where it is not that of fp32."""


@pytest.fixture(scope="module")
def net():
    return small("attention-unet", 3, 1, 2)


@pytest.fixture(scope="module")
def windows():
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def exact(net, windows):
    return backends.create("torch", net, SHAPE)(windows)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


def made(name, net, windows, cache=None):
    if reason := backends.missing(name):
        pytest.skip(reason)
    return backends.create(name, net, SHAPE, cache=cache, threads=1, calibration=list(windows))


@pytest.mark.parametrize("name", ALL)
def test_all_backends_say_what_torch_says(name, net, windows, exact, cache):
    runner = made(name, net, windows, cache)
    assert runner.name == name
    found = runner(windows)
    assert found.dtype == np.float32
    assert np.abs(found - exact).max() <= ROUGH.get(name, 1e-4) * np.abs(exact).max()
    # What torch computes beside winograd-bf16 sums batches up differently; the last digit decides what is rounded up.
    allowed = 1e-3 if name != "winograd-bf16" else ROUGH[name] * np.abs(exact).max()
    assert np.abs(runner(windows[1:]) - found[1:]).max() < allowed, "fewer windows than a batch"


def test_wrong_names_and_missing_packages_are_answered(net, monkeypatch):
    with pytest.raises(UnknownName, match="Did you mean 'openvino'"):
        backends.create("openvno", net, SHAPE)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"attentus\[openvino\]"):
        backends.create("openvino", net, SHAPE)


def test_converted_nets_are_kept_and_found_again(net, windows, tmp_path, monkeypatch):
    first = made("openvino", net, windows, tmp_path)
    [file] = tmp_path.iterdir()
    monkeypatch.setattr(openvino_net, "_convert", None)  # converting again would fail
    again = made("openvino", net, windows, tmp_path)
    np.testing.assert_array_equal(first(windows), again(windows))
    made("openvino-bf16", net, windows, tmp_path)
    assert list(tmp_path.iterdir()) == [file], "bf16 is computed from the same file"


@pytest.mark.parametrize("dims", [2, 3])
def test_sums_over_large_maps_stay_exact(dims, tmp_path):
    """OpenVINO's own instance normalisation is off by 1e-4 there, and by more the further the mean is from zero."""
    net = nn.Sequential(nn.Conv3d(1, 4, 1), nn.InstanceNorm3d(4, affine=True)) if dims == 3 else nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.InstanceNorm2d(4))  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        parameter.data.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    size = (96,) * 3 if dims == 3 else (1024, 1024)
    windows = np.random.default_rng(0).normal(5, 1, (1, 1, *size)).astype(np.float32)
    exact = net.double()(torch.from_numpy(windows).double()).detach().numpy()
    net.float()

    class Whole(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return (self.net(x),)

    found = backends.create("openvino", Whole().eval(), windows.shape, cache=tmp_path)(windows)
    assert np.abs(found - exact).max() < 3e-5
    backends.create("openvino-bf16", Whole().eval(), windows.shape, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2, "bf16 has no use for the exact sums"


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-5000] + b"x" + b[-4999:]])
def test_damaged_files_are_made_again(net, windows, exact, tmp_path, damage):
    made("openvino", net, windows, tmp_path)
    [file] = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert np.abs(made("openvino", net, windows, tmp_path)(windows) - exact).max() < 1e-3
    assert kept.read(file) is not None, "made again, whole"


def test_a_folder_that_cannot_be_written_to_is_no_reason_to_fail(net, windows, tmp_path):
    (tmp_path / "file").write_text("in the way")
    made("openvino", net, windows, tmp_path / "file")


def test_what_is_kept_depends_on_all_that_matters(net):
    def name(net, shape=SHAPE):
        return kept.file_name("x", net, shape, "1")

    same = copy.deepcopy(net)
    assert name(same) == name(net) == name(same.train())
    assert name(net, (1, *SHAPE[1:])) != name(net)
    assert kept.file_name("x", net, SHAPE, "2") != name(net)
    with torch.no_grad():
        next(same.parameters()).view(-1)[0] += 1e-3
    assert name(same) != name(net)
    slope = nn.Sequential(nn.Conv2d(1, 1, 1), nn.LeakyReLU(0.1))
    other = copy.deepcopy(slope)
    other[1].negative_slope = 0.2
    assert name(slope) != name(other), "an option that leaves the weights alone"


class Fake:
    """A backend of known speed, on a clock that it moves."""

    def __init__(self, name, clock, seconds):
        self.name, self.clock, self.seconds = name, clock, seconds

    def __call__(self, windows):
        self.clock[0] += self.seconds
        return windows


SPEEDS = {"torch": 1.0, "openvino": 0.5, "openvino-bf16": 0.25, "openvino-int8": 2.0, "torch-bf16": 0.6}


@pytest.fixture
def fakes(monkeypatch):
    """What was set up, on a machine where torch takes 1 s and others as told."""
    clock, built = [0.0], []

    def create(name, *_, **__):
        built.append(name)
        return Fake(name, clock, SPEEDS[name])

    monkeypatch.setattr(backends, "create", create)
    monkeypatch.setattr(backends, "missing", lambda name: "" if name in SPEEDS else "not here")
    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])
    return built


def test_a_backend_is_chosen_by_what_the_job_is_worth(net, fakes):
    assert backends.choose(net, SHAPE, 6).name == "torch"
    assert fakes == ["torch"], "nothing else was set up for three batches"
    assert backends.choose(net, SHAPE, 100).name == "torch", "nor for 50 s, a sixth of which could be won"
    assert backends.choose(net, SHAPE, 1000).name == "openvino"
    assert backends.choose(net, SHAPE, 1000, precision="bf16").name == "openvino-bf16"
    assert backends.choose(net, SHAPE, 10_000, precision="int8").name == "openvino-bf16", "nothing to calibrate with"
    windows = [np.zeros(SHAPE[1:], np.float32)]
    del fakes[:]
    assert backends.choose(net, SHAPE, 10_000, precision="int8", calibration=windows).name == "openvino-bf16"
    assert fakes == ["torch", "openvino-bf16"], "so fast that int8 does not promise more"
    assert backends.choose(net, SHAPE, 200, precision="int8", calibration=windows).name == "openvino-bf16", (
        "pays sooner"
    )
    slices = (*SHAPE[:2], *SHAPE[3:])
    assert backends.choose(net, slices, 10_000, precision="int8", calibration=windows).name == "openvino-bf16"


def test_kept_nets_serve_short_jobs_too(net, fakes, tmp_path):
    for name in ("openvino", "openvino-int8"):
        (tmp_path / openvino_net._names(name, net, SHAPE)[0]).touch()
    assert backends.choose(net, SHAPE, 60, cache=tmp_path).name == "openvino"
    assert backends.choose(net, SHAPE, 60, precision="int8", cache=tmp_path).name == "openvino-bf16", "int8 was slower"
    assert "openvino-int8" in fakes


def test_what_was_timed_is_not_timed_again(net, fakes, tmp_path):
    def choose(**options):
        before = choice.time.perf_counter()
        chosen = backends.choose(net, SHAPE, 1000, cache=tmp_path, **options)
        return chosen.name, choice.time.perf_counter() - before

    assert choose() == ("openvino", pytest.approx(1.0 + 0.5))
    assert choose() == ("openvino", 0.0)
    assert choose(precision="bf16") == ("openvino-bf16", pytest.approx(0.25)), "it alone is new"
    [file] = tmp_path.iterdir()
    assert set(json.loads(file.read_text())) == {"torch", "openvino", "openvino-bf16"}
    assert choose(threads=7)[1] > 0, "another number of threads"
    file.write_text("{")
    assert choose() == ("openvino", pytest.approx(1.5)), "damaged"
    os.utime(file, (0, 0))
    assert choose() == ("openvino", pytest.approx(1.5)), "long ago"
    (tmp_path / "file").touch()
    assert backends.choose(net, SHAPE, 1000, cache=tmp_path / "file").name == "openvino", "a folder that cannot be made"


def test_quantising_is_tried_last(net, fakes, monkeypatch):
    monkeypatch.setitem(SPEEDS, "openvino-bf16", 0.5)
    monkeypatch.setitem(SPEEDS, "openvino-int8", 0.2)
    windows = [np.zeros(SHAPE[1:], np.float32)]
    assert backends.choose(net, SHAPE, 10_000, precision="int8", calibration=windows).name == "openvino-int8"
    assert fakes == ["torch", "openvino-bf16", "openvino-int8"]


def test_what_fp32_is_known_to_gain_is_promised_in_bf16_too(net, fakes, monkeypatch, tmp_path):
    monkeypatch.delitem(SPEEDS, "openvino-bf16")
    monkeypatch.setitem(SPEEDS, "winograd", 0.4)  # less than is expected of winograd-bf16
    monkeypatch.setitem(SPEEDS, "winograd-bf16", 0.2)
    assert backends.choose(net, SHAPE, 1000, cache=tmp_path).name == "winograd"
    del fakes[:]
    assert backends.choose(net, SHAPE, 1000, cache=tmp_path, precision="bf16").name == "winograd-bf16"
    assert fakes == ["torch", "winograd-bf16"]


@pytest.mark.parametrize("error", [Unusable, BadInput])
def test_a_compiler_that_fails_is_no_reason_to_fail_but_a_damaged_net_is(net, monkeypatch, error):
    def create(name, *_, **__):
        if name == "winograd":
            raise error("it cannot compile")
        return Fake(name, [0.0], 1.0)

    monkeypatch.setattr(backends, "create", create)
    monkeypatch.setattr(backends, "missing", lambda name: "" if name in {"torch", "winograd"} else "not here")
    monkeypatch.setattr(choice.winograd, "expected_gain", lambda *_: 2.0)
    clock = iter(range(1000))
    monkeypatch.setattr(choice.time, "perf_counter", lambda: float(next(clock)))
    if error is Unusable:
        assert backends.choose(net, SHAPE, 10_000).name == "torch"
    else:
        with pytest.raises(BadInput, match="cannot compile"):
            backends.choose(net, SHAPE, 10_000)


@pytest.mark.parametrize(("precision", "kept"), [("fp32", 0), ("bf16", 0), ("bf16", 1)])
def test_memory_is_kept_for_torch_only(net, fakes, monkeypatch, precision, kept):
    calls = []
    monkeypatch.setattr(choice, "keep_no_memory", lambda: calls.append("none"))
    if kept:
        monkeypatch.setitem(choice.ON_PROCESSOR, precision, ("torch-bf16",))
    chosen = backends.choose(net, SHAPE, 10_000, precision=precision)
    assert chosen.name.startswith("torch") == bool(kept)
    assert calls == ([] if kept else ["none"])


def test_without_openvino_the_processor_falls_back_on_torch(net, fakes, monkeypatch):
    monkeypatch.setattr(backends, "missing", lambda _: "not here")
    assert backends.choose(net, SHAPE, 10_000, precision="int8").name == "torch"


def test_nothing_is_reported_to_the_makers_of_openvino():
    code = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("somebody wants to use the network")
socket.socket.connect = socket.getaddrinfo = refuse
from attentus.infer.backends import intel
intel.load()
intel.load("nncf")
assert not any(name.startswith("openvino_telemetry.") for name in sys.modules)
"""
    for package in ("openvino", "nncf"):
        pytest.importorskip(package)
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_int8_needs_windows(net):
    if reason := backends.missing("openvino-int8"):
        pytest.skip(reason)
    with pytest.raises(BadInput, match="no windows to calibrate with"):
        backends.create("openvino-int8", net, SHAPE)


def test_threads_are_those_asked_for(net, windows):
    before = torch.get_num_threads()
    seen = []
    net = copy.deepcopy(net)
    net.register_forward_pre_hook(lambda *_: seen.append(torch.get_num_threads()))
    backends.create("torch", net, SHAPE, threads=before + 1)(windows)
    backends.create("torch", net, SHAPE)(windows)
    assert seen == [before + 1, before]
    assert torch.get_num_threads() == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # the compiler's own
def test_compiled_code_says_the_same(net, windows, exact):
    if reason := backends.missing("torch-compile"):
        pytest.skip(reason)
    assert np.abs(backends.create("torch-compile", net, SHAPE)(windows) - exact).max() < 1e-3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("name", ["torch", "torch-bf16", "torch-cuda-graph"])
def test_gpus_say_what_processors_say(net, windows, exact, name):
    on_gpu = backends.create(name, copy.deepcopy(net).cuda(), SHAPE)
    for part in (windows, windows[1:], windows):
        expected = exact[2 - len(part) :]
        assert np.abs(on_gpu(part) - expected).max() <= 0.05 * np.abs(exact).max()


def test_a_signal_after_openvino_does_not_end_the_process(net, windows):
    """It leaves a signal stack whose memory is gone; Ctrl-C would be a segmentation fault."""
    import signal

    made("openvino", net, windows)(windows)
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append("yes"))
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == ["yes"]


@pytest.mark.parametrize("name", ["openvino-bf16", "openvino-int8"])
def test_one_conversion_serves_windows_of_all_sizes(name, net, windows, tmp_path, monkeypatch):
    if reason := backends.missing(name):
        pytest.skip(reason)
    wide = np.random.default_rng(1).normal(size=(2, 1, 32, 48, 64)).astype(np.float32)
    backends.create(name, net, wide.shape, cache=tmp_path, calibration=list(wide))
    monkeypatch.setattr(openvino_net, "_convert", None)  # converting again would fail
    monkeypatch.setattr(openvino_net, "quantise", None)
    assert openvino_net.is_kept(name, net, SHAPE, tmp_path)
    for some in (wide, windows):
        expected = backends.create("torch", net, some.shape)(some)
        found = backends.create(name, net, some.shape, cache=tmp_path)(some)
        assert np.abs(found - expected).max() <= ROUGH[name] * np.abs(expected).max()


class OfOneSize(nn.Module):
    """A net that cannot be told another size once it is traced."""

    multiple = 16

    def __init__(self, how):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3, padding=1)
        self.how = how

    def forward(self, x):
        if self.how == "a constant":
            return (self.conv(x) * float(x.shape[-1]),)
        return (self.conv(x) + torch.arange(len(x[0, 0, 0, 0]), dtype=torch.float32),)


@pytest.mark.parametrize("how", ["a constant", "a map"])
@pytest.mark.parametrize("name", ["openvino-bf16", "openvino-int8"])
def test_nets_whose_sizes_become_constants_are_converted_for_each(how, name, tmp_path):
    if reason := backends.missing(name):
        pytest.skip(reason)
    torch.manual_seed(0)
    net = OfOneSize(how).eval()
    for shape in ((1, 1, 16, 32, 32), (1, 1, 16, 16, 64)):
        windows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        expected = backends.create("torch", net, shape)(windows)
        found = backends.create(name, net, shape, cache=tmp_path, calibration=list(windows) * 8)(windows)
        assert np.abs(found - expected).max() <= 0.05 * np.abs(expected).max()
        assert openvino_net.is_kept(name, net, shape, tmp_path)
    assert not openvino_net.is_kept(name, net, (1, 1, 32, 32, 32), tmp_path)


@pytest.mark.parametrize(
    ("shape", "multiple", "expected"),
    [
        ((2, 1, 128, 128, 128), 32, (2, 1, 64, 64, 64)),
        ((1, 4, 16, 320, 320), 16, (1, 4, 16, 80, 160)),
        ((1, 1, 96, 160, 160), 32, (1, 1, 64, 64, 64)),
        ((1, 1, 100, 90, 90), 64, (1, 1, 64, 64, 64)),
        ((1, 1, 90, 90, 90), 128, (1, 1, 90, 90, 90)),
        ((1, 1, 512, 512), 32, (1, 1, 512, 512)),
        ((1, 1, 200, 120, 120), 1, (1, 1, 50, 60, 60)),
    ],
)
def test_nets_are_converted_with_small_windows(shape, multiple, expected):
    assert int8.sample_shape(shape, multiple) == expected

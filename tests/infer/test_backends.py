"""Every backend says what torch says, is found again in the cache, and names what it lacks."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from netting import small

from attentus.errors import MissingExtra, UnknownName
from attentus.infer import backends

SHAPE = (2, 1, 16, 32, 32)
ALL = [name for name in backends.NAMES if name not in {"torch", "torch-compile", "torch-cuda-graph"}]
ROUGH = {"torch-bf16": 0.05, "openvino-bf16": 0.05, "openvino-int8": 0.25}
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
    assert np.abs(runner(windows[1:]) - found[1:]).max() < 1e-3, "fewer windows than a batch"


def test_wrong_names_and_missing_packages_are_answered(net, monkeypatch):
    with pytest.raises(UnknownName, match="Did you mean 'openvino'"):
        backends.create("openvno", net, SHAPE)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"attentus\[openvino\]"):
        backends.create("openvino", net, SHAPE)

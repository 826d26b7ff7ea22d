"""What is asked of the processor and of its memory."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch

from attentus.infer import processor

GLIBC = platform.libc_ver()[0] == "glibc"


def test_best_precision():
    assert processor.best_precision("cpu") in {"bf16", "fp32"}
    assert processor.best_precision(torch.device("meta")) == "fp32"


def test_processors_without_bf16_take_fp32(monkeypatch):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda: False, raising=False)
    assert processor.best_precision("cpu") == "fp32"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    monkeypatch.setattr(processor.platform, "machine", lambda: "AMD64")
    assert processor.best_precision("cpu") == "bf16"
    monkeypatch.setattr(processor.platform, "machine", lambda: "arm64")
    assert processor.best_precision("cpu") == "fp32"


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_kept_memory_is_not_fetched_again():
    code = """
import resource, torch
from attentus.infer.processor import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(12_000_000)  # 46 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
plain = min(faults() for _ in range(5))
assert keep_memory()
print(plain, min(faults() for _ in range(10)))  # at first the heap grows
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    plain, kept = map(int, done.stdout.split())
    assert kept < plain / 10


@pytest.mark.skipif(not GLIBC, reason="another C library")
def test_without_kept_memory_large_blocks_go_back_and_others_are_not_fetched_again():
    code = """
import resource, torch
from attentus.infer.processor import keep_memory, keep_no_memory
def faults(count):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(count)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
assert keep_memory()
keep_no_memory()
print(*(min(faults(count) for _ in range(5)) for count in (2_500_000, 12_000_000)))  # 10 and 46 MiB
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    few, large = map(int, done.stdout.split())
    assert few < 100
    assert large > 12_000_000 * 4 / 2**21 / 2, "with huge pages, at least"


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(processor.platform, "libc_ver", lambda: ("", ""))
    assert processor.keep_memory() is False

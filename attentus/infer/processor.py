"""What the processor can do, and how the process holds its memory: the same for training and inference."""

from __future__ import annotations

import ctypes
import platform
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Of glibc's malloc.h."""
USUAL_MMAP_MAX = 65536
"""Blocks of their own that a process may have, by default."""
LARGE_BLOCK, KEPT_AT_END = 16 * 2**20, 32 * 2**20
"""Bytes from which a block is one of its own, and that the heap keeps at its end. glibc adjusts both by itself, up to
twice as much, until it is told anything; from then on it stays where it begins, at 128 KiB."""


def keep_memory() -> bool:
    """Let the process keep memory that it has freed, instead of handing it back and fetching it anew in every step.

    By default glibc gives every block of more than 32 MiB straight back to the system, which zeroes its pages again
    at the next use: a third of the processor time of a step in 3D. The process then stays as large as it ever was.

    Returns:
        Whether it took effect; False with other C libraries (macOS, Windows, musl), where nothing happens.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    never = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))  # blocks of their own; handing back the end of the heap
    return all(libc.mallopt(option, value) == 1 for option, value in never)


def keep_no_memory() -> None:
    """Undo `keep_memory` and hand back what is free: for work that looks after its memory itself.

    Blocks of less than 16 MiB stay fast: the process keeps up to 32 MiB of what they leave.

    With other C libraries than glibc nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in (
            (M_MMAP_MAX, USUAL_MMAP_MAX),
            (M_MMAP_THRESHOLD, LARGE_BLOCK),
            (M_TRIM_THRESHOLD, KEPT_AT_END),
        ):
            libc.mallopt(option, value)
        release_memory()


@contextmanager
def handing_back() -> Iterator[None]:
    """Let large blocks go back to the system at once while the block runs, and keep memory (`keep_memory`) after it.

    For work that is done once and takes more than what follows: kept, its memory lies in pieces that serve nobody.
    """
    keep_no_memory()
    try:
        yield
    finally:
        release_memory()
        keep_memory()


def release_memory() -> None:
    """Hand freed memory back once, whatever `keep_memory` said: after work that took more than what follows.

    With other C libraries than glibc nothing happens.
    """
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def best_precision(device: torch.device | str) -> Literal["bf16", "fp32"]:
    """bf16 where the device computes in it: GPUs since Ampere, processors with AVX512-BF16 or AMX; fp32 elsewhere."""
    kind = torch.device(device).type
    if kind == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if kind == "cpu" and _cpu_has_bf16() else "fp32"


def _cpu_has_bf16() -> bool:
    """Whether an x86 processor multiplies bf16 numbers itself."""
    if platform.machine().lower() not in {"x86_64", "amd64"}:
        return False
    asks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile"))
    answers = [bool(ask()) for ask in asks if ask is not None]
    return any(answers) if answers else bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())


def cpu_has_tiles() -> bool:
    """Whether an x86 processor has units for products of matrices (AMX)."""
    ask = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return bool(ask()) if ask is not None else "amx_tile" in _cpu_flags()


def _cpu_flags() -> set[str]:
    """What Linux says the processor can do, for a torch that does not tell; empty elsewhere."""
    flags = Path("/proc/cpuinfo")
    return set(flags.read_text(encoding="utf-8").split()) if flags.is_file() else set()


def compiler_missing(device: torch.device | str) -> str:
    """What torch's compiler lacks on this machine and how to get it; empty if it lacks nothing."""
    if torch.device(device).type == "cpu" and not _has_cpp_compiler():
        return (
            "torch compiles for processors through a C++ compiler, and none was found.\n"
            "  Install one (Debian and Ubuntu: apt install g++, macOS: xcode-select --install, Windows: Visual Studio"
            " Build Tools)"
        )
    if torch.device(device).type == "cuda" and not torch.utils._triton.has_triton():
        return "torch compiles for GPUs through triton, which is missing.\n  Install it (pip install triton)"
    return ""


def _has_cpp_compiler() -> bool:
    """Whether one of the compilers that inductor calls is on the path."""
    from torch._inductor import config

    names = config.cpp.cxx if isinstance(config.cpp.cxx, tuple | list) else (config.cpp.cxx,)
    return any(shutil.which(name) for name in (*names, "cl") if name)

"""Keeping the thread's alternate signal stack.

OpenVINO's compiler (2026.4) puts one up to try what the processor can do, frees its memory, and leaves it in place. The
next signal with a handler on that stack, such as Ctrl-C in Python, then ends the process with a segmentation fault.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Stack(ctypes.Structure):
    """stack_t of the C library on Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put the signal stack of this thread back as it was; on other systems than Linux nothing is done."""
    if not sys.platform.startswith("linux"):
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)

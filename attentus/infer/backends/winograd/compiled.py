"""`kernels.c`, compiled by the machine's own C compiler for exactly its processor, and its threads."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import accumulate
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from attentus.errors import Unusable
from attentus.infer.backends.winograd.features import Features, aligned
from attentus.infer.processor import best_precision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

SOURCE = Path(__file__).with_name("kernels.c")
COMPILERS = ("cc", "gcc", "clang")
OPTIMISE = "-O3 -fno-tree-slp-vectorize"
"""Looking for vectors outside loops finds none that are faster, and takes a third of a second."""
FLAGS = "-fno-math-errno -fassociative-math -fno-signed-zeros -fno-trapping-math -ffp-contract=fast -shared -fPIC"
"""Sums may be taken in another order; NaN and infinity stay what they are."""
FOR_PROCESSOR = ("-march=native -mprefer-vector-width=512", "-march=native", "-mcpu=native", "")
"""What compilers call this processor; the first they take."""
SECONDS = 60
PARTS = 8
"""Tensors that are read as one, at most; as in `kernels.c`."""
TENSORS = ("weights", "bias", "y")
SIZES = ("x16", "y16", "n", "in", "out", "d", "h", "w", "taps", "step", "rows", "planes", "add", "chunk")
WITH_SCRATCH = ("convolve", "halve", "pointwise", "transpose", "pool", "enlarge")
FUNCTIONS = (*WITH_SCRATCH, "normalise")


class _Layer(ctypes.Structure):
    """The structure of the same name in `kernels.c`."""

    _fields_ = (
        ("x", ctypes.c_void_p * PARTS),
        ("ends", ctypes.c_long * PARTS),
        *((name, ctypes.c_void_p) for name in TENSORS),
        *((name, ctypes.c_long) for name in SIZES),
        ("eps", ctypes.c_float),
        ("slope", ctypes.c_float),
        ("next", ctypes.c_void_p),
    )


class Kernels:
    """The compiled functions, threads that call them, and the memory they work in, which is used again and again.

    Args:
        library: the shared library.
        threads: how many.

    Attributes:
        block: results that are summed up at once.
        pair: channels in a word that products take: 1 in fp32, 2 in bf16.
        short: how many times as many windows a whole batch has as the one under way: what is computed in which way must
            not depend on who else is in the batch.
    """

    def __init__(self, library: ctypes.CDLL, threads: int) -> None:
        self.threads = threads
        self.block = int(library.block_size())
        self.pair = int(library.channels_in_word())
        self.short = 1.0
        self.features = Features()
        self._library = library
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="winograd")
        self._own = threading.local()

    def __deepcopy__(self, _: object) -> Kernels:
        return self

    def __call__(
        self,
        name: str,
        tensors: Mapping[str, Tensor | None],
        sizes: Mapping[str, int],
        *,
        parts: Sequence[Tensor] = (),
        slope: float = 1.0,
        eps: float = 0.0,
    ) -> None:
        """Call a function on all threads and wait.

        Args:
            name: of the function.
            tensors: of `TENSORS` those it reads and writes, contiguous; fp32 or, where `pair` is 2, features in bf16;
                weights as `weights.py` packs them.
            sizes: of `SIZES` those it knows, but for what the tensors tell: which features are bf16.
            parts: what it reads, (N, c, *spatial) each and of one type, contiguous; their channels follow each other.
            slope: what results below 0 are multiplied by.
            eps: added to variances.
        """
        unit = ctypes.c_long(0)
        places = {key: tensor.data_ptr() for key, tensor in tensors.items() if tensor is not None}
        features = {"x16": parts[0] if parts else None, "y16": tensors["y"]}
        halves = {key: int(tensor is not None and tensor.dtype == torch.bfloat16) for key, tensor in features.items()}
        layer = _Layer(**places, **sizes, **halves, slope=slope, eps=eps, next=ctypes.addressof(unit))
        for k, end in enumerate(accumulate(part.shape[1] for part in parts)):
            layer.x[k], layer.ends[k] = parts[k].data_ptr(), end
        floats = getattr(self._library, f"{name}_scratch")(ctypes.byref(layer)) if name in WITH_SCRATCH else 0
        function = getattr(self._library, name)
        runs = [
            self._pool.submit(self._run, function, layer, floats, (unit, parts, tensors)) for _ in range(self.threads)
        ]
        for run in runs:
            run.result()

    def _run(self, function: Callable[..., None], layer: _Layer, floats: int, _: object) -> None:
        """Call a function on one of the threads, which has its own scratch.

        What the layer reads and writes is passed along, so that it stays even if nobody waits (Ctrl-C).
        """
        if getattr(self._own, "floats", -1) < floats:
            self._own.scratch, self._own.floats = aligned(floats), floats
        place = self._own.scratch.ctypes.data
        function(ctypes.byref(layer), ctypes.c_void_p(place))


def load(*, bf16: bool = False) -> ctypes.CDLL:
    """Compile the kernels and load them; a second, once per process.

    Args:
        bf16: round to bf16 what is multiplied.

    Raises:
        Unusable: there is no C compiler, or it cannot compile them.
    """
    if reason := missing(bf16=bf16):
        raise Unusable(f"Backend winograd: {reason}")
    library = compiling(_compiler(), _option(bf16)).result()
    if isinstance(library, str):
        raise Unusable(
            f"Backend winograd: {_compiler()} cannot compile its kernels: {library}\n  Use another backend, or install"
            " another compiler (Debian and Ubuntu: apt install gcc, macOS: xcode-select --install)."
        )
    return library


@cache
def compiling(compiler: str, option: str) -> Future[ctypes.CDLL | str]:
    """`compile_with`, on a thread of its own and only once."""
    return beside(compile_with, compiler, option)


def beside(call: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Begin a call on a thread of its own."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="winograd-beside")
    under_way = pool.submit(call, *arguments)
    pool.shutdown(wait=False)
    return under_way


def compile_with(compiler: str, option: str = "") -> ctypes.CDLL | str:
    """The library, or why the compiler cannot make it.

    It is kept in memory only: a file that somebody else could have put there is not run.
    """
    said = ""
    with TemporaryDirectory(prefix="attentus-", ignore_cleanup_errors=True) as folder:
        target = Path(folder) / "kernels.so"
        for processor in FOR_PROCESSOR:
            options = f"{OPTIMISE} {FLAGS} {option} {processor}".split()
            command = [compiler, *options, str(SOURCE), "-o", str(target)]
            try:
                subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS)  # noqa: S603
                return _declared(ctypes.CDLL(str(target)))
            except subprocess.CalledProcessError as failed:
                said = failed.stderr.strip().partition("\n")[0]
            except (OSError, subprocess.TimeoutExpired) as failed:
                said = str(failed)
    return said or "it does not say why"


def _option(bf16: bool) -> str:  # noqa: FBT001
    return "-DBF16" if bf16 else ""


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name in FUNCTIONS:
        getattr(library, name).restype = None
    for name in WITH_SCRATCH:
        getattr(library, f"{name}_scratch").restype = ctypes.c_long
    library.block_size.restype = library.channels_in_word.restype = ctypes.c_long
    return library


def kernels(threads: int | None = None, *, bf16: bool = False) -> Kernels:
    """The kernels with threads of their own.

    Args:
        threads: None: as many as torch uses.
        bf16: see `load`.

    Raises:
        Unusable: see `load`.
    """
    return Kernels(load(bf16=bf16), threads or torch.get_num_threads())


def missing(*, bf16: bool = False) -> str:
    """Why they cannot be compiled here; empty if they can be."""
    if os.name == "nt":
        return "not for Windows yet"
    if not _compiler():
        return "needs a C compiler (Debian and Ubuntu: apt install gcc, macOS: xcode-select --install)"
    if bf16 and best_precision("cpu") != "bf16":
        return "this processor does not multiply bf16"
    return ""


def _compiler() -> str:
    return next((path for name in COMPILERS if (path := shutil.which(name))), "")

"""Converted networks, kept in a folder: found again by what they were made from, and made again if damaged."""

from __future__ import annotations

import hashlib
import zipfile
from contextlib import suppress
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch

from attentus.errors import BadFile
from attentus.io.atomic import replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from torch import nn

Parts = dict[str, bytes]
"""The files of a converted network by name."""


def fetch(cache: Path | None, name: str, make: Callable[[], Parts], *, fresh: bool = False) -> Parts:
    """The converted network of that name, made if it is missing or damaged, and kept if that is possible.

    Args:
        cache: folder; None keeps nothing.
        name: of the file.
        make: converts.
        fresh: convert in any case.
    """
    file = cache / name if cache else None
    parts = read(file) if file and not fresh else None
    if parts is None:
        parts = make()
        if file:
            with suppress(BadFile):  # a model folder that one may not write to, or a full disk, is no reason to fail
                _write(file, parts)
    return parts


def file_name(kind: str, net: nn.Module, shape: tuple[int, ...], *versions: str) -> str:
    """A name that changes with layers, options, weights and shape, and with the versions of what converts."""
    [name] = file_names(kind, net, [shape], *versions)
    return name


def file_names(kind: str, net: nn.Module, shapes: Iterable[tuple[int, ...]], *versions: str) -> list[str]:
    """`file_name` for several shapes; weights are read once."""
    whole = hashlib.sha256("\n".join(_facts(net, versions)).encode())
    for tensor in net.state_dict().values():
        flat = tensor.detach().cpu().contiguous().view(-1)
        whole.update(flat.view(torch.uint8).numpy().data)
    names = []
    for shape in shapes:
        digest = whole.copy()
        digest.update(f"windows {shape}".encode())
        names.append(f"{kind}-{digest.hexdigest()[:24]}.zip")
    return names


def _facts(net: nn.Module, versions: tuple[str, ...]) -> Iterator[str]:
    yield f"attentus {version('attentus')}, torch {torch.__version__}, {versions}"
    for name, tensor in net.state_dict().items():
        yield f"{name} {tensor.dtype} {tuple(tensor.shape)}"
    for name, module in net.named_modules():
        plain = {k: v for k, v in vars(module).items() if isinstance(v, int | float | str | tuple) and k != "training"}
        yield f"{name} {type(module).__qualname__} {sorted(plain.items(), key=str)}"


def read(file: Path) -> Parts | None:
    """Every part of a kept network, its checksum verified; None if the file is missing or damaged."""
    try:
        with zipfile.ZipFile(file) as whole:
            return {part: whole.read(part) for part in whole.namelist()}
    except (OSError, zipfile.BadZipFile, EOFError, NotImplementedError):
        return None


def _write(file: Path, parts: Parts) -> None:
    with replacing(file) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as whole:
        for part, content in parts.items():
            whole.writestr(part, content)

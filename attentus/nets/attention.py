"""Listen to the attention of any net while it runs, replace its coefficients, or leave modules out for good."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from attentus.errors import UnknownName
from attentus.nets.parts import AttentionTap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from torch import Tensor

    from attentus.nets.parts import Coefficients

    Seen = Callable[[str, AttentionTap, Coefficients, Tensor, Tensor], None]
    """Told of a pass through a tap: its name, itself, coefficients, features before and after."""
    Change = Callable[[Coefficients], Coefficients | None]
    """Gives coefficients instead of a tap's own; None for no attention."""


def taps(net: nn.Module) -> dict[str, AttentionTap]:
    """Every place where attention can be listened to, by its path in the net ("gates.level4.each.0")."""
    return {name: tap for name, tap in _all_taps(net).items() if not tap.left_out}


@contextmanager
def watching(net: nn.Module | Mapping[str, AttentionTap], seen: Seen) -> Iterator[None]:
    """Tell a function of everything that passes the taps of a net, or some taps of it, inside the `with` block."""

    def watch(name: str) -> Any:
        def hook(tap: AttentionTap, inputs: tuple[Coefficients, Tensor], output: Tensor) -> None:
            if inputs[0] is not None:
                seen(name, tap, *inputs, output)

        return hook

    known = taps(net) if isinstance(net, nn.Module) else net
    handles = [tap.register_forward_hook(watch(name)) for name, tap in known.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def listening(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect the coefficients of the forward passes made inside the `with` block.

    Yields:
        A dict that holds, after each forward pass, the coefficients of that pass by name, each (N, maps, *spatial)
        in the resolution of the features it weighs (1 voxel for channel attention), detached.
    """
    heard: dict[str, Tensor] = {}

    def keep(name: str, tap: AttentionTap, coefficients: Coefficients, _before: Tensor, _after: Tensor) -> None:
        heard[name] = tap.shown(coefficients).detach()

    with watching(net, keep):
        yield heard


@contextmanager
def replacing(net: nn.Module, changes: Mapping[str, Change]) -> Iterator[None]:
    """Inside the `with` block, the named taps weigh by other coefficients than their own.

    Args:
        net: any net.
        changes: name of a tap to what makes its coefficients.

    Raises:
        UnknownName: no such tap.
    """

    def swap(change: Change) -> Any:
        def hook(_tap: AttentionTap, inputs: tuple[Coefficients, Tensor]) -> tuple[Coefficients | None, Tensor]:
            return change(inputs[0]), inputs[1]

        return hook

    chosen = _named(net, changes)
    handles = [tap.register_forward_pre_hook(swap(changes[name])) for name, tap in chosen.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def makers(net: nn.Module) -> dict[str, tuple[str, ...]]:
    """For every tap the paths of the parts that make its coefficients; several taps may share some."""
    found = {}
    for path, tap in net.named_modules():
        if isinstance(tap, AttentionTap) and not tap.left_out:
            owner = _owner(net, path)
            found[_name(path)] = tuple(f"{owner}.{part}" if owner else part for part in tap.made_by)
    return found


def parameters_of(net: nn.Module, paths: Iterable[str]) -> int:
    """Numbers that are learned in the modules, or parameters, at some paths."""
    total = 0
    for path in dict.fromkeys(paths):
        holder, leaf = _holder(net, path)
        part = getattr(holder, leaf)
        total += sum(p.numel() for p in (part.parameters() if isinstance(part, nn.Module) else [part]))
    return total


def leave_out(net: nn.Module, names: Iterable[str]) -> nn.Module:
    """Take attention modules out of a net for good: features pass as if there were none.

    Gates then multiply by one, residual masks add nothing, channels keep their size, and nothing is gathered. What
    made the coefficients is neither computed nor stored any more, unless another module needs it.

    Args:
        net: changed in place.
        names: as `taps` names them.

    Returns:
        The same net.

    Raises:
        UnknownName: no such attention module.
    """
    chosen = _named(net, names)
    before = makers(net)
    needed = {path for name, paths in before.items() if name not in chosen for path in paths}
    for name, tap in chosen.items():
        tap.left_out = True
        for path in {*before[name]} - needed:
            holder, leaf = _holder(net, path)
            setattr(holder, leaf, nn.Identity() if isinstance(getattr(holder, leaf), nn.Module) else None)
    return net


def left_out(net: nn.Module, within: nn.Module | None = None) -> list[str]:
    """Names of the attention modules that were taken out of a net; with `within`, of those that this one has, too."""
    known = _all_taps(within or net)
    return [name for name, tap in _all_taps(net).items() if tap.left_out and name in known]


def _all_taps(net: nn.Module) -> dict[str, AttentionTap]:
    return {_name(path): module for path, module in net.named_modules() if isinstance(module, AttentionTap)}


def _name(path: str) -> str:
    return path.removesuffix(".alpha")


def _named(net: nn.Module, names: Iterable[str]) -> dict[str, AttentionTap]:
    known = taps(net)
    for name in names:
        if name not in known:
            raise UnknownName("attention module", name, known)
    return {name: known[name] for name in names}


def _owner(net: nn.Module, path: str) -> str:
    """Path of the module that holds a tap; lists and dicts of modules do not count as such."""
    holder = path.rpartition(".")[0]
    while holder and isinstance(net.get_submodule(holder), nn.ModuleList | nn.ModuleDict):
        holder = holder.rpartition(".")[0]
    return holder


def _holder(net: nn.Module, path: str) -> tuple[nn.Module, str]:
    """The module that a path's last part is an attribute of, and that part."""
    parent, _, leaf = path.rpartition(".")
    return net.get_submodule(parent), leaf

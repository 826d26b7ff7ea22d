"""A net's copy in which the layers of `layers.py` take the place of torch's."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from attentus.infer.backends.converted import sums_maps
from attentus.infer.backends.winograd.layers import (
    DoublingConv,
    Enlarge,
    HalvingConv,
    PointwiseConv,
    Pool,
    RectifiedNorm,
    WinogradConv,
    pays,
)
from attentus.infer.backends.winograd.parts import MadeLater, OneByOne
from attentus.nets.anu_net import ANUNet
from attentus.nets.attention_unet import AttentionUNet, MultiGate
from attentus.nets.classic_unet import ClassicUNet
from attentus.nets.parts import Resize
from attentus.nets.plain_unet import PlainUNet
from attentus.nets.pyramid import Pyramid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.infer.backends.winograd.compiled import Kernels

_OWN = WinogradConv | HalvingConv | PointwiseConv
"""Nobody but the sequence holds them that they are made for."""
_OURS = _OWN | DoublingConv
"""They read features in bf16, too."""


def with_kernels(net: nn.Module, kernels: Kernels) -> nn.Module:
    """A copy of a net, in evaluation mode, whose layers are those of this file where they can be; it shares weights."""
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    return _changed(copy.deepcopy(net, shared).eval(), kernels, {})


def takes_over(layer: nn.Module, shape: Sequence[int]) -> bool:
    """Whether a convolution is one of those that a kernel computes with fewer products, for an input of that shape."""
    return isinstance(layer, nn.Conv2d | nn.Conv3d) and _kind(layer) is WinogradConv and pays(layer, shape)


def _changed(module: nn.Module, kernels: Kernels, done: dict[nn.Module, nn.Module]) -> nn.Module:
    """A module with its layers exchanged, from the leaves up; `done` are those that others hold, too."""
    if module not in done:
        done[module] = _exchanged(module, kernels, done)
    return done[module]


def _exchanged(module: nn.Module, kernels: Kernels, done: dict[nn.Module, nn.Module]) -> nn.Module:
    if type(module) is nn.Sequential:
        return _changed_sequence(module, kernels, done)
    for name, child in list(module.named_children()):
        setattr(module, name, _changed(child, kernels, done))
    readers = _readers(module)
    if readers and all(_reads_parts(reader) for reader in readers):
        setattr(module, "join", OneByOne())  # noqa: B010 - of another type on purpose
        if isinstance(module, Pyramid) and not module.gates:
            module.ups = nn.ModuleList(MadeLater(up) for up in module.ups)
    if isinstance(module, PlainUNet | ClassicUNet):
        _halve_features(module)
    return _changed_layer(module, kernels)


def _readers(module: nn.Module) -> list[nn.Module]:
    """All that read what a module's `join` joins; none for those that join nothing."""
    if isinstance(module, Pyramid):
        return list(module.decoder)
    if isinstance(module, AttentionUNet):
        return [*module.decoder.values(), *([module.final] if module.deep_supervision == "fuse" else [])]
    if isinstance(module, ANUNet):
        return [block for name, block in module.nodes.items() if not name.endswith("_0")]
    return [module.fuse] if isinstance(module, MultiGate) else []


def _reads_parts(block: nn.Module) -> bool:
    """Whether a block begins with a convolution that reads parts."""
    first = block[0] if type(block) is nn.Sequential else block
    return isinstance(first, WinogradConv | PointwiseConv)


def _halve_features(net: PlainUNet | ClassicUNet) -> None:
    """Keep what its blocks compute in bf16 where kernels read it, and nobody else does."""
    pyramid = net.pyramid
    blocks = [*pyramid.encoder[1:], *pyramid.ups, *pyramid.decoder, net.heads[0]]
    if not pyramid.gates and pyramid.gating is None and all(_reads_half(block) for block in blocks):
        for block in (*pyramid.encoder, *pyramid.ups, *pyramid.decoder):
            _end_in_half(block)


def _reads_half(module: nn.Module) -> bool:
    """Whether a module takes bf16: one of ours, or a sequence whose first layer that computes is one."""
    if isinstance(module, MadeLater):
        return _reads_half(module.layer)
    if type(module) is nn.Sequential:
        computing = [layer for layer in module if not isinstance(layer, Pool | nn.MaxPool2d | nn.MaxPool3d)]
        return bool(computing) and _reads_half(computing[0])
    return isinstance(module, _OURS)


def _end_in_half(module: nn.Module) -> None:
    """Let the last layer keep its results in bf16, if it is one of ours."""
    if isinstance(module, MadeLater):
        _end_in_half(module.layer)
    elif type(module) is nn.Sequential and len(module):
        _end_in_half(module[-2 if isinstance(module[-1], RectifiedNorm) else -1])
    elif isinstance(module, _OURS):
        module.in_half = module.kernels.pair == 2


def _changed_layer(layer: nn.Module, kernels: Kernels, slope: float = 1.0) -> nn.Module:
    if isinstance(layer, nn.Conv2d | nn.Conv3d) and (kind := _kind(layer)):
        return kind(layer, kernels, slope)
    if _is_doubling(layer):
        return DoublingConv(layer, kernels)
    if isinstance(layer, nn.MaxPool2d | nn.MaxPool3d) and _is_halving(layer):
        return Pool(kernels)
    return Enlarge(kernels) if isinstance(layer, Resize) else layer


def _changed_sequence(sequence: nn.Sequential, kernels: Kernels, done: dict[nn.Module, nn.Module]) -> nn.Sequential:
    """Convolution, normalisation and rectification that follow each other become one or two layers."""
    layers: list[nn.Module] = []
    left = list(sequence)
    while left:
        layer = left.pop(0)
        if not isinstance(layer, nn.Conv2d | nn.Conv3d):
            layers.append(_changed(layer, kernels, done))
            continue
        follows = left[0] if left else None
        if isinstance(follows, nn.BatchNorm2d | nn.BatchNorm3d) and follows.running_mean is not None:
            layer = fuse_conv_bn_eval(layer, follows)
            del left[0]
        if follows is not None and sums_maps(follows):
            del left[0]
            layers += [_changed_layer(layer, kernels), RectifiedNorm(follows, kernels, _take_slope(left))]
        else:
            layers.append(_changed_layer(layer, kernels, _take_slope(left) if _kind(layer) else 1.0))
    made = nn.Sequential(*layers)
    computing = [layer for layer in layers if not isinstance(layer, RectifiedNorm)]
    for layer, follows in pairwise(computing):
        if isinstance(layer, _OWN) and _reads_half(follows):
            _end_in_half(layer)
    return made


def _take_slope(left: list[nn.Module]) -> float:
    """What the next layer does with numbers below 0, if it does that alone; it is taken away then."""
    follows = left[0] if left else None
    if not isinstance(follows, nn.ReLU | nn.LeakyReLU):
        return 1.0
    del left[0]
    return follows.negative_slope if isinstance(follows, nn.LeakyReLU) else 0.0


def _kind(layer: nn.Conv2d | nn.Conv3d) -> type[WinogradConv | HalvingConv | PointwiseConv] | None:
    """The layer that stands for a convolution; None if there is none."""
    centred: Any = tuple(k // 2 for k in layer.kernel_size)
    same = layer.padding == "same" and set(layer.stride) == {1}
    if not _is_plain(layer) or layer.padding_mode != "zeros" or not (same or layer.padding == centred):
        return None
    *deep, _, _ = layer.kernel_size
    *step, _, _ = layer.stride
    if set(layer.kernel_size) == {1}:
        return PointwiseConv if set(layer.stride) == {1} else None
    if layer.kernel_size[-2:] != (3, 3) or deep not in ([], [1], [3]):
        return None
    if set(layer.stride) == {1}:
        return WinogradConv
    return HalvingConv if layer.stride[-2:] == (2, 2) and step in ([], [1], [2]) else None


def _is_doubling(layer: nn.Module) -> TypeGuard[nn.ConvTranspose2d | nn.ConvTranspose3d]:
    """Whether a layer is a transposed convolution for `transpose`."""
    return (
        isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)
        and _is_plain(layer)
        and layer.kernel_size in ((2, 2), (1, 2, 2), (2, 2, 2))
        and layer.stride == layer.kernel_size
        and not any((*layer.padding, *layer.output_padding))
    )


def _is_halving(layer: nn.MaxPool2d | nn.MaxPool3d) -> bool:
    """Whether a layer keeps the largest of two voxels along each axis."""
    two = (2, (2, 2, 2) if isinstance(layer, nn.MaxPool3d) else (2, 2))
    plain = layer.padding == 0 and layer.dilation == 1 and not layer.ceil_mode and not layer.return_indices
    return plain and layer.kernel_size in two and layer.stride in two


def _is_plain(layer: nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d) -> bool:
    return layer.groups == 1 and set(layer.dilation) == {1} and layer.weight.dtype == torch.float32

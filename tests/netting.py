"""Builds nets for the tests: without memory for counting, stirred for comparing, with weights written down by hand."""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode

from attentus import nets


def on_meta(name, *, dims=None, channels=None, classes=None, **options):
    """A net that takes no memory, for its published input unless told otherwise."""
    card = nets.card(name)
    sizes = dims or len(card.size), channels or card.channels, classes or card.classes
    with torch.device("meta"):
        return nets.create(name, *sizes, **options)


def count(*modules):
    """Parameters of all these modules together."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def shapes_of(outputs):
    return [tuple(output.shape) for output in outputs]


def meta(*shape):
    return torch.empty(shape, device="meta")


def flops_with_all_heads(net, x):
    """Operations of a pass in training, where every output is computed; `nets.cost` counts a pass in evaluation."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net.train()(x)
    return counter.get_total_flops()


def small(name, dims=2, channels=1, classes=2, *, seed=0, **options):
    """A tiny net in evaluation, stirred."""
    torch.manual_seed(seed)
    return stirred(nets.create(name, dims, channels, classes, **{"preset": "tiny", **options})).eval()


def stirred(net):
    """The same net with batch normalisations that are no longer identities, as after training."""
    with torch.no_grad():
        for norm in (module for module in net.modules() if isinstance(module, _BatchNorm)):
            norm.running_mean.normal_(0.0, 0.2)
            norm.running_var.uniform_(0.5, 1.5)
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(0.0, 0.2)
    return net


def put(layer, weight, bias=0.0):
    """Write weights of a layer by hand; of kernels larger than one voxel only the centre, all else is zero."""
    with torch.no_grad():
        layer.weight.zero_()
        centre = tuple(n // 2 for n in layer.weight.shape[2:])
        layer.weight[(..., *centre)] = torch.as_tensor(weight, dtype=layer.weight.dtype).view(layer.weight.shape[:2])
        if layer.bias is not None:
            layer.bias.copy_(torch.as_tensor(bias, dtype=layer.bias.dtype).expand_as(layer.bias))


@contextmanager
def passing(**modules):
    """What goes through the named modules meanwhile: lists of (inputs, output) by name, one entry per call."""
    seen = {name: [] for name in modules}

    def keep(name):
        return lambda _module, inputs, output: seen[name].append((inputs, output))

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            yield seen
    finally:
        for handle in handles:
            handle.remove()


def equal(a, b):
    """Assert that two tensors agree bit for bit."""
    torch.testing.assert_close(a, b, rtol=0, atol=0)


def close(a, b, atol=1e-6):
    """Assert that two tensors, or a tensor and a nested list, agree to `atol`."""
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=a.dtype).view(a.shape), rtol=0, atol=atol)


def drive(layer, answer):
    """Make a layer say the same number everywhere; in front of a sigmoid, -1e4 shuts, 0 halves and 1e4 opens."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.fill_(answer)

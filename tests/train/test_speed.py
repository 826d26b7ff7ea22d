"""Faster steps: the same weights, names and gradients as slow ones."""

import copy
import math
import platform
import subprocess
import sys
from itertools import chain

import pytest
import torch
from torch import nn

from attentus import nets
from attentus.errors import RecipeError
from attentus.infer import processor
from attentus.train import speed

GLIBC = platform.libc_ver()[0] == "glibc"


def small_net(**options):
    torch.manual_seed(0)
    return nets.create("plain-unet", 3, 1, 2, widths=(8, 16, 16), **options).train()


def gradients(net, x, *, bf16):
    net.zero_grad(set_to_none=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        outputs = net(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    seed = torch.Generator().manual_seed(1)
    sum((o.float() * torch.randn(o.shape, generator=seed)).sum() for o in outputs).backward()
    return {name: weight.grad.clone() for name, weight in net.named_parameters()}


def distance(got, wanted):
    """Largest relative error of any gradient; infinite if one is not finite."""
    errors = [float((got[n].float() - w).norm() / (w.norm() + 1e-6)) for n, w in wanted.items() if n.endswith("weight")]
    return max(float("inf") if math.isnan(e) else e for e in errors)


def litter():
    """Leave large numbers in freed memory, so that whoever forgets to write is seen."""
    for n in (1_000, 10_000, 100_000, 1_000_000):
        torch.full((n,), 1e30)


THIN = {
    "3x3x3 on two slices": (lambda: nn.Conv3d(16, 16, 3, padding=1), (2, 16, 2, 8, 8)),
    "3x1x1 on two slices": (lambda: nn.Conv3d(16, 16, (3, 1, 1), padding=(1, 0, 0)), (2, 16, 2, 8, 8)),
    "5x5x5 on three slices": (lambda: nn.Conv3d(16, 16, 5, padding=2), (2, 16, 3, 8, 8)),
    "strided, one voxel wide": (lambda: nn.Conv3d(16, 16, 3, stride=2, padding=1), (2, 16, 3, 1, 1)),
    "2D, strided, one voxel wide": (lambda: nn.Conv2d(16, 16, 3, stride=2, padding=1), (2, 16, 4, 1)),
    "transposed, 3x3x3": (lambda: nn.ConvTranspose3d(16, 32, 3, padding=1), (3, 16, 2, 9, 2)),
    "2D, 4x1, strided": (lambda: nn.Conv2d(3, 32, (4, 1), stride=3, padding=(2, 0)), (2, 3, 9, 1)),
}


@pytest.mark.parametrize(("make", "size"), THIN.values(), ids=THIN)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_on_thin_maps_are_those_of_fp32(make, size, channels_last):
    torch.manual_seed(0)
    net, x = make(), torch.randn(size)
    if channels_last:
        net = net.to(memory_format=speed.FORMATS[x.ndim - 2])
    wanted = gradients(net, x, bf16=False)
    assert speed.shield(net) == 1
    for _ in range(3):
        litter()
        assert distance(gradients(net, x, bf16=True), wanted) < 0.01


@pytest.mark.slow
def test_without_the_shield_they_are_wrong_here():
    # In a process of its own: the fault may damage the heap. Says when the shield has become unnecessary.
    code = """
import torch
from torch import nn
torch.manual_seed(0)
worst = 0.0
net, x = nn.Conv3d(16, 16, 3, padding=1), torch.randn(2, 16, 2, 8, 8)
net(x).sum().backward(); wanted = net.weight.grad.clone()
for _ in range(5):
    torch.full((100_000,), 1e30); torch.full((1_000_000,), 1e30)
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    y.float().sum().backward()
    error = float((net.weight.grad - wanted).norm() / wanted.norm())
    worst = max(worst, error if error == error else 1e9)
print(worst)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode == 0 and float(done.stdout) < 0.05:
        pytest.skip("this processor or torch does not have the fault")


def test_a_whole_net_with_maps_two_slices_deep():
    net, x = small_net(), torch.randn(2, 1, 8, 16, 16)
    wanted = gradients(net, x, bf16=False)
    speed.prepare_net(net, 3, "bf16", "cpu")
    litter()
    # Behind a few layers of bf16 with normalisation, gradients agree in direction rather than digit by digit.
    got = gradients(net, x, bf16=True)
    for name, weight in wanted.items():
        if name.endswith("weight"):
            assert float(nn.functional.cosine_similarity(got[name].flatten(), weight.flatten(), 0)) > 0.95, name


def test_only_thin_maps_leave_bf16():
    conv = nn.Conv3d(4, 4, 3, padding=1)
    thick, thin = torch.randn(1, 4, 4, 8, 8), torch.randn(1, 4, 2, 8, 8)
    plain = copy.deepcopy(conv)
    speed.shield(conv)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(conv(thick), plain(thick))
        assert conv(thin).dtype == torch.bfloat16
        assert not torch.equal(conv(thin), plain(thin))
    assert torch.equal(conv(thin), plain(thin))
    assert conv(thin).dtype == torch.float32


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, where it loads its compiler
def test_names_values_and_copies(monkeypatch):
    net = small_net()
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    speed.prepare_net(net, 3, "bf16", "cpu")
    monkeypatch.setattr(processor, "_has_cpp_compiler", lambda: True)
    speed.compiled(net)
    for name, weight in net.state_dict().items():
        assert torch.equal(weight, before[name])
    assert list(net.state_dict()) == list(before)
    assert speed.shield(net) == 0  # twice is once
    twin = copy.deepcopy(net)
    conv, other = (next(m for m in n.modules() if isinstance(m, nn.Conv3d)) for n in (net, twin))
    assert type(other) is type(conv) is not nn.Conv3d
    assert other.weight is not conv.weight


def test_channels_are_innermost_with_half_precision_only():
    for precision, innermost in (("fp32", False), ("bf16", True)):
        net = speed.prepare_net(small_net(), 3, precision, "cpu")
        weights = [w for w in net.parameters() if w.ndim == 5 and min(w.shape[1], w.shape[2]) > 1]
        assert weights
        assert all(w.is_contiguous(memory_format=torch.channels_last_3d) is innermost for w in weights)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("batch", [1, 3])
def test_instance_normalisation_stays_the_same_and_is_not_turned_round(dims, batch):
    torch.manual_seed(0)
    norm = (nn.InstanceNorm2d if dims == 2 else nn.InstanceNorm3d)(4, affine=True)
    nn.init.normal_(norm.weight)
    x = torch.randn(batch, 4, *(5, 6, 7)[:dims]).to(memory_format=speed.FORMATS[dims])
    wanted, slope = norm(x), gradients(norm, x, bf16=False)
    speed.prepare_net(norm, dims, "bf16", "cpu")
    assert torch.allclose(norm(x), wanted, atol=1e-6)
    assert norm(x).is_contiguous(memory_format=speed.FORMATS[dims])
    assert distance(gradients(norm, x, bf16=False), slope) < 1e-5
    assert torch.equal(norm(x.contiguous()), wanted.contiguous())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compilers_see_one_graph_and_the_same_gradients():
    net, x = small_net(), torch.randn(1, 1, 8, 16, 16)
    speed.prepare_net(net, 3, "bf16", "cpu")
    wanted = gradients(net, x, bf16=True)
    net.compile(fullgraph=True, backend="aot_eager")
    assert distance(gradients(net, x, bf16=True), wanted) < 0.1


def test_shielded_nets_go_through_fabric():
    from lightning_fabric import Fabric

    net = speed.prepare_net(small_net(), 3, "bf16", "cpu")
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    wrapped, optimiser = fabric.setup(net, torch.optim.SGD(net.parameters(), 0.1))
    fabric.backward(sum(o.float().mean() for o in wrapped(torch.randn(1, 1, 8, 16, 16))))
    optimiser.step()
    assert all(torch.isfinite(value).all() for value in chain(net.parameters(), net.buffers()))


def test_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr(processor, "_has_cpp_compiler", lambda: False)
    with pytest.raises(RecipeError, match=r"C\+\+ compiler"):
        speed.compiled(nn.Conv3d(1, 1, 3))

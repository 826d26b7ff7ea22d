"""RA-UNet against Tables II, III and VIII: exact counts per stage, 641 layers, Eq. 2 and a residual block by hand."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch
from netting import close, count, drive, equal, meta, on_meta, passing, put, shapes_of, small, stirred
from torch import nn
from torch.nn.functional import interpolate, max_pool2d
from torch.utils._python_dispatch import TorchDispatchMode

from attentus import nets
from attentus.errors import BadInput
from attentus.nets.ra_unet import AttentionResidual, RAUNet, Residual

ONE = {"dims": 2}  # RA-UNet-I finds the liver in slices
TWO = {"dims": 3}  # RA-UNet-II outlines liver and tumours
BRATS = {"dims": 3, "channels": 4, "preset": "brats"}


@pytest.mark.parametrize(
    ("expected", "options"),
    [
        (737_897, ONE),
        (737_897, {"preset": "one", **ONE}),
        (4_420_849, TWO),  # printed as 4 M
        (4_420_849, {"preset": "two", **TWO}),
        (12_778_945, BRATS),  # printed as 12 M
    ],
)
def test_parameters_are_the_published_integers(expected, options):
    assert count(on_meta("ra-unet", **options)) == expected


def test_parameters_of_the_3d_net_stage_by_stage():
    net = on_meta("ra-unet", **TWO)
    assert count(net.conv1) == 960
    assert [count(block) for block in net.encoder] == [3_440, 10_784, 42_560, 169_088, 674_048]
    assert count(net.bottom) == 838_400
    assert [count(module) for module in net.attention] == [1_393_408, 509_376, 169_216, 53_712]
    assert [count(block) for block in net.decoder] == [375_168, 94_400, 23_904, 6_128]
    assert count(net.conv2) == 55_392
    assert count(net.conv3) == 865


@pytest.mark.parametrize(
    ("expected", "module"),
    [
        (3_440, lambda: Residual(3, 32, 32)),
        (24_128, lambda: Residual(2, 64, 128)),
        (1_393_408, lambda: AttentionResidual(3, 256, 0)),
        (53_712, lambda: AttentionResidual(3, 32, 3)),
    ],
)
def test_parameters_of_single_modules(expected, module):
    with torch.device("meta"):
        assert count(module()) == expected


def test_parameters_of_the_attention_modules_of_the_2d_net():
    net = on_meta("ra-unet", **ONE)
    assert [count(module) for module in net.attention] == [240_000, 87_520, 29_568, 9_784]


@pytest.mark.parametrize(
    ("statistics", "without", "options"), [(9_424, 518_569, ONE), (18_848, 3_548_017, TWO), (34_432, 9_825_025, BRATS)]
)
def test_normalisations_and_shortcuts_count_as_published(statistics, without, options):
    net = on_meta("ra-unet", **options)
    assert sum(b.numel() for name, b in net.named_buffers() if "running" in name) == statistics
    shortcuts = [block.shortcut for block in net.modules() if isinstance(block, Residual)]
    assert all(isinstance(shortcut, nn.Conv2d | nn.Conv3d) for shortcut in shortcuts)
    same_width = [shortcut for shortcut in shortcuts if shortcut.in_channels == shortcut.out_channels]
    assert count(net) - count(*same_width) == without  # what identities in their place would leave: not 4 M, not 12 M


class _Operations(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.seen = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen[re.sub(r"(2d|3d)?(_with_indices)?_?$", "", func.overloadpacket.__name__)] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [ONE, TWO])
def test_a_pass_runs_through_641_layers(options):
    net = on_meta("ra-unet", **options)
    assert sum(isinstance(m, nn.Conv2d | nn.Conv3d) for m in net.modules()) == 219
    assert sum(isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d) for m in net.modules()) == 158
    assert sum(isinstance(m, Residual) for m in net.modules()) == 52
    with _Operations() as operations, torch.no_grad():
        net.eval()(meta(1, 1, *[64] * options["dims"]))
    layers = {
        "convolution": 219,
        "native_batch_norm": 158,
        "relu": 158,
        "add": 58 + 4,  # residual blocks and skips of the hourglasses; 1 + S
        "max_pool": 15,
        "upsample_nearest": 15,
        "cat": 5,
        "sigmoid": 4,
        "mul": 4,
    }
    assert {name: operations.seen[name] for name in layers} == layers
    assert sum(layers.values()) + 1 == 641  # and the input


@pytest.mark.parametrize(
    ("expected", "size", "options"),
    [
        (1_279_307_776, (256, 256), ONE),
        (202_263_909_120, (32, 224, 224), TWO),
        (66_045_358_080, (32, 128, 128), TWO),
        (57_974_743_040, (64, 64, 64), BRATS),
    ],
)
def test_flops_of_the_published_inputs(expected, size, options):
    assert nets.cost(on_meta("ra-unet", **options), options.get("channels", 1), size).flops == expected


def test_cost_is_linear_in_voxels():
    net = on_meta("ra-unet", **ONE)
    assert nets.cost(net, 1, (64, 96)).flops == 6 * nets.cost(net, 1, (32, 32)).flops


def test_sizes_and_widths_of_the_stages_are_those_of_table_3():
    net = on_meta("ra-unet", **TWO)
    stages = {"conv1": net.conv1, "bottom": net.bottom, "conv2": net.conv2}
    stages |= {f"res{i}": block for i, block in enumerate(net.encoder, start=1)}
    stages |= {f"att{i}": module for i, module in enumerate(net.attention, start=1)}
    stages |= {f"res{i}": block for i, block in enumerate(net.decoder, start=7)}
    with passing(**stages) as seen:
        outputs = net(meta(1, 1, 32, 224, 224))
    by_shape = {
        (32, 32, 224, 224): ["conv1", "conv2"],
        (32, 16, 112, 112): ["res1", "att4", "res10"],
        (64, 8, 56, 56): ["res2", "att3", "res9"],
        (128, 4, 28, 28): ["res3", "att2", "res8"],
        (256, 2, 14, 14): ["res4", "att1", "res7"],
        (512, 1, 7, 7): ["res5", "bottom"],
    }
    for shape, names in by_shape.items():
        assert {tuple(seen.pop(name)[0][1].shape[1:]) for name in names} == {shape}
    assert not seen
    assert shapes_of(outputs) == [(1, 1, 32, 224, 224)]


def test_a_residual_block_by_hand():
    # One channel in, four out, so one inside. With variances of 1 - 0.001 the normalisations are identities, as their
    # epsilon is 0.001. Of 1: relu 1, 2 * 1 + 1 = 3, 3 * 3 - 1 = 8, times 1 ... 4. Of -1: relu 0, 1, 2, times 1 ... 4.
    # The shortcut sees 1 and -1 themselves: times (1, 0, -1, 0) plus 0.5. Nothing rectifies the sum.
    block = Residual(2, 1, 4).eval()
    for norm in block.body[::3]:
        norm.running_var.fill_(0.999)
    put(block.body[2], [[2.0]], 1.0)
    put(block.body[5], [[3.0]], -1.0)
    put(block.body[8], [[1.0], [2.0], [3.0], [4.0]])
    put(block.shortcut, [[1.0], [0.0], [-1.0], [0.0]], 0.5)
    with torch.no_grad():
        out = block(torch.tensor([1.0, -1.0]).view(1, 1, 1, 2))
    close(out, [[9.5, 1.5], [16.5, 4.5], [23.5, 7.5], [32.5, 8.5]], atol=1e-5)


def _attention(depth, dims=2):
    torch.manual_seed(depth)
    return stirred(AttentionResidual(dims, 4, depth)).eval()


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
@pytest.mark.parametrize(("answer", "share"), [(-1e4, 0), (0.0, 0.5), (1e4, 1)])
def test_the_mask_adds_to_the_trunk(depth, answer, share):
    """(1 + S) F: S = 0 leaves exactly the trunk, S = 1 gives exactly twice the trunk."""
    module = _attention(depth)
    drive(module.mask[-1], answer)
    with passing(before=module.before, after=module.after) as seen:
        out = module(torch.randn(2, 4, 16, 32))
        [(_, x)], [([weighed], after)] = seen["before"], seen["after"]
        equal(weighed, (1 + share) * module.trunk(x))
    equal(out, after)


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_the_hourglass_pools_once_more_than_it_skips(depth):
    module = _attention(depth)
    assert sum(isinstance(m, Residual) for m in module.modules()) == 6 + 3 * depth

    def up(x):
        return interpolate(x, scale_factor=2, mode="nearest")

    def level(x, number):  # from a grid down, and back up to that grid
        x = module.down[number](max_pool2d(x, 2))
        if number < depth:
            x = level(x, number + 1) + module.across[number](x)
        return up(module.up[depth - number](x))

    x = torch.randn(1, 4, 16, 32)
    with passing(lowest=module.down[-1], mask=module.mask) as seen:
        module(x)
        expected = level(module.before(x), 0)
    assert seen["lowest"][0][1].shape[2:] == (16 // 2 ** (depth + 1), 32 // 2 ** (depth + 1))
    [([found], _)] = seen["mask"]
    equal(found, expected)


def test_two_convolutions_with_nothing_between_make_the_mask():
    first, second = _attention(1).mask
    for convolution in (first, second):
        assert (convolution.kernel_size, convolution.in_channels, convolution.out_channels) == ((1, 1), 4, 4)
        assert convolution.bias is not None


def test_deeper_attention_stands_on_finer_skips():
    net = on_meta("ra-unet", **ONE)
    assert [len(module.across) for module in net.attention] == [0, 1, 2, 3]
    points = nets.attention_points(net, 1, (256, 256))
    found = [(point.name, point.maps, point.size) for point in points]
    assert found == [
        ("attention.0", 128, (16, 16)),
        ("attention.1", 64, (32, 32)),
        ("attention.2", 32, (64, 64)),
        ("attention.3", 16, (128, 128)),
    ]


def test_the_decoder_joins_upsampled_features_before_attended_ones():
    net = small("ra-unet", classes=1)
    joins = {f"join{i}": block for i, block in enumerate(net.decoder)}
    attended = {f"att{i}": module for i, module in enumerate(net.attention)}
    with passing(first=net.conv1, last=net.conv2, bottom=net.bottom, **joins, **attended) as seen:
        net(torch.randn(1, 1, 32, 64))
    coarse = seen["bottom"][0][1]
    for i in range(4):
        [([joined], output)], [(_, skip)] = seen[f"join{i}"], seen[f"att{i}"]
        equal(joined, torch.cat([interpolate(coarse, scale_factor=2, mode="nearest"), skip], dim=1))
        coarse = output
    [([joined], _)], [(_, first)] = seen["last"], seen["first"]  # the finest skip has no attention
    equal(joined, torch.cat([interpolate(coarse, scale_factor=2, mode="nearest"), first], dim=1))


def test_without_attention_skips_pass_as_they_are():
    net = small("ra-unet", attention=False)
    assert not nets.taps(net)
    with passing(skip=net.encoder[0], join=net.decoder[-1]) as seen:
        net(torch.randn(1, 1, 32, 32))
    [(_, skip)], [([joined], _)] = seen["skip"], seen["join"]
    equal(joined[:, -skip.shape[1] :], skip)


def test_it_starts_like_the_authors_framework():
    torch.manual_seed(0)
    net = RAUNet(2, 1, 1)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(norm.eps, norm.momentum) for norm in norms} == {(1e-3, 0.01)}
    quick = [m for m in on_meta("ra-unet", momentum=0.1).modules() if isinstance(m, nn.BatchNorm2d | nn.BatchNorm3d)]
    assert {(norm.eps, norm.momentum) for norm in quick} == {(1e-3, 0.1)}
    with pytest.raises(BadInput, match="momentum is above 0"):
        on_meta("ra-unet", momentum=0.0)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert all(m.bias.abs().max() == 0 for m in convolutions)
    stem = net.conv1[0].weight  # Glorot: uniform within sqrt(6 / (9 * 1 + 9 * 16)) = 0.198030
    assert 0.18 < stem.abs().max() <= 0.198030


@pytest.mark.parametrize(
    ("size", "fitting"), [((33, 32), "[64, 32]"), ((30, 100), "[32, 128]"), ((32, 224, 225), "[32, 224, 256]")]
)
def test_sizes_that_cannot_be_halved_five_times_are_refused(size, fitting):
    net = on_meta("ra-unet", dims=len(size))
    with pytest.raises(BadInput) as refusal:
        net(meta(1, 1, *size))
    assert f"a multiple of 32. {list(size)} is not; pad it to {fitting}." in str(refusal.value)


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("widths are six numbers of at least 4", {"widths": (4, 4, 8)}),
        ("widths are six numbers of at least 4", {"widths": (4, 4, 4, 4, 4, 3)}),
        ("depths are four numbers from 0 to 3", {"depths": (0, 1, 2, 4)}),
        ("depths are four numbers from 0 to 3", {"depths": (0, 1)}),
    ],
)
def test_impossible_options_are_refused(message, options):
    with pytest.raises(BadInput, match=message):
        nets.create("ra-unet", 2, 1, 1, **options)

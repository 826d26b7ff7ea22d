from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from scipy import interpolate, ndimage

from attentus.errors import BadInput
from attentus.recipes import Augment
from attentus.transforms import augment_space, augment_values
from attentus.transforms.augment import Drawn, _rotation, apply, draw, source_size

EVERYTHING = Augment(
    flip=("z", "y", "x"),
    crop=0.2,
    affine=1.0,
    rotate=(30, 20, 10),
    scale=(0.7, 1.4),
    stretch=(0.9, 1.1),
    shift=0.1,
    elastic=0.7,
    bend=2.0,
    bend_grid=6.0,
    intensity=0.5,
    blur=(0.5, 1.5),
    low_resolution=(0.4, 0.9),
    noise=0.2,
    brightness=0.5,
    contrast=(0.5, 2.0),
    gamma=(0.5, 2.0),
    gamma_mirrored=0.5,
)
PLANAR = EVERYTHING.model_copy(update={"rotate": (30.0, 0.0, 0.0), "flip": ("y", "x")})


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(dims, size, patches=2, channels=2):
    g = generator(1)
    return torch.randn(patches, channels, *size[-dims:], generator=g), torch.randint(
        0, 3, (patches, *size[-dims:]), generator=g
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_the_same_draw_gives_the_same_result(dims):
    patch = (8, 12, 10)[-dims:]
    how = EVERYTHING if dims == 3 else PLANAR
    source = source_size(patch, how, (1.0,) * dims)
    images, labels = batch(dims, source)
    drawn = draw(how, 2, patch, (1.0,) * dims, generator())
    first, second = apply(images, labels, drawn, patch), apply(images, labels, drawn, patch)
    assert first[0].shape == (2, 2, *patch)
    assert first[1].shape == (2, *patch)
    assert first[1].dtype == labels.dtype
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    other = apply(images, labels, draw(how, 2, patch, (1.0,) * dims, generator(5)), patch)
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_is_its_patches(dims):
    """Each patch is changed by its own draw and nothing else, and what was given stays as it was."""
    how, patch, spacing = (EVERYTHING, PLANAR)[dims == 2], (8, 12, 10)[-dims:], (1.0,) * dims
    images, labels = batch(dims, source_size(patch, how, spacing), patches=3)
    drawn, before = draw(how, 3, patch, spacing, generator(3)), (images.clone(), labels.clone())
    together = apply(images, labels, drawn, patch)
    for n in range(3):
        alone = apply(images[n : n + 1], labels[n : n + 1], drawn.pick([n]), patch)
        torch.testing.assert_close(alone, tuple(part[n : n + 1] for part in together), rtol=0, atol=0)
    torch.testing.assert_close((images, labels), before, rtol=0, atol=0)


@pytest.mark.parametrize("how", [EVERYTHING, EVERYTHING.model_copy(update={"elastic": 0.0})], ids=["bent", "straight"])
def test_what_was_drawn_can_be_kept_and_replayed(how, tmp_path):
    patch = (6, 8, 7)
    images, labels = batch(3, source_size(patch, how, (2, 1, 1)), patches=4)
    drawn = draw(how, 4, patch, (2, 1, 1), generator(2))
    save_file(vars(drawn), tmp_path / "drawn.safetensors")
    (tmp_path / "drawn.json").write_text(json.dumps(drawn.record()))
    first = apply(images, labels, drawn, patch)
    from_tensors = Drawn(**load_file(tmp_path / "drawn.safetensors"))
    from_text = Drawn.from_record(json.loads((tmp_path / "drawn.json").read_text()))
    for again in (from_tensors, from_text):
        for field in fields(Drawn):
            kept, was = getattr(again, field.name), getattr(drawn, field.name)
            assert kept.dtype == was.dtype
            assert torch.equal(kept, was), field.name
        torch.testing.assert_close(apply(images, labels, again, patch), first, rtol=0, atol=0)


def test_a_record_of_something_else_is_refused():
    record = draw(Augment(), 1, (4, 4), (1, 1), generator()).record()
    del record["blur"]
    with pytest.raises(BadInput, match="blur"):
        Drawn.from_record(record)


def test_nothing_asked_for_changes_nothing():
    images, labels = batch(3, (6, 7, 8))
    drawn = draw(Augment(), 2, (6, 7, 8), (1, 1, 1), generator())
    out = apply(images, labels, drawn, (6, 7, 8))
    torch.testing.assert_close(out[0], images, rtol=0, atol=0)
    torch.testing.assert_close(out[1], labels, rtol=0, atol=0)
    assert source_size((6, 7, 8), Augment(), (1, 1, 1)) == (6, 7, 8)


def test_flips_are_exact_and_labels_follow():
    how = Augment(flip=("x",))
    images, labels = batch(3, (3, 4, 5), patches=32)
    drawn = draw(how, 32, (3, 4, 5), (1, 1, 1), generator())
    out_images, out_labels = apply(images, labels, drawn, (3, 4, 5))
    flipped = [torch.equal(o, i.flip(-1)) for o, i in zip(out_images, images, strict=True)]
    kept = [torch.equal(o, i) for o, i in zip(out_images, images, strict=True)]
    assert all(f != k for f, k in zip(flipped, kept, strict=True))
    assert 5 < sum(flipped) < 27
    for n, was_flipped in enumerate(flipped):
        assert torch.equal(out_labels[n], labels[n].flip(-1) if was_flipped else labels[n])


def quarter_turn(spacing):
    """A quarter turn about z, as drawn with a range of 90 degrees and a generator that happens to give its end."""
    how = Augment(affine=1.0, rotate=(90, 0, 0))
    drawn = draw(how, 1, (1, 9, 9), spacing, generator())
    return replace(drawn, matrix=torch.tensor(_rotation([90.0, 0.0, 0.0], spacing)).float()[None])


def test_a_quarter_turn_by_hand():
    image = torch.zeros(1, 1, 1, 9, 9)
    image[0, 0, 0, 4, 7] = 1  # three to the right of the middle
    out, _ = apply(image, image[:, 0].long(), quarter_turn((1.0, 1.0, 1.0)), (1, 9, 9))
    places = torch.nonzero(out[0, 0, 0] > 0.5).tolist()
    assert places in ([[1, 4]], [[7, 4]])


def test_turning_respects_voxels_that_are_no_cubes():
    # Rows 3 mm apart, columns 1 mm: what lies 3 mm to the right comes to lie one row away.
    image = torch.zeros(1, 1, 1, 9, 9)
    image[0, 0, 0, 4, 7] = 1
    out, _ = apply(image, image[:, 0].long(), quarter_turn((1.0, 3.0, 1.0)), (1, 9, 9))
    row, column = divmod(int(out[0, 0, 0].argmax()), 9)
    assert (abs(row - 4), column) == (1, 4)
    assert (out > 0.5).sum() == 3  # 3 mm high and 1 mm wide became 3 mm wide


def test_image_and_labels_move_together():
    how = Augment(affine=1.0, rotate=(40, 20, 20), scale=(0.8, 1.2), shift=0.1)
    patch = (16, 20, 18)
    source = source_size(patch, how, (1, 1, 1))
    z, y, x = torch.meshgrid(*[torch.arange(n) for n in source], indexing="ij")
    mask = ((z - source[0] / 2) ** 2 + (y - source[1] / 2 - 3) ** 2 + (x - source[2] / 2) ** 2 < 25)[None]
    for seed in range(5):
        image, labels = apply(
            mask[:, None].float(), mask.long(), draw(how, 1, patch, (1, 1, 1), generator(seed)), patch
        )
        found, truth = image[0, 0] > 0.5, labels[0] == 1
        assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_enough_is_cut_for_the_corners():
    how = Augment(affine=1.0, rotate=(15, 0, 0), scale=(0.85, 1.0))
    patch = (20, 20, 20)
    source = source_size(patch, how, (1, 1, 1))
    assert source == (24, 29, 29)  # z: 20/0.85; y and x: 20·(cos 15° + sin 15°)/0.85 = 28.8
    ramp = torch.arange(29.0).expand(6, 1, *source)
    out, _ = apply(ramp, ramp[:, 0].long(), draw(how, 6, patch, (1, 1, 1), generator()), patch)
    for axis in (2, 3, 4):  # a ramp stays a ramp unless some voxel had to be taken from beyond the edge
        assert out.diff(n=2, dim=axis).abs().max() < 1e-3
    assert source_size(patch, how.model_copy(update={"scale": (0.3, 1.0)}), (1, 1, 1)) == (30, 30, 30)


def test_intensity_by_hand():
    images = torch.tensor([0.0, 1.0, 2.0, 5.0]).view(1, 1, 1, 1, 4)
    plain = draw(Augment(), 1, (1, 1, 4), (1, 1, 1), generator())
    labels = torch.zeros(1, 1, 1, 4, dtype=torch.long)
    contrast = apply(images, labels, replace(plain, contrast=torch.tensor([2.0])), (1, 1, 4))[0]
    torch.testing.assert_close(contrast.ravel(), torch.tensor([-2.0, 0.0, 2.0, 8.0]))
    brighter = apply(images, labels, replace(plain, brightness=torch.tensor([0.5])), (1, 1, 4))[0]
    torch.testing.assert_close(brighter, images + 0.5)
    gamma = apply(images, labels, replace(plain, gamma=torch.tensor([2.0])), (1, 1, 4))[0]
    torch.testing.assert_close(gamma.ravel(), torch.tensor([0.0, 0.2, 0.8, 5.0]))
    noisy = apply(images, labels, replace(plain, noise=torch.tensor([0.1])), (1, 1, 4))[0]
    assert 0 < (noisy - images).abs().max() < 1


def place(drawn, **changes):
    return replace(drawn, **{name: torch.as_tensor(value)[None] for name, value in changes.items()})


def looked_up(image, labels, places):
    """SciPy's answer at (dims, *patch) indices of the source."""
    sampled = [ndimage.map_coordinates(channel.numpy(), places, order=1, mode="nearest") for channel in image]
    nearest = ndimage.map_coordinates(labels.numpy(), places, order=0, mode="nearest")
    return torch.from_numpy(np.stack(sampled)), torch.from_numpy(nearest)


TURNS = {"about z": (25.0, 0.0, 0.0), "about all": (25.0, -15.0, 35.0), "not at all": (0.0, 0.0, 0.0)}


@pytest.mark.parametrize("bent", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("turn", TURNS)
@pytest.mark.parametrize("dims", [2, 3])
def test_moving_is_what_scipy_makes_of_it(dims, turn, channels, bent, monkeypatch):
    monkeypatch.setattr(augment_space, "AT_ONCE", 300)  # several times per patch
    patch, spacing, source = (7, 12, 10)[-dims:], (3.0, 1.0, 1.5)[-dims:], (9, 14, 16)[-dims:]
    images, labels = batch(dims, source, patches=1, channels=channels)
    matrix = torch.tensor(_rotation(TURNS[turn], spacing) * 0.9).float()
    shift, lattice = torch.tensor([0.3, -1.2, 0.7][-dims:]), torch.tensor([2.0, 4.0, 3.5][-dims:])
    points = [augment_space.control_points(n, step) for n, step in zip(patch, lattice.tolist(), strict=True)]
    bend = torch.randn(dims, *points, generator=generator(4)) if bent else torch.empty(dims, *[0] * dims)
    plain = draw(Augment(), 1, patch, spacing, generator())
    found = apply(images, labels, place(plain, matrix=matrix, shift=shift, bend=bend, lattice=lattice), patch)

    offsets = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in patch], indexing="ij")).reshape(dims, -1)
    if bent:
        offsets = offsets + spline(bend.double().numpy(), offsets, lattice.numpy(), points)
    places = matrix.double().numpy() @ offsets + shift.numpy()[:, None] + (np.array(source)[:, None] - 1) / 2
    image, truth = looked_up(images[0], labels[0], places.reshape(dims, *patch))
    torch.testing.assert_close(found[0][0], image, rtol=0, atol=2e-3)
    assert (found[1][0] != truth).float().mean() < 0.01  # places halfway between two voxels


def spline(bend, offsets, lattice, points):
    """Displacements at offsets, by SciPy's B-splines."""
    weights = []
    for offset, step, count in zip(offsets, lattice, points, strict=True):
        knots = np.arange(count + 4) - 2.0  # the k-th basis function peaks at k
        at = offset / step + (count - 1) / 2
        weights.append(interpolate.BSpline.design_matrix(at, knots, 3).toarray())
    letters = "abc"[: len(points)]
    return np.einsum(f"d{letters}," + ",".join(f"n{letter}" for letter in letters) + "->dn", bend, *weights)


@pytest.mark.parametrize("shape", [(1, 9, 8), (2, 9, 8), (5, 1, 8), (5, 6, 1)])
def test_thin_volumes_can_be_turned(shape):
    images, labels = batch(3, shape, patches=1)
    drawn = draw(EVERYTHING, 1, shape, (1, 1, 1), generator())
    image, _ = apply(images, labels, place(drawn, noise=0.0), shape)
    assert image.shape == images.shape
    assert image.isfinite().all()


@pytest.mark.parametrize("sigmas", [[0.7, 1.3], [1.0, 0.0, 2.5], [0.1, 0.5, 0.8]])
def test_blur_is_scipys(sigmas):
    image = torch.randn(2, *(9, 12, 10)[-len(sigmas) :], generator=generator())
    before = image.clone()
    wanted = [
        ndimage.gaussian_filter(c.numpy(), np.where(np.array(sigmas) < 1 / 6, 0, sigmas), truncate=3, mode="nearest")
        for c in image
    ]
    torch.testing.assert_close(augment_values.blur(image, sigmas), torch.from_numpy(np.stack(wanted)))
    assert torch.equal(image, before)


@pytest.mark.parametrize("kept", [[0.5, 0.5], [1.0, 0.4, 0.7], [0.3, 0.61, 1.0], [0.01, 0.9, 0.9]])
def test_low_resolution_is_torchs(kept):
    size = (9, 12, 10)[-len(kept) :]
    image = torch.randn(2, *size, generator=generator())
    few = [max(round(n * share), 1) for n, share in zip(size, kept, strict=True)]
    coarse = F.interpolate(image[None], few, mode="nearest-exact")
    fine = F.interpolate(coarse, size, mode={2: "bilinear", 3: "trilinear"}[len(kept)])[0]
    torch.testing.assert_close(augment_values.low_resolution(image, kept), fine)


def test_coarse_axes_keep_what_they_have():
    """5 mm slices of 1 mm pixels: half the pixels leave 2 mm; a blur of one pixel is a fifth of a slice."""
    how = Augment(intensity=1, blur=(1, 1), low_resolution=(0.5, 0.5))
    drawn = draw(how, 1, (4, 8, 8), (5, 1, 1), generator())
    torch.testing.assert_close(drawn.blur, torch.tensor([[0.2, 1, 1]]))
    torch.testing.assert_close(drawn.low_resolution, torch.tensor([[1, 0.5, 0.5]]))


def test_mirrored_gamma_by_hand():
    image = torch.tensor([[0.0, 1.0, 2.0, 5.0]]).view(1, 1, 4)
    augment_values.gamma_(image, 2.0, mirrored=True)  # 5 - 5 ((5 - x) / 5)²
    torch.testing.assert_close(image.ravel(), torch.tensor([0.0, 1.8, 3.2, 5.0]))
    flat = torch.full((1, 2, 2), 3.0)
    augment_values.gamma_(flat, 0.5, mirrored=False)
    torch.testing.assert_close(flat, torch.full((1, 2, 2), 3.0))


def test_channels_change_on_their_own_scale():
    image = torch.randn(1, 5, 6, generator=generator())
    both = torch.cat([image, 10 * image + 3])
    augment_values.contrast_(both, 1.7, 0.0)
    augment_values.gamma_(both, 1.5, mirrored=False)
    torch.testing.assert_close(both[1:], 10 * both[:1] + 3)


def test_noise_is_as_strong_as_drawn_and_differs_between_patches():
    plain = draw(Augment(), 2, (64, 64), (1, 1), generator())
    images, labels = torch.zeros(2, 2, 64, 64), torch.zeros(2, 64, 64, dtype=torch.uint8)
    noisy, _ = apply(images, labels, replace(plain, noise=torch.tensor([0.5, 0.5])), (64, 64))
    assert abs(noisy.std() - 0.5) < 0.02
    assert abs(torch.corrcoef(noisy.view(4, -1)) - torch.eye(4)).max() < 0.1


def test_crops_are_windows_of_the_source():
    how, patch = Augment(crop=0.5), (4, 6)
    assert source_size(patch, how, (1, 1)) == (8, 12)
    image = torch.arange(96.0).view(1, 1, 8, 12)
    starts = set()
    for seed in range(300):
        out, labels = apply(image, image[:, 0].int(), draw(how, 1, patch, (1, 1), generator(seed)), patch)
        row, column = divmod(int(out[0, 0, 0, 0]), 12)
        starts.add((row, column))
        assert torch.equal(out[0, 0], image[0, 0, row : row + 4, column : column + 6])
        assert torch.equal(labels[0], out[0, 0].int())
    assert starts == {(row, column) for row in range(5) for column in range(7)}


def test_bending_finds_real_voxels_and_never_folds():
    how = Augment(elastic=1, bend=6.4, bend_grid=16)
    patch = (20, 24, 24)
    assert source_size(patch, how, (2, 1, 1)) == (
        27,
        36,
        36,
    )  # 20 + 2·6.4/2; 24 + 2·6.4 is more than half as much again
    for seed in range(10):
        drawn = draw(how, 1, patch, (2, 1, 1), generator(seed))
        moved = augment_space.Move(torch.eye(3).tolist(), [0.0] * 3, drawn.bend[0], drawn.lattice[0].tolist())
        places = augment_space._Places.of(moved, patch, (1000,) * 3, torch.device("cpu")).at()
        for axis, along in enumerate(places):
            assert along.diff(dim=axis).min() > 0
    assert drawn.bend.abs().max() > 1


FIELDS = {
    "flip": {"flip": ("y",)},
    "crop": {"crop": 0.2},
    "rotate": {"affine": 1, "rotate": (20, 0, 0)},
    "scale": {"affine": 1, "scale": (0.8, 0.9)},
    "stretch": {"affine": 1, "stretch": (0.7, 1.3)},
    "shift": {"affine": 1, "shift": 0.2},
    "elastic": {"elastic": 1, "bend": 3, "bend_grid": 8},
    "blur": {"intensity": 1, "blur": (0.5, 1)},
    "low_resolution": {"intensity": 1, "low_resolution": (0.5, 0.6)},
    "noise": {"intensity": 1, "noise": 0.3},
    "brightness": {"intensity": 1, "brightness": 0.3},
    "contrast": {"intensity": 1, "contrast": (0.5, 0.7)},
    "gamma": {"intensity": 1, "gamma": (0.5, 0.7)},
    "gamma_mirrored": {"chance": {"gamma": 1}, "gamma": (0.5, 0.7), "gamma_mirrored": 1},
}


@pytest.mark.parametrize("name", FIELDS)
def test_each_field_changes_something(name):
    how, patch = Augment(**FIELDS[name]), (10, 12)
    images, labels = batch(2, source_size(patch, how, (1, 1)), patches=8)
    still = apply(images, labels, draw(Augment(), 8, patch, (1, 1), generator()), patch)
    image, label = apply(images, labels, draw(how, 8, patch, (1, 1), generator()), patch)
    assert not torch.equal(image, still[0])
    assert torch.equal(label, still[1]) == (list(FIELDS).index(name) > 6)  # labels follow space, not values


def test_mirroring_matters():
    images, labels = batch(2, (10, 12))
    there, back = ({**FIELDS["gamma_mirrored"], "gamma_mirrored": share} for share in (0, 1))
    results = [
        apply(images, labels, draw(Augment(**how), 2, (10, 12), (1, 1), generator()), (10, 12))[0]
        for how in (there, back)
    ]
    assert not torch.equal(*results)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"affine": 1}, "widen one or set affine to 0"),
        ({"elastic": 0.5}, "set bend"),
        ({"elastic": 0.5, "bend": 9, "bend_grid": 20}, "at most 8, or set bend_grid to 22.5"),
        ({"intensity": 0.5}, "allow no change"),
        ({"chance": {"blur": 0.5}}, "chance names blur"),
        ({"chance": {"sharpen": 0.5}}, "sharpen"),
        ({"gamma_mirrored": 0.5}, "widen gamma"),
        ({"blur": (2, 1)}, "low to high"),
        ({"low_resolution": (0.9, 0.5)}, "low to high"),
        ({"low_resolution": (0.5, 1.5)}, "less than or equal to 1"),
        ({"stretch": (1.2, 0.8)}, "low to high"),
    ],
)
def test_contradictions_are_refused(how, says):
    with pytest.raises(ValidationError, match=says):
        Augment(**how)


def test_a_change_may_have_its_own_probability():
    how = Augment(intensity=0.5, chance={"noise": 0.0, "blur": 1.0}, noise=0.3, blur=(0.5, 1), brightness=0.4)
    drawn = draw(how, 400, (4, 4), (1, 1), generator())
    assert not drawn.noise.any()
    assert (drawn.blur >= 0.5).all()
    assert 150 < (drawn.brightness != 0).sum() < 250


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    low=st.floats(0.2, 1),
    high=st.floats(1, 3),
    strength=st.floats(0.01, 4),
    spacing=st.sampled_from([(1.0, 1.0), (5.0, 1.0, 1.0), (0.5, 0.7, 0.7)]),
)
def test_what_is_drawn_lies_within_its_range(seed, low, high, strength, spacing):
    ranges = {"scale": (low, high), "contrast": (low, high), "gamma": (low, high), "blur": (low, high)}
    how = Augment(
        **ranges, affine=1, intensity=1, noise=strength, brightness=strength, low_resolution=(low, 1), shift=low,
        elastic=1, bend=strength, bend_grid=10,
    )  # fmt: skip
    patch, dims = (6, 8, 10)[-len(spacing) :], len(spacing)
    drawn = draw(how, 5, patch, spacing, generator(seed))
    zoom = 1 / drawn.matrix.diagonal(dim1=1, dim2=2)
    edges = torch.tensor(spacing)
    limits = [
        (zoom, low, high),
        (drawn.contrast, low, high),
        (drawn.gamma, low, high),
        (drawn.blur * edges / edges.min(), low, high),
        (drawn.low_resolution[:, edges.argmin()], low, 1),
        (drawn.noise, 0, strength),
        (drawn.brightness, -strength, strength),
        (drawn.shift / torch.tensor(patch), -low, low),
        (drawn.bend * edges.view(-1, *[1] * dims), -strength, strength),
    ]
    for values, least, most in limits:
        assert values.min() >= least - 1e-5
        assert values.max() <= most + 1e-5


@pytest.mark.parametrize("axes", [(0,), (2,), (0, 1, 2)])
def test_mirroring_in_parts_is_mirroring(axes, monkeypatch):
    monkeypatch.setattr(augment_space, "AT_ONCE", 40)  # two rows of 20 voxels at a time, and one left over
    images, labels = batch(3, (7, 6, 5), patches=1)
    signs = torch.tensor([-1.0 if axis in axes else 1.0 for axis in range(3)])
    plain = draw(Augment(), 1, (5, 4, 5), (1, 1, 1), generator())
    image, label = apply(images, labels, place(plain, matrix=signs.diag()), (5, 4, 5))
    window = images[:, :, 1:6, 1:5]
    assert torch.equal(image, window.flip([2 + axis for axis in axes]))
    assert torch.equal(label, labels[:, 1:6, 1:5].flip([1 + axis for axis in axes]))

from __future__ import annotations

import pytest
import torch

from attentus.recipes import Augment
from attentus.transforms.augment import apply, draw, source_size

EVERYTHING = Augment(
    flip=("z", "y", "x"),
    affine=1.0,
    rotate=(30, 20, 10),
    scale=(0.7, 1.4),
    shift=0.1,
    intensity=0.5,
    noise=0.2,
    brightness=0.5,
    contrast=(0.5, 2.0),
    gamma=(0.5, 2.0),
)


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
    how = EVERYTHING if dims == 3 else EVERYTHING.model_copy(update={"rotate": (30.0, 0.0, 0.0), "flip": ("y", "x")})
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


def test_a_batch_is_its_patches():
    """Each patch is changed by its own draw and nothing else (noise, drawn for the whole batch, aside)."""
    how = EVERYTHING.model_copy(update={"noise": 0.0})
    patch = (8, 12, 10)
    images, labels = batch(3, source_size(patch, how, (1, 1, 1)), patches=3)
    drawn = draw(how, 3, patch, (1, 1, 1), generator())
    together = apply(images, labels, drawn, patch)
    swapped = apply(images.flip(0), labels.flip(0), _pick(drawn, [2, 1, 0]), patch)
    torch.testing.assert_close(together[0], swapped[0].flip(0))


def _pick(drawn, order):
    from dataclasses import fields, replace

    return replace(drawn, **{f.name: getattr(drawn, f.name)[order] for f in fields(drawn) if f.name != "noise_seed"})


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
    from dataclasses import replace

    from attentus.transforms.augment import _rotation

    return replace(drawn, matrix=_rotation(torch.tensor([90.0, 0.0, 0.0]), spacing)[None])


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
    from dataclasses import replace

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

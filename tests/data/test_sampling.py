"""Where patches come from: what a recipe's `sampling` says, counted on scans whose voxels say where they are."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import make
import numpy as np
import pytest

from attentus.data.patches import PatchSampler
from attentus.errors import BadInput
from attentus.recipes import Sampling
from attentus.types import Grid

LIVER, TUMOUR, SPLEEN = 1, 2, 3
MEMBERS = {"liver": (LIVER,), "tumour": (TUMOUR,), "spleen": (SPLEEN,)}


@dataclass(eq=False)
class Made:
    """A prepared case in memory; its image holds the label of every voxel."""

    id: str
    labels: np.ndarray

    def __post_init__(self):
        self.image = self.labels[None].astype(np.float32)
        self.grid = Grid(self.labels.shape, (1.0, 1.0, 1.0))
        self.outside = (-1.0,)
        places = np.argwhere(self.labels)
        self.points = np.concatenate([self.labels[tuple(places.T)][:, None], places], axis=1).astype(np.int32)


def scan(tumour=True, spleen=False, liver=True):
    labels = np.zeros((20, 20, 20), np.uint8)
    if liver:
        labels[4:12, 4:16, 4:16] = LIVER
    if tumour:
        labels[7:9, 8:10, 8:10] = TUMOUR
    if spleen:
        labels[15:17, 2:4, 2:4] = SPLEEN
    return labels


def sampler(scans, *, size=(1, 1, 1), dims=3, batch=10, seed=0, patch=None, **how):
    cases = [Made(f"case{k}", labels) for k, labels in enumerate(scans)]
    return PatchSampler(cases, size, dims, batch, seed, Sampling(**{"jitter": 0.0, **how}), MEMBERS, patch)


def seen(cutter, batches=60):
    """How often each label is a patch's only voxel."""
    found = np.concatenate([cutter.cut(number).labels.ravel() for number in range(batches)])
    return {label: share / len(found) for label, share in Counter(found.tolist()).items()}


def test_a_patch_per_structure_and_turn():
    shares = seen(sampler([scan(spleen=True)], foreground=1.0))
    assert shares.keys() == {LIVER, TUMOUR, SPLEEN}  # although the tumour is 1/140 of the liver
    assert all(share == pytest.approx(1 / 3, abs=0.07) for share in shares.values())


def test_only_some_structures_and_their_surroundings():
    how = {"foreground": 0.86, "structures": ("tumour",), "within": ("liver",)}
    shares = seen(sampler([scan(spleen=True)], **how))
    assert shares.keys() == {LIVER, TUMOUR}
    assert shares[TUMOUR] == pytest.approx(0.86, abs=0.03)


def test_within_includes_nothing_of_the_structures_themselves():
    shares = seen(sampler([scan()], foreground=0.0, structures=("tumour",), within=("liver", "tumour")))
    assert shares == {LIVER: 1.0}


def test_a_case_without_the_structure_gives_patches_from_anywhere():
    shares = seen(sampler([scan(tumour=False)], foreground=1.0, structures=("tumour",)))
    assert shares[0] == pytest.approx(1 - 8 * 12 * 12 / 8000, abs=0.05)


@pytest.mark.parametrize("jitter", [0.0, 0.5, 1.0])
def test_jitter_is_a_share_of_half_the_patch(jitter):
    labels = np.zeros((40, 40, 40), np.uint8)
    labels[20, 20, 20] = TUMOUR
    cutter = sampler([labels], size=(8, 8, 8), foreground=1.0, structures=("tumour",), jitter=jitter)
    offsets = np.array([place.start for number in range(60) for place in cutter.places(number)]) - (20 - 4)
    reach = int(4 * jitter)
    assert np.abs(offsets).max() == reach
    assert {*offsets[:, 0]} == {*range(-reach, reach + 1)}


def starts(cutter, batches=200):
    """First voxels of all patches, (n, 3)."""
    return np.array([place.start for number in range(batches) for place in cutter.places(number)])


def test_patches_from_anywhere_do_not_pile_up_at_the_borders():
    found = starts(sampler([scan()], size=(16, 8, 20), foreground=0.0))
    for axis, places in ((0, 5), (1, 13), (2, 1)):
        shares = np.bincount(found[:, axis], minlength=places) / len(found)
        assert shares == pytest.approx(np.full(places, 1 / places), abs=0.04)


def test_what_is_cut_for_augmentation_may_reach_beyond_the_scan_but_its_patch_does_not():
    """However much augmentation asks for, the patch in its middle comes to every corner."""
    found = starts(sampler([scan()], size=(24, 17, 30), patch=(16, 12, 20), foreground=0.0))
    assert [{*found[:, axis].tolist()} for axis in range(3)] == [{*range(-4, 1)}, {*range(-3, 6)}, {-5}]


def test_a_structure_at_the_border_is_cut_with_the_patch_inside_the_scan():
    labels = np.zeros((20, 20, 20), np.uint8)
    labels[0, 10, 19] = TUMOUR
    cutter = sampler([labels], size=(12, 12, 12), patch=(8, 8, 8), foreground=1.0, structures=("tumour",))
    assert {place.start for place in cutter.places(0)} == {(-2, 4, 10)}
    assert (cutter.cut(0).images[:, 0, :2] == -1).all()  # what lies outside


def test_rare_structures_are_seen_as_often_as_others_when_balanced():
    scans = [scan()] * 9 + [scan(spleen=True)]
    usual = seen(sampler(scans, foreground=1.0))
    balanced = seen(sampler(scans, foreground=1.0, cases="balanced"))
    assert usual[SPLEEN] < 0.1
    assert balanced[SPLEEN] == pytest.approx(1 / 3, abs=0.07)


def test_cases_without_a_structure_can_be_left_out():
    cutter = sampler([scan(tumour=False), scan(), scan(tumour=False)], only_with=("tumour",))
    assert len(cutter) == 1
    assert {case for number in range(9) for case, _ in cutter.cut(number).origin} == {"case1"}
    with pytest.raises(BadInput, match=r"no case with spleen \(sampling\.only_with\) to train on"):
        sampler([scan()], only_with=("spleen",))


def slices(cutter, batches=80):
    return {place.start[0] for number in range(batches) for place in cutter.places(number)}


def test_a_third_of_the_empty_slices_takes_part():
    cutter = sampler([scan()], size=(1, 20, 20), dims=2, foreground=0.0, empty_slices=1 / 3)
    drawn = slices(cutter)
    assert drawn >= set(range(4, 12))  # all that hold liver
    assert len(drawn) == 8 + 4  # and a third of the twelve others
    again = sampler([scan()], size=(1, 20, 20), dims=2, foreground=0.0, empty_slices=1 / 3)
    assert slices(again) == drawn
    other = sampler([scan()], size=(1, 20, 20), dims=2, foreground=0.0, empty_slices=1 / 3, seed=1)
    assert slices(other) != drawn


def test_only_slices_with_a_structure():
    cutter = sampler([scan(), scan(tumour=False)], size=(1, 20, 20), dims=2, foreground=0.0, only_with=("tumour",))
    assert slices(cutter) == {7, 8}


@pytest.mark.parametrize("ranks", [2, 5])
def test_processes_share_a_batch(ranks):
    cutter = sampler([scan(spleen=True), scan()], size=(4, 5, 6))
    whole = cutter.cut(3)
    shares = [cutter.cut(3, rank, ranks) for rank in range(ranks)]
    np.testing.assert_array_equal(np.concatenate([share.images for share in shares]), whole.images)
    assert [origin for share in shares for origin in share.origin] == whole.origin


def test_patches_lie_in_labels_that_are_not_segmented(tmp_path):
    """RA-UNet's third stage learns tumours alone, and looks at the liver around them."""
    from attentus import Dataset
    from attentus.data.cache import prepare_cases
    from attentus.data.resolve import context, members, resolve
    from attentus.errors import RecipeError

    dataset = Dataset.open(make.dataset(tmp_path / "data", cases=2))
    recipe = make.recipe(labels=["core"], sampling__within=["shell"], sampling__foreground=0)
    ready, _ = prepare_cases(dataset, resolve(recipe, dataset), tmp_path / "cache")
    how = recipe.sampling.model_copy(update={"jitter": 0.0})
    sampler = PatchSampler(ready, (1, 1, 1), 3, 8, 0, how, members(recipe), context=context(recipe))
    for number in range(5):
        for place in sampler.places(number):
            assert (ready[place.case].image[(0, *place.start)]) < -0.5, "in the dark box"
            assert ready[place.case].labels[place.start] == 0, "which is background to the net"
    with pytest.raises(RecipeError, match=r"sampling.within: neither a structure nor a label of the dataset is 'shel'"):
        resolve(make.recipe(labels=["core"], sampling__within=["shel"]), dataset)

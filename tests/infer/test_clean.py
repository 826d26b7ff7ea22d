"""Post-processing of label maps: what each rule takes and gives, in which order, and what never happens."""

from __future__ import annotations

import make
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from attentus import Dataset
from attentus.data.resolve import resolve, values_in
from attentus.errors import RecipeError
from attentus.infer.clean import Nest, clean, enclosed
from attentus.recipes import Clean
from attentus.transforms.prepare import decide

ORGANS = {"liver": 1, "tumour": 2}
REGIONS = {"names": {"WT": 2, "TC": 1, "ET": 4}, "values": {"WT": (2, 1, 4), "TC": (1, 4), "ET": (4,)}}


def row(text: str) -> np.ndarray:
    """One line of digits as a volume; dots are background."""
    return np.array([[[0 if c == "." else int(c) for c in line] for line in text.split()]], np.uint8)


def cleaned(labels, names=ORGANS, values=None, spacing=(1.0, 1.0, 1.0), **how):
    """A cleaned copy as text, and what changed."""
    labels = labels.copy() if isinstance(labels, np.ndarray) else row(labels)
    changes = clean(labels, spacing, {name: Clean(**rule) for name, rule in how.items()}, names, values)
    return " ".join("".join(str(v) if v else "." for v in line) for line in labels[0]), changes


@pytest.mark.parametrize(
    ("before", "how", "after"),
    [
        ("11.111.1", {"liver": {"largest": True}}, "...111.."),
        ("11.11..1", {"liver": {"largest": True}}, "11......"),  # of equal ones the first
        ("11.111.1", {"liver": {"min_ml": 0.002}}, "11.111.."),  # 2 voxels of a microlitre stay
        ("11.111.1", {"liver": {"min_ml": 0.0021}}, "...111.."),
        ("11.122.1", {"liver": {"largest": True}}, "11..22.."),  # the tumour is something else
        ("11.122.1", {"liver": {"largest": True}, "tumour": {"inside": "liver"}}, "...122.."),  # now it is of the liver
        ("11.1.222", {"tumour": {"inside": "liver"}}, "11.1...."),  # nothing of the liver itself
        ("111.2222", {"liver": {"largest": True}, "tumour": {"inside": "liver"}}, "111....."),
        ("112111.2", {"tumour": {"min_ml": 0.002}}, "11.111.."),
        ("112111.2", {"tumour": {"min_ml": 0.002, "inside": "liver"}}, "111111.."),
        ("112111.2", {"tumour": {"min_ml": 0.002, "becomes": "liver"}}, "111111.1"),
        ("112111.2", {"tumour": {"min_ml": 0.002, "becomes": "background", "inside": "liver"}}, "11.111.."),
    ],
)
def test_components_by_hand(before, how, after):
    assert cleaned(before, **how)[0] == after


@pytest.mark.parametrize(
    ("connectivity", "after"),
    [("corners", "1. .1 .1"), ("edges", "1. .1 .1"), ("faces", ".. .1 .1")],
)
def test_neighbours_in_a_slice(connectivity, after):
    assert cleaned("1. .1 .1", liver={"largest": True, "connectivity": connectivity})[0] == after


@pytest.mark.parametrize(("connectivity", "left"), [("corners", 3), ("edges", 2), ("faces", 1)])
def test_neighbours_in_a_volume(connectivity, left):
    labels = np.zeros((3, 3, 3), np.uint16)
    labels[0, 0, 0] = labels[1, 1, 1] = labels[1, 2, 2] = 300  # over a corner, then over an edge
    clean(labels, (1, 1, 1), {"x": Clean(largest=True, connectivity=connectivity)}, {"x": 300})
    assert (labels == 300).sum() == left


@pytest.mark.parametrize("shape", [(1, 1, 5), (1, 5, 1), (5, 1, 1)])
def test_a_row_of_voxels(shape):
    labels = np.array([1, 0, 1, 0, 1], np.uint8).reshape(shape)
    clean(labels, (1, 1, 1), {"x": Clean(largest=True)}, {"x": 1})
    assert labels.ravel().tolist() == [1, 0, 0, 0, 0]


RING = "11111 1...1 1.2.1 1...1 11111"


@pytest.mark.parametrize(
    ("how", "after"),
    [
        ({"liver": {"fill_holes": True}}, "11111 11111 11211 11111 11111"),  # another structure stays
        ({"liver": {"fill_holes": True}, "tumour": {"min_ml": 0.002}}, "11111 11111 11111 11111 11111"),
        ({"tumour": {"fill_holes": True}}, RING),
        ({"tumour": {"inside": "liver"}}, "11111 1...1 1...1 1...1 11111"),
    ],
)
def test_holes_in_a_slice(how, after):
    assert cleaned(RING, **how)[0] == after


def test_a_hole_in_a_tumour_is_tumour_where_it_was_liver():
    how = {"tumour": {"inside": "liver", "fill_holes": True}}
    assert cleaned("1111. 12221 12121 12221 1111.", **how)[0] == "1111. 12221 12221 12221 1111."
    del how["tumour"]["inside"]
    assert cleaned("1111. 12221 12121 12221 1111.", **how)[0] == "1111. 12221 12121 12221 1111."


def test_holes_in_a_volume_and_in_its_slices():
    labels = np.ones((5, 5, 5), np.uint8)
    labels[1:4, 2, 2] = 0  # closed
    labels[:, 1, 1] = 0  # open at both ends
    closed, slices = labels.copy(), labels.copy()
    clean(closed, (1, 1, 1), {"x": Clean(fill_holes=True)}, {"x": 1})
    assert np.argwhere(closed == 0).tolist() == [[k, 1, 1] for k in range(5)]
    clean(slices, (1, 1, 1), {"x": Clean(fill_holes="slices")}, {"x": 1})
    assert slices.all()
    labels[:, 1, 0] = 0  # open to the scan's side
    clean(labels, (1, 1, 1), {"x": Clean(fill_holes="slices")}, {"x": 1})
    assert (labels == 0).sum() == 10


def test_holes_are_those_of_scipy():
    from scipy.ndimage import binary_fill_holes

    mask = np.random.default_rng(0).random((9, 10, 11)) > 0.35
    np.testing.assert_array_equal(enclosed(mask, (0, 1, 2)), binary_fill_holes(mask) & ~mask)


@pytest.mark.parametrize(
    ("before", "how", "after"),
    [
        ("2211422.4", {"WT": {"largest": True}}, "2211422.."),  # all of it counts
        ("2211422.4", {"ET": {"largest": True}}, "2211422.1"),  # what is no core's inside is core
        ("2411422.4", {"ET": {"min_ml": 0.002}}, "2111122.1"),
        ("2411422.4", {"ET": {"inside": "TC"}}, "2411422.2"),  # what is no core is what lies around cores
        ("2442.1142", {"ET": {"inside": "TC"}, "TC": {"becomes": "background"}}, "2..2.1142"),
        ("2.44.1142", {"TC": {"largest": True}}, "2.22.1142"),
        ("2.44.1142", {"TC": {"largest": True, "becomes": "background"}}, "2....1142"),
    ],
)
def test_regions_by_hand(before, how, after):
    assert cleaned(before, **REGIONS, **how)[0] == after


def test_it_tells_what_changed():
    _, changes = cleaned("112111.2", spacing=(10, 10, 10), tumour={"min_ml": 1.5, "inside": "liver"})
    assert changes.removed_ml == {"tumour": 2.0}  # one into the liver, one into nothing
    assert changes.added_ml == {"liver": 1.0}
    _, changes = cleaned("2211422.4", **REGIONS, WT={"largest": True}, spacing=(10, 10, 20))
    assert changes.removed_ml == {"WT": 2.0, "TC": 2.0, "ET": 2.0}
    _, changes = cleaned("2211422", **REGIONS, TC={"largest": True})
    assert (changes.removed_ml, changes.added_ml) == ({}, {})


def test_nothing_to_do_and_nothing_there():
    assert cleaned("....")[0] == "...."
    assert cleaned("....", liver={"largest": True, "fill_holes": True}, tumour={"inside": "liver"})[0] == "...."
    how = {"liver": {"min_ml": 1}, "tumour": {"inside": "liver", "largest": True, "fill_holes": "slices"}}
    assert cleaned("12.1", **how)[0] == "...."  # all of it goes in the liver's turn


def test_outer_ones_come_first_however_they_are_listed():
    how = {"tumour": Clean(inside="liver"), "liver": Clean(inside="body"), "vessel": Clean(inside="liver")}
    own = {"tumour": 3, "vessel": 4, "body": 1, "liver": 2}
    nest = Nest(own, {name: (value,) for name, value in own.items()}, how)
    assert nest.outwards() == ["body", "liver", "tumour", "vessel"]
    assert nest.whole("body") == [1, 2, 3, 4]
    assert nest.around("tumour") == {"liver", "body"}


RULES = st.fixed_dictionaries(
    {},
    optional={
        "min_ml": st.sampled_from([0.002, 0.003, 0.005]),
        "largest": st.booleans(),
        "connectivity": st.sampled_from(["faces", "edges", "corners"]),
    },
)
MAPS = arrays(
    np.uint8,
    st.sampled_from([(1, 6, 7), (4, 5, 6)]),
    elements=st.sampled_from([0, 0, 0, 1, 1, 2, 3]),
    fill=st.nothing(),
)
NAMES = {"liver": 1, "tumour": 2, "spleen": 3}


@st.composite
def rules(draw, *, fill: bool, inside: bool):
    how = {name: dict(draw(RULES)) for name in NAMES}
    if inside and draw(st.booleans()):
        how["tumour"]["inside"] = "liver"
    if fill:
        for rule in how.values():
            rule["fill_holes"] = draw(st.sampled_from([False, True, "slices"]))
    return {name: Clean(**rule) for name, rule in how.items()}


@given(MAPS, rules(fill=False, inside=True))
def test_removing_never_adds_foreground_and_twice_is_once(labels, how):
    once = labels.copy()
    clean(once, (1, 1, 1), how, NAMES)
    assert not (once[labels == 0]).any()
    changed = once != labels
    allowed = (once == 0) | ((labels == 2) & (once == 1) & (how["tumour"].inside is not None))
    assert allowed[changed].all()
    twice = once.copy()
    changes = clean(twice, (1, 1, 1), how, NAMES)
    np.testing.assert_array_equal(twice, once)
    assert (changes.removed_ml, changes.added_ml) == ({}, {})


@given(MAPS, rules(fill=True, inside=False))
def test_filling_too_is_done_once_and_for_all(labels, how):
    once = labels.copy()
    clean(once, (1, 1, 1), how, NAMES)
    assert all(how[name].fill_holes for name, value in NAMES.items() if (once[labels == 0] == value).any())
    twice = once.copy()
    clean(twice, (1, 1, 1), how, NAMES)
    np.testing.assert_array_equal(twice, once)


@given(MAPS, rules(fill=True, inside=True), st.sampled_from([np.uint8, np.uint16]))
def test_volumes_add_up(labels, how, kind):
    before = labels.astype(kind)
    after = before.copy()
    changes = clean(after, (10, 10, 10), how, NAMES)
    for name, value in NAMES.items():
        difference = float((after == value).sum()) - float((before == value).sum())
        assert changes.added_ml.get(name, 0) - changes.removed_ml.get(name, 0) == pytest.approx(difference)


@given(MAPS, rules(fill=True, inside=True))
def test_memory_layout_does_not_matter(labels, how):
    plain, turned = labels.copy(), np.asfortranarray(labels)
    clean(plain, (1, 1, 1), how, NAMES)
    clean(turned, (1, 1, 1), how, NAMES)
    np.testing.assert_array_equal(turned, plain)


def probabilities(*rows):
    """Softmax probabilities of voxels, a row each, as logits (K, 1, 1, voxels)."""
    return np.log(np.array(rows, np.float32)).T[:, None, None] + 3


def test_thresholds_of_classes_by_hand():
    logits = probabilities([0.5, 0.3, 0.2], [0.2, 0.35, 0.45], [0.3, 0.6, 0.1], [0.05, 0.5, 0.45], [0.6, 0.01, 0.39])
    assert decide(logits).ravel().tolist() == [0, 2, 1, 1, 0]
    assert decide(logits, thresholds=[None, None]).ravel().tolist() == [0, 2, 1, 1, 0]
    assert decide(logits, thresholds=[None, 0.4]).ravel().tolist() == [0, 2, 1, 2, 0]
    assert decide(logits, thresholds=[None, 0.5]).ravel().tolist() == [0, 1, 1, 1, 0]
    assert decide(logits, thresholds=[0.55, 0.44]).ravel().tolist() == [0, 2, 1, 2, 0]  # background has no rival left
    assert decide(logits, thresholds=[0.25, 0.4]).ravel().tolist() == [1, 1, 1, 1, 0]  # largest multiple


def test_thresholds_of_regions_by_hand():
    chances = np.array([[0.45, 0.2], [0.55, 0.2], [0.75, 0.65], [0.2, 0.55]], np.float32).T[:, None, None]
    logits = np.log(chances / (1 - chances))
    assert decide(logits, regions=True).ravel().tolist() == [0, 1, 2, 2]
    assert decide(logits, regions=True, thresholds=[0.4, None]).ravel().tolist() == [1, 1, 2, 2]
    assert decide(logits, regions=True, thresholds=[0.6, 0.7]).ravel().tolist() == [0, 0, 1, 0]


@given(arrays(np.float32, (3, 1, 2, 4), elements=st.floats(-20, 20, width=32)), st.floats(0.05, 0.95))
def test_a_threshold_is_a_probability(logits, threshold):
    shares = np.exp(logits.astype(np.float64) - logits.max(0))
    shares /= shares.sum(0)
    clear = np.abs(shares[2] - threshold) > 1e-4
    found = decide(logits, thresholds=[None, threshold])
    np.testing.assert_array_equal((found == 2)[clear], (shares[2] > threshold)[clear])
    np.testing.assert_array_equal(found[found != 2], (logits[1] > logits[0])[found != 2])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"coer": {"largest": True}}, r"infer\.clean\.coer: 'coer' is not among labels\. Did you mean 'core'"),
        ({"core": {"inside": "shel"}}, r"infer\.clean\.core\.inside: 'shel' .*Did you mean 'shell'"),
        ({"core": {"becomes": "nothing"}}, r"infer\.clean\.core\.becomes: 'nothing' is not among"),
        ({"core": {"inside": "core"}}, "core in core is a circle"),
        ({"core": {"inside": "shell"}, "shell": {"inside": "core"}}, "core in shell in core is a circle"),
        ({"core": {"inside": "shell"}, "shell": {"becomes": "core"}}, "'shell' cannot become 'core', which is part"),
        ({"core": {"becomes": "core"}}, "'core' cannot become 'core'"),
        ({"core": {"largst": True}}, r"infer\.clean\.core\.largst: .*Did you mean 'largest'"),
        ({"core": {"threshold": 1.0}}, r"infer\.clean\.core\.threshold: .*less than 1"),
    ],
)
def test_rules_that_cannot_be(tmp_path, how, message):
    with pytest.raises(RecipeError, match=message):
        resolve(make.recipe(infer__clean=how), Dataset.open(make.dataset(tmp_path / "data", cases=3)))


def test_rules_of_regions_point_outwards():
    with pytest.raises(RecipeError, match=r"'inner' comes after 'outer', but with regions outer ones come first"):
        make.recipe(
            regions=True,
            labels={"outer": ["core", "shell"], "inner": ["core"]},
            infer__clean={"outer": {"inside": "inner"}},
        )


def test_a_models_values_are_understood(tmp_path):
    data = Dataset.open(make.dataset(tmp_path / "data", cases=3))
    parts = {"both": ["core", "shell"], "inner": ["core"]}
    recipe = resolve(make.recipe(regions=True, labels=parts, infer__clean={"inner": {"largest": True}}), data)
    names = {s.name: s.value for s in recipe.labels}
    labels = np.array([[[2, 1, 1, 2, 1, 0]]], np.uint8)
    clean(labels, (1, 1, 1), recipe.infer.clean, names, values_in(recipe))
    assert labels.ravel().tolist() == [2, 1, 1, 2, 2, 0]

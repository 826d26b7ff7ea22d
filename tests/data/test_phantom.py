"""Synthetic patients: the same anatomy for a seed whatever the voxels, plausible, and written as real data sets are."""

import json
from functools import cache
from itertools import product

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from attentus.data.phantom import abdomen, brain, write_dataset
from attentus.data.phantom import shapes as s
from attentus.data.phantom.abdomen import KIND, LABELS, STREAMS, Patient
from attentus.data.phantom.canvas import Canvas
from attentus.data.phantom.contrast import ENHANCING, PHASES, Contrast
from attentus.data.phantom.result import streams
from attentus.data.phantom.scan import Scan
from attentus.data.phantom.texture import Grain, Waves
from attentus.data.phantom.trees import grow
from attentus.data.phantom.trunk import Body
from attentus.data.phantom.tumours import Tumour
from attentus.errors import BadInput, UnknownName
from attentus.types import Grid

SEEDS = (2, 3, 7, 9, 16, 18)
"""Patients whose scan shows the whole abdomen."""


@cache
def ct(seed):
    return abdomen(seed, spacing=(2.5, 4.0, 4.0))


@cache
def coarse_ct(seed):
    return abdomen(seed, spacing=(5.0, 5.0, 5.0))


@cache
def mr(seed):
    return brain(seed, spacing=(2.0, 2.0, 2.0))


def mask(phantom, *names):
    return np.isin(phantom.labels.array[0], [LABELS[name] for name in names])


def millilitres(phantom, *names):
    return mask(phantom, *names).sum() * phantom.labels.grid.voxel_ml


def centre(phantom, name):
    """Mean position (L, P, S), mm."""
    return phantom.labels.grid.world(np.argwhere(mask(phantom, name)).mean(axis=0))


def seed_of(phase):
    return next(n for n in range(50) if Contrast.draw(streams(n, KIND, STREAMS)["contrast"]).phase == phase)


# Reproducible


@pytest.mark.parametrize("draw", [abdomen, brain])
def test_a_seed_gives_the_same_scan_bit_for_bit_and_another_seed_another(draw):
    first, again, other = draw(4, coarse=8), draw(4, coarse=8), draw(5, coarse=8)
    assert np.array_equal(first.image.array, again.image.array)
    assert np.array_equal(first.labels.array, again.labels.array)
    assert first.image.grid == again.image.grid
    assert first.facts == again.facts
    size = [min(a, b) for a, b in zip(first.image.grid.shape, other.image.grid.shape, strict=True)]
    crop = (slice(None), *map(slice, size))
    assert not np.array_equal(first.image.array[crop], other.image.array[crop])
    assert not np.array_equal(first.labels.array[crop], other.labels.array[crop])


@pytest.mark.parametrize("organ", ["liver", "spleen", "right kidney", "left kidney", "pancreas", "aorta"])
def test_another_spacing_shows_the_same_patient(organ):
    fine, coarse = ct(7), coarse_ct(7)
    assert millilitres(coarse, organ) == pytest.approx(millilitres(fine, organ), rel=0.06)
    assert centre(coarse, organ) == pytest.approx(centre(fine, organ), abs=1.5)
    assert coarse.facts == fine.facts


def test_coarse_multiplies_the_voxel_size_over_the_same_field_of_view():
    fine, coarse = ct(7), abdomen(7, spacing=(2.5, 4.0, 4.0), coarse=4)
    assert coarse.image.grid.spacing == pytest.approx([4 * n for n in fine.image.grid.spacing], rel=0.04)
    assert coarse.image.grid.size_mm == pytest.approx(fine.image.grid.size_mm)
    corner = fine.image.grid.world((-0.5, -0.5, -0.5))
    assert coarse.image.grid.world((-0.5, -0.5, -0.5)) == pytest.approx(corner)


def test_the_anatomy_does_not_depend_on_how_the_slices_are_cut_into_slabs(monkeypatch):
    usual = abdomen(3, coarse=5)
    monkeypatch.setattr("attentus.data.phantom.scan.SLAB", 20_000)
    sliced = abdomen(3, coarse=5)
    assert np.mean(usual.labels.array != sliced.labels.array) < 1e-4
    assert np.mean(usual.image.array != sliced.image.array) < 0.01


@pytest.mark.parametrize("draw", [abdomen, brain])
@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 1.5}, {"seed": 1, "coarse": 0}, {"seed": 1, "coarse": -2}])
def test_numbers_that_make_no_sense_are_refused(draw, wrong):
    with pytest.raises(BadInput, match=r"seed|coarse"):
        draw(**wrong)


# Anatomy of the abdomen


@pytest.mark.parametrize("seed", SEEDS)
def test_left_is_left_and_up_is_up(seed):
    scan = ct(seed)
    liver, spleen, right, left, pancreas, aorta = (
        centre(scan, n) for n in ("liver", "spleen", "right kidney", "left kidney", "pancreas", "aorta")
    )
    assert liver[0] < aorta[0] - 40
    assert right[0] < aorta[0] - 40 < aorta[0] + 30 < left[0] < spleen[0]
    assert liver[2] > right[2]
    assert spleen[2] > left[2]
    assert left[2] > right[2] - 12
    assert pancreas[1] < min(right[1], left[1])
    lungs = (scan.image.array[0] < -700) & ndimage.binary_fill_holes(scan.image.array[0] > -250, np.ones((1, 3, 3)))
    heights = scan.image.grid.world(np.argwhere(ndimage.binary_opening(lungs, iterations=2)))[:, 2]
    assert np.median(heights) > liver[2]


PLAUSIBLE_ML = {
    "liver": (850, 2500),
    "spleen": (70, 500),
    "right kidney": (80, 300),
    "left kidney": (80, 300),
    "pancreas": (28, 150),
    "aorta": (35, 170),
}


@pytest.mark.parametrize("organ", PLAUSIBLE_ML)
@pytest.mark.parametrize("seed", SEEDS)
def test_volumes_are_those_of_adults(seed, organ):
    low, high = PLAUSIBLE_ML[organ]
    names = ("liver", "liver tumour") if organ == "liver" else (organ,)
    assert low < millilitres(ct(seed), *names) < high


@pytest.mark.parametrize("organ", ["spleen", "right kidney", "left kidney", "aorta"])
@pytest.mark.parametrize("seed", SEEDS)
def test_an_organ_is_in_one_piece(seed, organ):
    pieces, _ = ndimage.label(mask(ct(seed), organ), np.ones((3, 3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    assert sizes.max() > 0.995 * sizes.sum()


def test_no_two_patients_are_alike():
    sizes = [millilitres(ct(seed), "liver", "liver tumour") for seed in SEEDS]
    assert np.std(sizes) > 100
    places = np.array([centre(ct(seed), "left kidney") - centre(ct(seed), "aorta") for seed in SEEDS])
    assert (places.std(axis=0) > 1.5).all()


@pytest.mark.parametrize("phase", PHASES)
def test_tissues_have_the_density_of_the_phase(phase):
    scan = ct(seed_of(phase))
    assert scan.facts["phase"] == phase
    expected = {name: row[PHASES.index(phase)] for name, row in ENHANCING.items()}
    for organ, tissue, tolerance in (("liver", "liver", 32), ("spleen", "spleen", 20), ("aorta", "artery", 50)):
        deep = ndimage.binary_erosion(mask(scan, organ))
        assert np.median(scan.image.array[0][deep]) == pytest.approx(expected[tissue], abs=tolerance), organ


def test_phases_look_different():
    aorta = {p: np.median(ct(seed_of(p)).image.array[0][mask(ct(seed_of(p)), "aorta")]) for p in PHASES}
    assert aorta["arterial"] > 200 > aorta["portal"] > aorta["delayed"] - 20 > aorta["native"] + 20


def test_units_are_whole_numbers_that_fit_a_ct_file():
    scan = ct(2)
    assert scan.image.array.dtype == np.float32
    assert scan.labels.array.dtype == np.uint8
    assert np.array_equal(scan.image.array, np.rint(scan.image.array))
    assert scan.image.array.min() >= -1024
    assert 500 < scan.image.array.max() <= 3071
    assert np.median(scan.image.array[0, :, 0]) == pytest.approx(-1000, abs=10)


def test_thick_voxels_blur_the_surface_of_the_lungs():
    """Air to tissue takes a step of 900 units: voxels on the border lie in between, voxels deep inside do not."""
    image = ct(9).image.array[0]
    between = (image > -750) & (image < -300)
    tissue = ndimage.binary_opening(image > -250, iterations=2)
    border = ndimage.binary_dilation(tissue) & ndimage.binary_dilation(image < -800) & ~ndimage.binary_erosion(tissue)
    assert between[border].mean() > 0.15
    assert between[ndimage.binary_erosion(tissue)].mean() < 0.01


def test_noise_is_stronger_in_thin_slices():
    rng = streams(3, KIND, STREAMS)
    body = Body.draw(rng["body"])
    scan = Scan.draw(rng["scan"], body)
    thick, thin = (
        scan.noise(Grid((9, 80, 80), (step, 2.0, 2.0)), body, np.random.default_rng(0)) for step in (6.0, 2.0)
    )
    assert 4 < thick[:, 30:50, 30:50].std() < thin[:, 30:50, 30:50].std() < 30
    assert thin[:, :10, :10].std() < thin[:, 30:50, 30:50].std()


def test_fields_of_view_differ_as_in_a_cohort_of_patients():
    grids, cut = [], 0
    for seed in range(40):
        rng = streams(seed, KIND, STREAMS)
        body = Body.draw(rng["body"])
        scan = Scan.draw(rng["scan"], body)
        grids.append(scan.grid)
        top = scan.grid.origin[2] + scan.grid.size_mm[0]
        cut += top < scan.pose.offset[2] + body.stature * body.right_dome
    assert {g.spacing[0] for g in grids} >= {1.5, 2.0, 2.5, 3.0, 5.0}
    assert all(1.1 < g.spacing[1] < 2.2 and 25 < g.shape[0] < 200 and g.shape[1:] == (256, 256) for g in grids)
    assert 1 <= cut <= 15  # some scans begin below the top of the liver


# Tumours of the liver


def test_some_patients_have_no_tumour_and_some_have_many():
    counts = []
    for seed in range(20):
        rng = streams(seed, KIND, STREAMS)
        counts.append(len(Patient.draw(rng, Body.draw(rng["body"])).liver.tumours))
    assert 0 in counts
    assert max(counts) > 5
    assert max(counts) <= 10


@pytest.mark.parametrize("seed", SEEDS)
def test_tumours_lie_in_the_liver(seed):
    scan = ct(seed)
    tumour = mask(scan, "liver tumour")
    around = ndimage.binary_dilation(tumour) & ~tumour
    if not tumour.any():
        assert not [t for t in scan.facts["tumours"] if t["diameter_mm"] > 12]
        return
    assert mask(scan, "liver")[around].mean() > 0.6
    assert not mask(scan, "spleen", "right kidney", "left kidney", "pancreas", "aorta")[around].any()


def test_a_tumour_ends_where_the_liver_ends():
    z, y, x = np.meshgrid(*[np.arange(-20, 21, 2, dtype=np.float32)] * 3, indexing="ij")
    at = s.Points.of(x, y, z)
    canvas = Canvas.blank(at, at, np.zeros(x.shape[1:], np.float32), 2.0)
    tumour = Tumour("metastasis", (0, 0, 0), 12, (1, 1, 1), np.eye(3), 0.0, -40.0, 0.0, 0.0)
    tumour.paint(canvas, s.plane(at, (4, 0, 0), (1, 0, 0)), 100.0, Grain.draw(np.random.default_rng(0)))
    inside = canvas.labels == LABELS["liver tumour"]
    assert inside.any()
    assert x[inside].max() < 4
    assert x[inside].min() < -8
    assert canvas.values[10, 10, 10] == pytest.approx(60)


def test_facts_say_where_the_tumours_are():
    found = 0
    for seed in SEEDS:
        scan = ct(seed)
        for tumour in scan.facts["tumours"]:
            index = np.rint(scan.labels.grid.index(tumour["centre_mm"])).astype(int)
            if tumour["diameter_mm"] > 9 and 0 < index[0] < scan.labels.grid.shape[0] - 1:
                assert scan.labels.array[0][tuple(index)] == LABELS["liver tumour"]
                found += 1
    assert found >= 4


def test_tumours_stand_out_from_the_liver_as_their_kind_does():
    for seed in SEEDS:
        scan = ct(seed)
        image, liver = scan.image.array[0], np.median(ct(seed).image.array[0][mask(scan, "liver")])
        for tumour in scan.facts["tumours"]:
            if tumour["diameter_mm"] < 12:
                continue
            near = np.linalg.norm(
                scan.labels.grid.world(np.stack(np.indices(image.shape), -1)) - tumour["centre_mm"], axis=-1
            )
            inside = image[(near < 0.4 * tumour["diameter_mm"]) & mask(scan, "liver tumour")]
            assert np.sign(np.median(inside) - liver) == np.sign(tumour["contrast_hu"])


# Brain


@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_regions_of_a_glioma_are_nested(seed):
    labels = mr(seed).labels.array[0]
    whole, core, enhancing = labels > 0, labels >= 2, labels == 3
    assert whole.any()
    assert core.any()
    near_core = ndimage.binary_dilation(core) & ~core
    assert whole[near_core].mean() > 0.6  # the rest borders on fluid, where nothing swells
    assert ndimage.binary_dilation(whole)[core].all()
    if enhancing.any():
        dead = ndimage.binary_erosion(labels == 2)
        near_dead = ndimage.binary_dilation(labels == 2) & (labels != 2)
        assert (labels[near_dead] == 3).mean() > 0.6
        assert core[ndimage.binary_dilation(dead, iterations=2)].mean() > 0.9


@pytest.mark.parametrize("seed", [0, 1, 2, 4])
def test_each_channel_shows_what_it_is_made_for(seed):
    flair, t1, t1gd, t2 = mr(seed).image.array
    labels = mr(seed).labels.array[0]
    inside = flair > 0
    healthy = inside & ~ndimage.binary_dilation(labels > 0, iterations=3)
    oedema = labels == 1
    assert np.median(flair[oedema]) > np.percentile(flair[healthy], 80)
    assert np.median(t2[oedema]) > np.percentile(t2[healthy], 60)
    assert np.median(t1[labels == 2]) < np.median(t1[healthy])
    if (labels == 3).any():
        assert np.median(t1gd[labels == 3]) > np.percentile(t1gd[healthy], 90)
        assert np.median(t1[labels == 3]) < np.percentile(t1[healthy], 60)


@pytest.mark.parametrize("seed", [0, 1, 4])
def test_a_brain_is_stripped_of_its_skull(seed):
    image, labels = mr(seed).image.array, mr(seed).labels.array[0]
    inside = image[0] > 0
    assert all(np.array_equal(channel > 0, inside) for channel in image)
    assert 1000 < inside.sum() * mr(seed).labels.grid.voxel_ml < 1800
    assert not labels[~inside].any()
    pieces, _ = ndimage.label(inside)
    assert np.bincount(pieces.ravel())[1:].max() > 0.99 * inside.sum()


def test_every_channel_has_a_scale_of_its_own():
    levels = np.array([[np.median(c[c > 0]) for c in mr(seed).image.array] for seed in (0, 1, 4)])
    assert levels.max() > 2 * levels.min()
    assert np.array_equal(mr(0).image.array, np.rint(mr(0).image.array))


def test_a_glioma_is_the_same_at_another_spacing():
    fine, coarse = mr(1), brain(1, spacing=(3.0, 3.0, 3.0))
    for region in (1, 2):
        small, large = ((p.labels.array >= region).sum() * p.labels.grid.voxel_ml for p in (fine, coarse))
        assert large == pytest.approx(small, rel=0.08)
    assert fine.facts == coarse.facts


def test_the_default_brain_has_the_size_of_brats():
    assert brain(0, coarse=5).image.grid.size_mm == (155, 240, 240)


# On disk


def test_a_case_does_not_depend_on_how_many_are_written(tmp_path):
    one = write_dataset(tmp_path / "one", 1, seed=3, coarse=8)
    two = write_dataset(tmp_path / "two", 2, seed=3, coarse=8)
    for folder in ("imagesTr", "labelsTr"):
        name = f"{folder}/phantom_000.nii.gz"
        assert (one / name).read_bytes() == (two / name).read_bytes()
        assert (two / name).read_bytes() != (two / f"{folder}/phantom_001.nii.gz").read_bytes()


def test_tumours_have_the_diameters_asked_for_and_nothing_else_changes():
    plain, asked = (abdomen(seed, spacing=(4, 4, 4), tumours=t) for seed, t in ((2, None), (2, (10, 60))))
    assert all(8 < tumour["diameter_mm"] < 66 for tumour in asked.facts["tumours"])  # people differ in size
    assert {k: v for k, v in asked.facts.items() if k != "tumours"} == {
        k: v for k, v in plain.facts.items() if k != "tumours"
    }
    outside = ~(mask(plain, "liver", "liver tumour") | mask(asked, "liver", "liver tumour"))
    assert np.array_equal(plain.labels.array[0][outside], asked.labels.array[0][outside])
    for seed in range(8):
        rng = streams(seed, KIND, STREAMS)
        patient = Patient.draw(rng, Body.draw(rng["body"]), (10, 60))
        assert patient.liver.tumours
        assert all(5 <= tumour.radius <= 30 for tumour in patient.liver.tumours)


@pytest.mark.parametrize(("kind", "sizes"), [("brain", (10, 60)), ("abdomen", (60, 10)), ("abdomen", (0, 10))])
def test_diameters_that_make_no_sense_are_refused(tmp_path, kind, sizes):
    with pytest.raises(BadInput, match="smaller first"):
        write_dataset(tmp_path / "new", 1, kind=kind, tumours=sizes)


def test_an_abdomen_data_set_is_complete_and_reads_back(tmp_path):
    folder = write_dataset(tmp_path / "new" / "set", 4, seed=1, coarse=6)
    about = json.loads((folder / "dataset.json").read_text("utf-8"))
    assert about["modality"] == {"0": "CT"}
    assert about["labels"]["2"] == "liver tumour"
    assert list(about["labels"]) == [str(n) for n in range(8)]
    assert about["numTraining"] == len(about["training"]) == 4
    assert about["licence"] == "CC0-1.0"
    assert about["phantom"]["seed"] == 1
    stored = set()
    for case, fact in zip(about["training"], about["phantom"]["facts"].values(), strict=True):
        image, label = nibabel.load(folder / case["image"]), nibabel.load(folder / case["label"])
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8
        assert np.array_equal(image.affine, label.affine)
        assert image.get_qform(coded=True)[1] == image.get_sform(coded=True)[1] == 1
        assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        stored.add("".join(nibabel.aff2axcodes(image.affine)))
        expected = abdomen(fact["seed"], coarse=6)
        _same_place(nibabel.as_closest_canonical(image), expected.image)
        _same_place(nibabel.as_closest_canonical(label), expected.labels)
    assert len(stored) > 1  # files of a real cohort are not all stored alike
    assert {p.name for p in folder.iterdir()} == {"dataset.json", "imagesTr", "labelsTr"}
    assert len(list(folder.rglob("*.nii.gz"))) == 8


def _same_place(file, volume):
    """A file in RAS order holds the voxels of a canonical (LPS) volume with x and y reversed, in the same places."""
    array = np.asarray(file.dataobj)[::-1, ::-1].transpose(2, 1, 0)
    assert np.array_equal(array, volume.array[0].astype(array.dtype))
    x, y, z = np.array(file.shape) - 1
    for index, stored in (((0, 0, 0), (x, y, 0)), ((z, y, 0), (x, 0, z)), ((0, 0, x), (0, y, 0))):
        right, front, up, _ = file.affine @ [*stored, 1]
        assert volume.grid.world(index) == pytest.approx((-right, -front, up), abs=1e-3)


def test_a_brain_data_set_has_four_channels_named_as_in_the_decathlon(tmp_path):
    folder = write_dataset(tmp_path, 1, kind="brain", coarse=6)
    about = json.loads((folder / "dataset.json").read_text("utf-8"))
    assert about["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert about["labels"] == {"0": "background", "1": "edema", "2": "non-enhancing tumor", "3": "enhancing tumour"}
    image, label = (nibabel.load(folder / about["training"][0][k]) for k in ("image", "label"))
    assert image.shape == (*label.shape, 4)
    assert np.array_equal(image.affine, label.affine)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(BadInput, match="not an empty folder"):
        write_dataset(tmp_path, 1, coarse=8)
    with pytest.raises(BadInput, match=r"mine\.txt"):
        write_dataset(tmp_path / "mine.txt", 1, coarse=8)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_requests_that_make_no_sense_write_nothing(tmp_path):
    with pytest.raises(BadInput, match="at least 1"):
        write_dataset(tmp_path / "a", 0)
    with pytest.raises(UnknownName, match="Did you mean 'abdomen'"):
        write_dataset(tmp_path / "a", 1, kind="abdomin")
    with pytest.raises(BadInput, match="seed"):
        write_dataset(tmp_path / "a", 1, seed=-1)
    assert not list(tmp_path.iterdir())


# Shapes, by hand


def _points(*places):
    x, y, z = np.array(places, np.float32).T
    return s.Points(x, y, z)


def test_distances_to_simple_shapes():
    at = _points((0, 0, 0), (3, 0, 0), (0, 0, 7), (0, 4, 5))
    assert s.capsule(at, (0, 0, 0), (0, 0, 5), (1, 1)) == pytest.approx([-1, 2, 1, 3])
    assert s.ellipsoid(_points((2, 0, 0), (6, 0, 0), (0, 3, 0)), (0, 0, 0), (2, 3, 4)) == pytest.approx(
        [0, 4, 0], abs=1e-4
    )
    assert s.plane(at, (0, 0, 5), (0, 0, 2)) == pytest.approx([-5, -5, 2, 0])
    assert s.ellipsoid(_points((0, 0, 0)), (0, 0, 0), (2, 3, 4)) == pytest.approx([-2], abs=0.1)


def test_a_voxel_on_the_border_is_half_covered():
    assert s.coverage(np.array([-2.0, -1, 0, 0.5, 1, 9]), 2.0) == pytest.approx([1, 1, 0.5, 0.25, 0, 0])


def test_partial_volume_keeps_the_volume_of_a_sphere():
    axis = np.arange(-15, 16, 3).astype(np.float32)
    x, y, z = np.meshgrid(axis, axis, axis)
    share = s.coverage(s.ellipsoid(s.Points(x, y, z), (0.7, -0.4, 0.2), (10, 10, 10)), 3.0)
    assert share.sum() * 27 == pytest.approx(4 / 3 * np.pi * 1000, rel=0.03)


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(0.5, 8))
def test_blended_shapes_stay_close_to_sharp_ones(a, b, blend):
    sharp, smooth = min(a, b), float(s.union(np.float64(a), np.float64(b), blend))
    assert sharp - blend / 4 - 1e-6 <= smooth <= sharp + 1e-6


def test_a_box_is_found_by_its_coordinates():
    z, y, x = np.meshgrid(*(np.arange(n, dtype=np.float32) for n in (4, 5, 6)), indexing="ij")
    at = s.Points.of(x, y, z)
    assert at.find((1.5, 0, 2), (3.2, 0.4, 9)) == (slice(2, 4), slice(0, 1), slice(2, 4))
    assert at.find((7, 0, 0), (9, 9, 9)) is None


def test_a_rotation_turns_left_into_back():
    assert s.turn("z", 90) @ (1, 0, 0) == pytest.approx((0, 1, 0))


def test_waves_are_as_high_as_asked():
    waves = Waves.draw(np.random.default_rng(0), 2.0, (30, 60), terms=40)
    axis = np.arange(0, 600, 10.0)
    size = np.sqrt(np.mean(np.square(np.stack(waves.at(axis, axis, axis)))))
    assert size == pytest.approx(2.0, rel=0.3)


def test_vessels_reach_the_tissue_and_thin_out():
    tissue = np.array(list(product((20.0, 40), (-30.0, 0, 30), (-30.0, 30))))
    rods = grow([[(-20, 0, 0), (0, 0, 0)]], tissue, radius=5.0, tip=0.8, step=5.0)
    ends = np.array([end for _, end, _, _ in rods])
    assert np.linalg.norm(tissue[:, None] - ends, axis=2).min(axis=1).max() <= 6.0
    radii = [r for *_, r in rods]
    assert max(radii) <= 5.0
    assert 0.8 <= min(radii) < 2.0

import re
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from make import ORIENTATIONS, grid, marked
from PIL import Image

from attentus.report.pictures import Scene, draw
from attentus.report.slices import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    SOFT_TISSUE,
    cut,
    display_range,
    fullest,
    grey,
    letters,
    planes_of,
    region,
)
from attentus.types import Volume

WORLD = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


def scene(volume, mask, prediction=None):
    reference = mask.astype(np.uint8)
    found = reference if prediction is None else prediction
    return Scene(
        volume.array[0], reference, found, volume.grid, tuple(range(1, int(max(reference.max(), found.max())) + 1))
    )


def centre(svg, css):
    """Mean corner of a path, px."""
    path = re.search(rf'<path class="{css}" d="([^"]+)"', svg).group(1)
    return np.array(re.findall(r"([\d.]+) ([\d.]+)", path), float).mean(axis=0)


def pixels(svg):
    kind, data = re.search(r'href="data:image/(png|jpeg);base64,([^"]+)"', svg).groups()
    assert kind == "png"
    return np.asarray(Image.open(BytesIO(b64decode(data))))


def size(svg):
    return np.array(re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups(), float)


@pytest.mark.parametrize(
    ("plane", "expected"),
    [(AXIAL, "RLAP"), (CORONAL, "RLSI"), (SAGITTAL, "APSI")],
    ids=["axial", "coronal", "sagittal"],
)
def test_borders_are_where_a_radiologist_expects_them(plane, expected):
    for axes in ORIENTATIONS:
        assert "".join(letters(grid(axes).canonical()[1], plane)) == expected


@pytest.mark.parametrize("plane", [AXIAL, CORONAL, SAGITTAL], ids=lambda p: p.name)
@pytest.mark.parametrize("seed", range(5))
def test_letters_of_oblique_scans_agree_with_the_world(plane, seed):
    where = grid(oblique=seed).canonical()[1]
    places = np.moveaxis(where.world(np.moveaxis(np.indices(where.shape), 0, -1)), -1, 0)
    x, y, z = (cut(axis, plane, 0) for axis in places)
    corners = np.stack([x, y, z], -1)
    left, right, top, bottom = letters(where, plane)
    for before, after, far in ((left, right, corners[0, -1]), (top, bottom, corners[-1, 0])):
        way = (far - corners[0, 0]) / np.linalg.norm(far - corners[0, 0])
        weights = [way @ WORLD[letter] for letter in after]
        assert all(w > 0.3 for w in weights)
        assert weights[0] == pytest.approx(np.abs(way).max())
        assert [-(way @ np.array(WORLD[letter])) for letter in before] == pytest.approx(weights)


@pytest.mark.parametrize("seed", range(6))
def test_a_marker_is_at_the_same_place_in_image_and_outline_of_every_plane(seed):
    volume, _ = marked(grid(ORIENTATIONS[seed * 7], oblique=seed, spacing=(5.0, 0.8, 0.5)), seed)
    volume = volume.like((volume.array == 1000).astype(np.float32)).canonical()
    pictures, _ = draw(scene(volume, volume.array[0] > 0), "Case 1")
    assert [picture.plane for picture in pictures] == ["axial", "coronal", "sagittal"]
    for plane, picture in zip((AXIAL, CORONAL, SAGITTAL), pictures, strict=True):
        image, (width, height) = pixels(picture.svg), size(picture.svg)
        rows, columns = (volume.grid.size_mm[axis] for axis in (plane.rows, plane.columns))
        assert width / height == pytest.approx(columns / rows, rel=0.01), "physical aspect"
        row, column = np.unravel_index(image.argmax(), image.shape)
        expected = (column + 0.5) / image.shape[1] * width, (row + 0.5) / image.shape[0] * height
        assert centre(picture.svg, "reference s0") == pytest.approx(expected, abs=0.2)
        x, y = re.search(r'class="tick" d="M0 ([\d.]+)h6M[\d.]+ [\d.]+h-6M([\d.]+) 0', picture.svg).groups()[::-1]
        assert (float(x), float(y)) == pytest.approx(expected, abs=0.2), "ticks show where the other planes cut"
        index = np.unravel_index(volume.array[0].argmax(), volume.grid.shape)[plane.normal]
        assert picture.place == f"slice {index + 1} of {volume.grid.shape[plane.normal]}"


def test_all_planes_share_one_scale_and_the_bar_has_its_length():
    volume = Volume.from_array(np.random.default_rng(0).random((20, 30, 40)), (3.0, 1.0, 0.5))
    mask = np.zeros((20, 30, 40), bool)
    mask[10, 15, 20] = True
    pictures, _ = draw(scene(volume, mask), "Case 1")
    planes = (AXIAL, CORONAL, SAGITTAL)
    scales = [
        size(picture.svg)[0] / volume.grid.size_mm[p.columns] for p, picture in zip(planes, pictures, strict=True)
    ]
    assert scales == pytest.approx([scales[0]] * 3, rel=0.01)
    for picture in pictures:
        length = float(re.search(r'class="bar" d="M10 [\d.]+v-5m0 2.5h([\d.]+)m', picture.svg).group(1))
        said = float(re.search(r"(\d+) mm</text>", picture.svg).group(1))
        assert length / scales[0] == pytest.approx(said, rel=0.02)


def test_missed_and_false_areas_are_told_apart():
    volume = Volume.from_array(np.random.default_rng(0).random((1, 20, 20)))
    reference, prediction = np.zeros((2, 1, 20, 20), np.uint8)
    reference[0, 2:6, 2:6] = 1
    prediction[0, 12:18, 12:18] = 1
    (picture,), _ = draw(scene(volume, reference, prediction), "Case 1")
    step = size(picture.svg)[0] / 20
    assert centre(picture.svg, "missed") == pytest.approx([4 * step] * 2, abs=1)
    assert centre(picture.svg, "false") == pytest.approx([15 * step] * 2, abs=1)
    (picture,), _ = draw(scene(volume, reference, reference), "Case 1")
    assert 'class="missed"' not in picture.svg
    assert 'class="false"' not in picture.svg


def test_a_voxel_of_the_wrong_structure_is_missed_and_false():
    volume = Volume.from_array(np.random.default_rng(0).random((1, 9, 9)))
    reference = np.full((1, 9, 9), 1, np.uint8)
    prediction = reference.copy()
    prediction[0, 4, 4] = 2
    (picture,), _ = draw(scene(volume, reference, prediction), "Case 1")
    assert centre(picture.svg, "missed") == pytest.approx(centre(picture.svg, "false"))
    assert 'class="prediction s1"' in picture.svg


def test_without_reference_the_prediction_decides_where_to_cut():
    volume = Volume.from_array(np.random.default_rng(0).random((9, 9, 9)))
    prediction = np.zeros((9, 9, 9), np.uint8)
    prediction[7, 2, 3] = 1
    pictures, _ = draw(scene(volume, prediction * 0, prediction), "Case 1")
    assert [picture.place for picture in pictures] == ["slice 8 of 9", "slice 3 of 9", "slice 4 of 9"]


def test_pictures_without_geometry_have_neither_letters_nor_millimetres():
    volume = Volume.from_array(np.random.default_rng(0).random((1, 20, 20)))
    bare = replace(scene(volume, volume.array[0] > 0.9), geometry=False)
    (picture,), _ = draw(bare, "Case 1")
    assert "<text" not in picture.svg
    assert picture.place == ""


def test_names_cannot_break_out_of_the_picture():
    volume = Volume.from_array(np.random.default_rng(0).random((1, 5, 5)))
    (picture,), _ = draw(scene(volume, volume.array[0] > 0.5), 'Case "><script>')
    assert "<script" not in picture.svg


def test_a_tumour_counts_as_much_as_the_liver_around_it():
    labels = np.zeros((20, 50, 50), np.uint8)
    labels[2:15, 5:45, 5:45] = 1
    labels[12, 20:23, 20:23] = 2
    assert fullest(labels, [1, 2])[0] == 12
    assert fullest(labels, [1])[0] == 2
    assert fullest(np.zeros((4, 6, 8), np.uint8), [1]) == (2, 3, 4)


def test_ct_gets_a_soft_tissue_window():
    rng = np.random.default_rng(0)
    shown = display_range(rng.normal(0, 300, (5, 60, 60)) - 100)
    assert (shown.low, shown.high) == SOFT_TISSUE
    assert "HU" in shown.words


def test_values_without_unit_get_robust_percentiles():
    rng = np.random.default_rng(0)
    values = rng.normal(500, 50, (20, 40, 40))
    values[0, 0, 0] = 1e6
    values[:, :, :25] = 0  # the background of a skull-stripped scan
    shown = display_range(values)
    assert 300 < shown.low < 500 < shown.high < 800
    assert "HU" not in shown.words


@pytest.mark.parametrize("values", [np.zeros((2, 3, 3)), np.full((2, 3, 3), np.nan), np.array([[[0, 255.0]]])])
def test_odd_values_are_drawn_all_the_same(values):
    shown = display_range(values)
    assert shown.low < shown.high
    assert grey(values[0], shown).dtype == np.uint8


def test_not_a_number_is_black_and_the_window_clips():
    shown = display_range(np.linspace(-1000, 1000, 1000).reshape(10, 10, 10))
    assert grey(np.array([[np.nan, -500, 40, 900]]), shown).tolist() == [[0, 0, 128, 255]]


def test_the_shown_region_keeps_a_margin_and_stays_inside():
    mask = np.zeros((100, 200, 200), bool)
    mask[50, 100:110, 2:10] = True
    z, y, x = region(mask, (2.0, 1.0, 1.0), margin=20.0, least=60.0)
    assert (z.start, z.stop) == (35, 66)
    assert (y.start, y.stop) == (75, 135)
    assert (x.start, x.stop) == (0, 36)
    assert region(mask & False, (1, 1, 1), 20, 60) == (slice(0, 100), slice(0, 200), slice(0, 200))


def test_flat_scans_show_only_the_planes_they_have():
    assert planes_of((1, 64, 64)) == [AXIAL]
    assert planes_of((30, 64, 1)) == [SAGITTAL]
    assert planes_of((1, 1, 1)) == [AXIAL]

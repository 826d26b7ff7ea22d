"""Figures as files: geometry, numbers and masks by hand, and nothing from outside."""

import json
import math
import re
import xml.etree.ElementTree as ET
from base64 import b64decode
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make import ORIENTATIONS, grid
from matplotlib.path import Path as Outline
from PIL import Image

from attentus import io
from attentus.errors import BadFile, BadInput, UnknownName
from attentus.report.charts import Chart, agreement, agreement_of
from attentus.report.comparison_charts import Offer, front, paired, pareto
from attentus.report.figure import Figure, in_rows, to_png, to_svg, write_figure
from attentus.report.heat import fold_of, over
from attentus.report.histograms import edges_of, histogram, step_of
from attentus.report.levels import Bubble, bubbles, read
from attentus.report.pictures import Frame, Scene, draw
from attentus.report.side_by_side import Sides, of_files, side_by_side
from attentus.report.slices import AXIAL, CORONAL, SAGITTAL, display_range, letters
from attentus.report.styles import standalone
from attentus.report.surfaces import limit, panel, projected, surface
from attentus.types import Grid, Score, Scores, Volume

SVG = "{http://www.w3.org/2000/svg}"


def sphere(centre, radius=9.0, shape=(40, 40, 40), spacing=(1.0, 1.0, 1.0)):
    z, y, x = (np.arange(n) * step for n, step in zip(shape, spacing, strict=True))
    away = (z[:, None, None] - centre[0]) ** 2 + (y[:, None] - centre[1]) ** 2 + (x - centre[2]) ** 2
    return away <= radius**2


def sides(reference, **found):
    image = Volume.from_array(
        np.random.default_rng(0).normal(size=reference.shape).astype(np.float32), (3.0, 1.5, 0.75)
    )
    return Sides(image, reference, found, ("a",))


def inside(svg, css, shape, step):
    """Voxels whose centres lie within a path, the pixels of a voxel being (down, across)."""
    found = re.search(rf'<path class="{css}" d="([^"]+)"', svg)
    mask = np.zeros(shape, bool)
    if not found:
        return mask
    rows, columns = np.indices(shape)
    centres = np.stack([(columns.ravel() + 0.5) * step[1], (rows.ravel() + 0.5) * step[0]], axis=1)
    for loop in found[1].split("M")[1:]:
        points = np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", loop), float)
        mask ^= Outline(points).contains_points(centres).reshape(shape)
    return mask


def size(svg):
    return tuple(float(v) for v in re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups())


# --- overlays ---------------------------------------------------------------------------------------------------------


def test_missed_and_false_areas_are_exactly_the_voxels_that_differ():
    rng = np.random.default_rng(1)
    reference, found = (rng.random((2, 20, 20, 20)) > 0.6).astype(np.uint8)
    panels, _ = side_by_side(sides(reference, x=found), index=7)
    assert [panel.title for panel in panels] == ["Reference", "x"]
    width, height = size(panels[1].svg)
    step = (height / 20, width / 20)
    missed, false = (inside(panels[1].svg, css, (20, 20), step) for css in ("missed", "false"))
    np.testing.assert_array_equal(missed, (reference[7] == 1) & (found[7] == 0))
    np.testing.assert_array_equal(false, (reference[7] == 0) & (found[7] == 1))
    assert 'class="missed"' not in panels[0].svg


def test_panels_of_a_row_have_one_size_and_one_place():
    reference = np.zeros((10, 40, 60), np.uint8)
    reference[3:6, 10:20, 10:20] = 1
    far = np.zeros_like(reference)
    far[9, 35:40, 55:60] = 1  # must be seen as well
    panels, facts = side_by_side(sides(reference, near=reference, far=far))
    assert len({size(panel.svg) for panel in panels}) == 1
    assert "Axial slice 4 of 10" in facts
    with pytest.raises(BadInput, match="There is no axial slice 10"):
        side_by_side(sides(reference, near=reference), index=10)
    with pytest.raises(UnknownName, match="axial"):
        side_by_side(sides(reference, near=reference), plane="axail")


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_the_scale_bar_is_as_long_as_it_says(plane):
    reference = np.zeros((20, 30, 40), np.uint8)
    reference[5:15, 10:20, 10:30] = 1
    panels, _ = side_by_side(sides(reference, x=reference), plane=plane)
    svg = panels[1].svg
    shown = float(re.search(r"h([\d.]+)m0 -2.5v5", svg)[1])
    words = int(re.search(r">(\d+) mm<", svg)[1])
    spacing = {"axial": 0.75, "coronal": 0.75, "sagittal": 1.5}[plane]
    voxels = {"axial": 40, "coronal": 40, "sagittal": 30}[plane]
    assert shown == pytest.approx(words * size(svg)[0] / (voxels * spacing), rel=0.01)


def test_letters_follow_flipped_and_oblique_grids():
    for axes in ORIENTATIONS[::7]:
        labels = Volume(np.ones((1, *grid(axes).shape), np.uint8), grid(axes)).canonical()
        one = Sides(labels, labels.array[0], {"x": labels.array[0]}, ("a",))
        for name, plane in (("axial", AXIAL), ("coronal", CORONAL), ("sagittal", SAGITTAL)):
            drawn = re.findall(r">([A-Z]{1,2})</text>", side_by_side(one, plane=name)[0][0].svg)
            assert sorted(drawn) == sorted({"axial": "RLAP", "coronal": "RLSI", "sagittal": "APSI"}[name])
            assert drawn == list(letters(labels.grid, plane))
    turned = Volume(np.ones((1, 5, 6, 7), np.uint8), grid(oblique=3)).canonical()
    svg = side_by_side(Sides(turned, turned.array[0], {}, ("a",)))[0][0].svg
    assert re.findall(r">([A-Z]{1,2})</text>", svg) == list(letters(turned.grid, AXIAL))


def test_label_files_from_anywhere_are_drawn(tmp_path):
    labels = np.zeros((1, 8, 20, 20), np.uint8)
    labels[0, 2:6, 4:12, 4:12] = 3
    moved = np.roll(labels, 2, axis=3)
    for name, array in (("image", labels.astype(np.float32)), ("truth", labels), ("mine", moved)):
        io.write(Volume.from_array(array), tmp_path / f"{name}.nii.gz")
    found = of_files(tmp_path / "image.nii.gz", tmp_path / "truth.nii.gz", {"mine": tmp_path / "mine.nii.gz"})
    assert found.structures == ("3",)
    np.testing.assert_array_equal(found.found["mine"], moved[0] // 3)
    io.write(Volume.from_array(labels, (2.0, 1.0, 1.0)), tmp_path / "other.nii.gz")
    with pytest.raises(BadInput, match="different grids"):
        of_files(tmp_path / "image.nii.gz", None, {"mine": tmp_path / "other.nii.gz"})


def test_a_recipe_window_decides_black_and_white():
    values = np.linspace(-1000, 1000, 27).reshape(3, 3, 3)
    assert display_range(values)[:2] == (-160, 240)
    assert display_range(values, (-100.0, 200.0))[:2] == (-100, 200)
    assert "recipe's window, −100 to 200" in display_range(values, (-100.0, 200.0)).words


# --- frames -----------------------------------------------------------------------------------------------------------


def test_frames_lie_where_their_voxels_do_and_only_where_they_are_cut():
    labels = np.zeros((30, 30, 30), np.uint8)
    labels[15, 15, 15] = 1
    frames = (Frame((10, 5, 8), (20, 25, 18), "s1", "crossed", "name"), Frame((0, 0, 0), (5, 30, 30), "s2", "below"))
    image = np.zeros(labels.shape, np.float32)
    one = Scene(image, labels, labels, Grid(labels.shape, (2.0, 1.0, 1.0)), (1,), frames=frames)
    (axial, coronal, _), _ = draw(one, "x")
    assert "below" not in axial.svg
    assert "below" in coronal.svg
    drawn = re.search(r'frame s1" x="(\S+)" y="(\S+)" width="(\S+)" height="(\S+)"', coronal.svg)
    x, y, width, height = (float(v) for v in drawn.groups())
    step = size(coronal.svg)[0] / 30
    assert (x, width) == pytest.approx((8 * step, 10 * step), abs=0.1)
    assert (y, height) == pytest.approx(((30 - 20) * 2 * step, 10 * 2 * step), abs=0.1)  # the head is up
    assert ">name</text>" in axial.svg


# --- surfaces ---------------------------------------------------------------------------------------------------------


def test_a_shifted_sphere_lies_outside_on_one_side_and_inside_on_the_other():
    found = surface(sphere((20, 20, 23)), sphere((20, 20, 20)), Grid((40, 40, 40), (1.0, 1.0, 1.0)))
    left, right = (found.distance[side] for side in (found.at[:, 0] > 8, found.at[:, 0] < -8))
    assert left == pytest.approx(np.full(len(left), 2.8), abs=0.6)
    assert right == pytest.approx(np.full(len(right), -2.6), abs=0.6)
    assert found.distance.max() == pytest.approx(3, abs=0.01)
    assert found.distance.min() == pytest.approx(-3, abs=0.01)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.5, 1.0, 0.8)])
def test_distances_are_millimetres(spacing):
    shape = tuple(int(44 / step) for step in spacing)
    middle = (22.0, 22.0, 22.0)
    large, small = (sphere(middle, radius, shape, spacing) for radius in (15, 10))
    where = Grid(shape, spacing)
    outside, inside_ = surface(large, small, where), surface(small, large, where)
    assert outside.distance.mean() == pytest.approx(5, abs=0.4)
    assert inside_.distance.mean() == pytest.approx(-5, abs=0.6)  # half a voxel of 2.5 mm is more than that
    assert (outside.distance > 0).all()
    assert (inside_.distance < 0).all()


def test_equal_masks_lie_on_each_other():
    mask = np.random.default_rng(0).random((9, 9, 9)) > 0.5
    assert np.abs(surface(mask, mask, Grid((9, 9, 9), (2.0, 1.0, 0.7))).distance).max() < 1e-6


def test_surfaces_lie_in_the_patient_and_look_outwards():
    where = replace(grid(oblique=2, shape=(24, 30, 30)), spacing=(1.5, 1.0, 1.0))
    mask = sphere((18, 12, 20), 7, where.shape, where.spacing)
    found = surface(mask, mask, where)
    world = where.world(np.argwhere(mask))
    spread = world.max(axis=0) - world.min(axis=0)
    assert np.ptp(found.at, axis=0) == pytest.approx(spread, abs=1.6)
    corners = found.points[found.triangles]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert ((normals * corners.mean(axis=1)).sum(axis=1) > 0).mean() > 0.99


def test_few_triangles_keep_measured_corners():
    one, other = sphere((20, 20, 22)), sphere((20, 20, 20))
    where = Grid((40, 40, 40), (1.0, 1.0, 1.0))
    full, few = surface(one, other, where, most=10**9), surface(one, other, where, most=500)
    assert len(few.triangles) <= 500 < len(full.triangles)
    assert few.distance.mean() == pytest.approx(full.distance.mean(), abs=0.2)
    assert few.distance.max() == pytest.approx(full.distance.max(), abs=0.5)
    assert np.abs(few.points - few.at).max() < 4


def test_what_has_no_surface_is_refused():
    empty, full = np.zeros((5, 5, 5), bool), np.ones((5, 5, 5), bool)
    for masks in ((empty, full), (full, empty), (full[:1], full[:1])):
        with pytest.raises(BadInput, match="three dimensions"):
            surface(*masks, Grid(masks[0].shape, (1.0, 1.0, 1.0)))


def test_views_show_the_patient_as_a_doctor_stands_before_him():
    left, back, up = np.eye(3)
    assert projected(left[None], 0, 0)[0] == pytest.approx([1, 0, 0])
    assert projected(back[None], 0, 0)[0] == pytest.approx([0, 0, 1])
    assert projected(up[None], 0, 0)[0] == pytest.approx([0, 1, 0])
    assert projected(left[None], 180, 0)[0] == pytest.approx([-1, 0, 0], abs=1e-12)
    assert projected(up[None], 0, 90)[0] == pytest.approx([0, 0, -1], abs=1e-12)  # from above, the head is near
    assert projected(back[None], 0, 90)[0] == pytest.approx([0, 1, 0], abs=1e-12)


def test_the_page_gets_the_mesh_and_paper_gets_a_picture():
    found = surface(sphere((20, 20, 22)), sphere((20, 20, 20)), Grid((40, 40, 40), (1.0, 1.0, 1.0)))
    drawn = panel(found, limit([found.distance]), "liver", "liver of case 7")
    data = re.search(r'data-mesh="([^"]+)"', drawn.live)[1].replace("&#34;", '"').replace("&quot;", '"')
    mesh = json.loads(data)
    points = np.frombuffer(b64decode(mesh["points"]), "<i2").reshape(-1, 3) / 32767 * mesh["radius"]
    assert points == pytest.approx(found.points, abs=mesh["radius"] / 30000)
    levels = np.frombuffer(b64decode(mesh["levels"]), np.uint8)
    assert len(levels) == len(found.triangles)
    mean = found.distance[found.triangles].mean(axis=1)
    assert (np.sign(levels.astype(int) - 20)[np.abs(mean) > 0.2] == np.sign(mean)[np.abs(mean) > 0.2]).all()
    assert drawn.svg.count("data:image/png") == 2
    assert "+2 mm" in drawn.svg or "+3 mm" in drawn.svg
    assert "mean without sign" in drawn.note


def test_the_colour_scale_has_a_round_end():
    assert limit([np.array([0.1, -0.3])]) == 0.5
    assert limit([np.zeros(100), np.full(100, -4.0)]) == 5
    assert limit([np.array([])]) == 0.5
    assert limit([np.full(5, 1000.0)]) == 100


# --- values -----------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-2000, 2000, width=32), min_size=1, max_size=200), st.floats(-500, 0), st.floats(1, 500))
def test_histograms_count_every_voxel_once(values, low, high):
    values = np.array(values, np.float32)
    found = histogram(values, edges_of(low, high))
    assert found.counts.sum() + found.below + found.above == len(values)


@given(st.integers(-1200, 0), st.integers(1, 3000), st.sampled_from([1.0, 0.5, 3.0]))
def test_bins_hold_as_many_values_of_a_lattice_each(first, count, step):
    values = (first + np.arange(count)) * step
    edges = edges_of(values.min(), values.max(), step, float(values.min()))
    counts = histogram(values, edges).counts
    assert counts.sum() == count
    assert len(set(counts[:-1].tolist())) <= 1
    assert len(counts) <= 121


def test_the_step_of_values_is_found():
    rng = np.random.default_rng(0)
    assert step_of(rng.integers(-1000, 1000, 5000).astype(np.float32)) == 1
    assert step_of(rng.integers(0, 300, 5000).astype(np.float32) * 0.25 + 7) == 0.25
    assert step_of(rng.normal(size=5000)) is None
    assert step_of(np.zeros(5)) is None


# --- charts -----------------------------------------------------------------------------------------------------------


def volumes(pairs):
    rows = []
    for case, (found, truth) in pairs.items():
        rows += [Score(case, "a", "volume_ml", found, "ml"), Score(case, "a", "reference_ml", truth, "ml")]
    return Scores(tuple(rows), {})


def test_bias_and_limits_of_agreement_are_those_of_bland_and_altman():
    pairs = {"1": (10.0, 9.0), "2": (20.0, 22.0), "3": (31.0, 30.0), "4": (45.0, 40.0)}
    found = agreement_of(volumes(pairs), "a")
    differences = [1.0, -2.0, 1.0, 5.0]
    mean = sum(differences) / 4
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / 3)
    assert found.bias == pytest.approx(mean)
    assert found.around == pytest.approx(1.96 * deviation)
    assert found.points["2"] == (21.0, -2.0)
    assert found.levels["−1.96 SD"] == pytest.approx(mean - 1.96 * deviation)
    svg = agreement(volumes(pairs), "a").svg
    assert f"bias {mean:.3g} ml, limits ±{1.96 * deviation:.3g} ml" in svg
    assert svg.count("<circle") == 4
    assert list(agreement_of(volumes({"1": (2.0, 1.0)}), "a").levels) == ["bias"]


def test_methods_beside_each_other_share_their_axes():
    wide = agreement_of(volumes({"1": (10.0, 500.0), "2": (90.0, 60.0)}), "a")
    alone = agreement(volumes({"1": (10.0, 9.0), "2": (20.0, 22.0)}), "a").svg
    beside = agreement(volumes({"1": (10.0, 9.0), "2": (20.0, 22.0)}), "a", beside=[wide]).svg
    assert ">200<" in beside
    assert ">200<" not in alone


def test_lines_join_cases_that_both_methods_have():
    values = {"a": {"1": 0.5, "2": 0.6, "3": math.inf}, "b": {"1": 0.7, "2": 0.8, "4": 0.9}, "c": {"4": 0.1}}
    drawn = paired(values, "Dice")
    assert drawn.svg.count('class="pair"') == 2 + 1
    assert "∞ × 1" in drawn.svg
    assert paired({"a": {"1": math.nan}}, "Dice") is None


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(0, 9)), min_size=1, max_size=8), st.booleans())
def test_the_front_holds_what_no_other_beats(pairs, higher):
    offers = [Offer(str(k), float(cost), float(score)) for k, (cost, score) in enumerate(pairs)]
    sign = 1 if higher else -1
    kept = front(offers, higher=higher)
    for one in offers:
        beaten = any(
            other.cost <= one.cost
            and sign * other.score >= sign * one.score
            and (other.cost, other.score) != (one.cost, one.score)
            for other in offers
        )
        assert ((one.cost, one.score) in {(k.cost, k.score) for k in kept}) == (not beaten)
    assert [k.cost for k in kept] == sorted(k.cost for k in kept)


def test_costs_far_apart_get_a_logarithmic_axis():
    near, far = ([Offer("a", 1.0, 0.8), Offer("b", cost, 0.9)] for cost in (3.0, 300.0))
    assert "logarithmic" not in pareto(near, "dice", "parameters").svg
    drawn = pareto(far, "dice", "parameters").svg
    assert "logarithmic" in drawn
    assert ">100<" in drawn
    assert pareto([], "dice", "time") is None


def test_levels_are_read_from_the_table_of_prune(tmp_path):
    row = {"level": 2, "early_exit": None, "parameters": 400, "seconds": 0.2, "dice": 0.8, "mean_level": None}
    stopping = {**row, "level": 4, "early_exit": 0.9, "parameters": 1600, "mean_level": 2.5}
    (tmp_path / "t.json").write_text(json.dumps({"levels": [row, stopping], "measured_on": "a slide rule"}))
    found, place = read(tmp_path / "t.json")
    assert found == [Bubble("L2", 400, 0.2, 0.8, None), Bubble("L4, exit 0.9", 1600, 0.2, 0.8, 2.5)]
    drawn = bubbles(found, place)
    radii = [float(r) for r in re.findall(r'class="disc[^"]*" cx="[^"]+" cy="[^"]+" r="([\d.]+)"', drawn.svg)]
    assert radii[0] == pytest.approx(2 * radii[1], rel=0.01)  # area: parameters
    assert "a slide rule" in drawn.note
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(BadFile, match="attentus prune"):
        read(tmp_path / "t.json")


def test_a_case_is_predicted_by_the_fold_that_held_it_back():
    assert fold_of({"fold0": ["a"], "fold3": ["b", "c"]}, "c") == 3
    assert fold_of({"fold0": ["a"]}, "z") is None


def test_heat_lies_over_the_scan_without_marks_of_errors():
    labels = np.zeros((6, 20, 20), np.uint8)
    labels[2:4, 5:10, 5:10] = 1
    scene = Scene(np.zeros(labels.shape, np.float32), labels, 0 * labels, Grid(labels.shape, (1.0, 1.0, 1.0)), (1,))
    drawn = over(scene, labels.astype(np.float32), (0.0, 1.0), "x")
    assert 'class="heat"' in drawn[0].svg
    assert 'class="reference' in drawn[0].svg
    assert not any(css in drawn[0].svg for css in ("missed", "false", "prediction"))
    with pytest.raises(BadInput, match="scan"):
        over(scene, np.zeros((1, 2, 3)), (0.0, 1.0), "x")


# --- files ------------------------------------------------------------------------------------------------------------


def example():
    reference = np.zeros((6, 20, 20), np.uint8)
    reference[2:4, 5:10, 5:10] = 1
    panels, facts = side_by_side(sides(reference, **{"a <b>": np.roll(reference, 1, axis=2)}))
    chart = paired({"a": {"1": 0.5, "2": 0.7}, "b": {"1": 0.6, "2": 0.8}}, "Dice")
    return Figure("Case 7 & more", (*in_rows(panels, 4), (chart,)), facts, keys=True)


def test_an_svg_stands_alone():
    text = to_svg(example())
    root = ET.fromstring(text)
    assert root.tag == f"{SVG}svg"
    assert "var(" not in text
    assert set(re.findall(r"https?://[^\s\"']+", text)) == {"http://www.w3.org/2000/svg"}
    hrefs = [value for node in root.iter() for name, value in node.attrib.items() if name.endswith("href")]
    assert hrefs
    assert all(value.startswith("data:image/") for value in hrefs)
    assert {"hatch", "dots"} <= {node.attrib.get("id") for node in root.iter()}
    assert {"missed", "false", "reference", "prediction"} <= set(re.findall(r">(\w+)</text>", text))
    width, height = (float(root.attrib[name]) for name in ("width", "height"))
    for drawn in root.findall(f"{SVG}svg"):
        x, y, wide, tall = (float(drawn.attrib[name]) for name in ("x", "y", "width", "height"))
        assert 0 <= x <= x + wide <= width
        assert 0 <= y <= y + tall <= height


def test_a_png_shows_what_the_svg_does():
    text = to_svg(example())
    root = ET.fromstring(text)
    picture = Image.open(BytesIO(to_png(text)))
    assert picture.size == pytest.approx([3 * float(root.attrib[name]) for name in ("width", "height")], abs=2)
    seen = {tuple(pixel) for pixel in np.asarray(picture.convert("RGB")).reshape(-1, 3)[::7].tolist()}
    assert (255, 255, 255) in seen
    assert any(blue > 200 and red < 80 for red, _, blue in seen)  # the hatch of what is missed


def test_a_page_needs_nothing_from_outside(tmp_path):
    html = write_figure(example(), tmp_path / "f.html", overwrite=False).read_text()
    assert "http" not in html
    assert "Case 7 &amp; more" in html
    assert "a &lt;b&gt;" in html
    assert html.count("<script>") == 1
    targets = re.findall(r'(?:src|href)="([^"]*)"', html)
    assert all(target.startswith(("data:image/", "#")) for target in targets)


def test_names_are_checked(tmp_path):
    with pytest.raises(BadFile, match="no name of a figure"):
        write_figure(example(), tmp_path / "f.gif", overwrite=False)
    (tmp_path / "f.svg").write_text("mine")
    with pytest.raises(BadFile, match="exists already"):
        write_figure(example(), tmp_path / "f.svg", overwrite=False)
    assert (tmp_path / "f.svg").read_text() == "mine"


def test_the_style_sheet_that_stands_alone_keeps_every_colour():
    css = standalone()
    assert "var(" not in css
    assert "--" not in css.replace("-->", "")
    for rule in (
        ".chart .box.s0 { fill: #b77900",
        ".picture .reference.s1 { stroke: #5cc0fb",
        ".missed { fill: url(#hatch)",
    ):
        assert rule in css


def test_panels_are_laid_in_rows():
    charts = [Chart(str(k), "") for k in range(5)]
    assert [len(row) for row in in_rows(charts, 2)] == [2, 2, 1]

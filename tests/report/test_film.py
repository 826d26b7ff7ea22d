"""The filmstrip on the page of a run, and maps over their slice."""

from __future__ import annotations

import json
import math
import re
from base64 import b64decode
from io import BytesIO

import make
import numpy as np
import pytest
from PIL import Image

from attentus.cli.main import run
from attentus.io.atomic import write_text
from attentus.recipes import dump
from attentus.report.film import _short
from attentus.report.pictures import Backdrop, Scene, draw
from attentus.report.slices import AXIAL, letters


def oblique(mask):
    """A slice of an oblique scan with unequal voxels, and a mask on it."""
    where = make.grid(oblique=2, shape=(1, *mask.shape), spacing=(5.0, 1.6, 0.7)).canonical()[1]
    reference = mask[None].astype(np.uint8)
    return Scene(np.zeros((1, *mask.shape), np.float32), reference, reference, where, (1,))


def test_a_map_lies_over_its_slice_whatever_its_resolution_and_what_is_cut_off():
    """A block of the map is where the outline of the same block is, although only a part of the slice is shown."""
    mask = np.zeros((120, 400), bool)
    mask[60:80, 240:280] = True
    scene = oblique(mask)
    frame = Backdrop(scene, "f", 130.0)
    found = re.search(r'class="reference s0" d="([^"]+)"', frame.defs()).group(1)
    outline = np.array(re.findall(r"([\d.]+) ([\d.]+)", found), float)
    for step in (1, 4, 20):
        values = mask.reshape(120 // step, step, 400 // step, step).mean((1, 3))
        svg = frame.under(values, (0.0, 1.0), "map")
        x, y, width, height = map(
            float, re.search(r'x="([-\d.]+)" y="([-\d.]+)" width="([\d.]+)" height="([\d.]+)"', svg).groups()
        )
        pixels = np.asarray(Image.open(BytesIO(b64decode(re.search(r'base64,([^"]+)"', svg).group(1)))))
        rows, columns = np.nonzero(pixels[..., 3] > 100)
        down, across = height / pixels.shape[0], width / pixels.shape[1]
        found = [x + across * columns.min(), y + down * rows.min(), x + across * (columns.max() + 1)]
        found.append(y + down * (rows.max() + 1))
        assert found == pytest.approx([*outline.min(0), *outline.max(0)], abs=0.6)
    assert x < 0
    assert y < 0
    assert frame.width / frame.height == pytest.approx(
        scene.grid.spacing[2] * 143 / (scene.grid.spacing[1] * 62), rel=0.1
    )


@pytest.mark.parametrize("seed", range(4))
def test_a_map_lies_over_the_voxels_it_belongs_to_in_every_plane(seed):
    """The page of `attentus explain`: an oblique scan with unequal voxels, bright in one voxel, as the map is."""
    volume, _ = make.marked(make.grid(make.ORIENTATIONS[seed * 11], oblique=seed, spacing=(5.0, 0.8, 0.5)), seed)
    volume = volume.like((volume.array == 1000).astype(np.float32)).canonical()
    mask = (volume.array[0] > 0).astype(np.uint8)
    pictures, _ = draw(Scene(volume.array[0], mask, mask, volume.grid, (1,), heat=volume.array[0]), "scan")
    assert len(pictures) == 3
    for picture in pictures:
        scan, heat = [
            np.asarray(Image.open(BytesIO(b64decode(one)))) for one in re.findall(r'png;base64,([^"]+)"', picture.svg)
        ]
        assert heat.shape[:2] == scan.shape
        np.testing.assert_array_equal(np.argwhere(heat[..., 3] > 0), np.argwhere(scan > 0))
        sizes = re.findall(r'<image[^>]* (width="[\d.]+" height="[\d.]+")', picture.svg)
        assert len(sizes) == 2
        assert sizes[0] == sizes[1]


def test_the_plain_slice_says_where_its_borders_lie():
    scene = oblique(np.eye(30, dtype=bool))
    texts = re.findall(r">([A-Z]{1,2})</text>", Backdrop(scene, "f", 130.0).plain("slice"))
    assert texts == list(letters(scene.grid, AXIAL))


def test_names_lose_what_they_share():
    assert _short(["gates.level4.each.0", "gates.level3.each.1"]) == ["level4.each.0", "level3.each.1"]
    assert _short(["gates.level4"]) == ["gates.level4"[6:]]
    assert _short(["a.b", "a.b.c"]) == ["b", "b.c"]
    assert _short(["spacor.level1", "semcor.level1"]) == ["spacor.level1", "semcor.level1"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("film")
    make.dataset(folder / "data", cases=6)
    write_text(folder / "r.yaml", dump(make.recipe(train__steps=4, train__validate_every=4)))
    call = ["train", str(folder / "r.yaml"), str(folder / "data"), "-o", str(folder / "run"), "--snapshots", "2"]
    assert run([*call, "--set", "train.snapshots.shares=[0, 0.5, 1]"]) == 0
    return folder


def words_of(html):
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def page_of(folder):
    assert run(["report", str(folder / "run"), "--overwrite"]) == 0
    return (folder / "run" / "report.html").read_text(encoding="utf-8")


def test_the_report_shows_strip_and_curves(trained):
    html = page_of(trained)
    ids = re.findall(r' id="([^"]+)"', html)
    assert len(ids) == len(set(ids))
    assert {*re.findall(r'href="#([^"]+)"', html), "heat-scale"} <= set(ids)
    assert "url(#heat-scale)" in html
    strips = html[html.index('<section id="attention"') :]
    strips = strips[: strips.index("</section>")]
    assert strips.count('class="heat"') == 2 * 6 * 3  # cases, modules, moments
    assert strips.count('class="scale"') == 2 * 6
    for words in ("Attention over training", "0 %", "50 %", "100 %", "step 2, epoch 1", "Best Dice with shell"):
        assert words in words_of(html)
    assert "level2.each.1" in words_of(html)
    cases = json.loads((trained / "run" / "data.json").read_text())["validation"]
    first, *_ = cases
    seen = json.loads((trained / "run" / "snapshots" / "step-00000004.json").read_text())["cases"]
    name = "gates.level2.each.0"
    mean = sum(seen[case][name]["entropy"] for case in cases) / 2
    assert f"level2.each.0, step 4: {mean:.3g}" in html
    span = [
        json.loads(f.read_text())["cases"][first][name]["slice"] for f in (trained / "run").glob("snapshots/step*.json")
    ]
    assert f"colours from {min(low for low, _ in span):.3g} to {max(high for _, high in span):.3g}" in html
    assert not math.isnan(mean)


def test_damaged_snapshots_cost_only_their_section(trained):
    file = trained / "run" / "snapshots" / "step-00000002.json"
    before = file.read_text()
    file.write_text("{")
    text = words_of(page_of(trained))
    file.write_text(before)
    assert "step-00000002.json: cannot be read" in text
    assert "Attention over training" not in text
    assert str(trained) not in text


def test_a_case_can_be_named_and_a_wrong_one_is_refused(trained, capsys):
    call = ["train", str(trained / "r.yaml"), str(trained / "data"), "-o", str(trained / "x"), "--snapshots"]
    assert run([*call, "case_99"]) == 2
    assert "case_99" in capsys.readouterr().err
    assert not (trained / "x").exists()

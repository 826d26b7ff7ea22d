"""DICOM segmentations become label maps: all three kinds, gaps between frames, overlaps, one slice, real files."""

from __future__ import annotations

import shutil
import sys

import make
import numpy as np
import pydicom
import pytest

from attentus import io
from attentus.errors import BadFile, BadInput, MissingExtra
from attentus.io.dicom_seg import read_segmentation
from attentus.io.layers import Layers
from attentus.io.names import own_names

pytest.importorskip("highdicom", reason="needs attentus[dicom]")

SHAPE = (9, 12, 10)


@pytest.fixture
def grid():
    return make.grid(oblique=3, shape=SHAPE)


@pytest.fixture
def images(tmp_path, grid):
    """The files of a series in the order of the grid's slices."""
    files = make.dicom_series(tmp_path / "series", make.marked(grid)[0])
    return sorted(files, key=lambda file: np.dot(pydicom.dcmread(file).ImagePositionPatient, grid.direction[0]))


@pytest.fixture
def masks():
    liver, lesion = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    liver[2:4, 2:6, 2:6] = liver[6, 2:6, 2:6] = 1
    lesion[3, 7:9, 1:5] = 1
    return {"Liver": liver, "Lesion": lesion}


@pytest.mark.parametrize("kind", ["BINARY", "FRACTIONAL", "LABELMAP"])
def test_all_kinds_lie_where_they_were_drawn(tmp_path, grid, images, masks, kind):
    given = {k: m * np.float32(0.7) for k, m in masks.items()} if kind == "FRACTIONAL" else masks
    labels = io.read_labels(make.dicom_seg(tmp_path / "x.dcm", images, given, kind))
    assert labels.array.dtype == np.uint8
    assert labels.grid.shape == (5, 12, 10)  # the gap is filled, the empty slices outside are not known
    assert labels.source.header["names"] == {"Liver": (1,), "Lesion": (2,)}
    scan = io.read(images[0].parent)
    whole = labels.laid_on(scan.grid)
    axes, _ = grid.canonical()
    assert np.array_equal(whole.array[0], axes.apply(masks["Liver"] + 2 * masks["Lesion"]))


def test_a_fraction_of_a_half_is_not_enough(tmp_path, images, masks):
    given = {"half": masks["Liver"] * np.float32(0.5), "more": masks["Liver"] * np.float32(0.6)}
    labels = io.read_labels(make.dicom_seg(tmp_path / "x.dcm", images, given, "FRACTIONAL", max_fractional_value=10))
    assert set(np.unique(labels.array)) == {0, 2}


def test_beside_its_images_a_segmentation_lies_on_their_grid(images, masks):
    make.dicom_seg(images[0].parent / "seg.dcm", images, masks)
    labels, scan = io.read_labels(images[0].parent), io.read(images[0].parent)
    assert labels.grid == scan.grid
    assert labels.array.sum() == masks["Liver"].sum() + 2 * masks["Lesion"].sum()
    shutil.copy(images[0].parent / "seg.dcm", images[0].parent / "again.dcm")
    with pytest.raises(BadFile, match=r"2 DICOM segmentations: again\.dcm, seg\.dcm"):
        io.read_labels(images[0].parent)


def test_one_slice_without_a_step_still_finds_its_place(tmp_path, images, masks):
    file = make.dicom_seg(tmp_path / "x.dcm", images, {"lesion": masks["Lesion"]})
    header = pydicom.dcmread(file)
    del header.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices
    header.save_as(file)
    labels = io.read_labels(file)
    assert labels.grid.shape == (1, 12, 10)
    assert labels.laid_on(io.read(images[0].parent).grid).array[0, 3].any()


def test_overlaps_are_named_and_segments_can_be_chosen(tmp_path, images, masks):
    masks["Fat"] = masks["Liver"] & np.roll(masks["Liver"], 1, axis=1)
    file = make.dicom_seg(tmp_path / "x.dcm", images, masks)
    with pytest.raises(BadFile, match=r"1 \(Liver\) with 3 \(Fat\)\n.*segments="):
        io.read_labels(file)
    assert set(np.unique(io.read_labels(file, segments=["Liver", 2]).array)) == {0, 1, 2}
    assert set(np.unique(io.read_labels(file, segments=[3]).array)) == {0, 3}
    with pytest.raises(BadInput, match=r"no segment 'Spleen'. Known: 1 Liver, 2 Lesion, 3 Fat"):
        io.read_labels(file, segments=["Spleen"])
    whole = read_segmentation(file)
    for name, mask in masks.items():
        assert np.isin(whole.volume.array, whole.names[name]).sum() == mask.sum(), name


def test_segments_of_one_label_are_one_structure(tmp_path, images, masks):
    file = make.dicom_seg(tmp_path / "x.dcm", images, masks)
    header = pydicom.dcmread(file)
    header.SegmentSequence[1].SegmentLabel = "Liver"
    header.save_as(file)
    assert own_names(file) == {"Liver": (1, 2)}
    assert io.read_labels(file).source.header["names"] == {"Liver": (1, 2)}


def test_what_is_wrong_is_said(tmp_path, images, masks, monkeypatch):
    file = make.dicom_seg(tmp_path / "x.dcm", images, masks)
    with pytest.raises(BadFile, match=r"DICOM segmentation \(SEG\), not an image series\n.*read_labels"):
        io.read(file)
    with pytest.raises(BadInput, match="only these have segments"):
        io.read_labels(images[0], segments=[1])
    header = pydicom.dcmread(file)
    header.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence[0].ImagePositionPatient = [1.0, 2.0, 3.0]
    header.save_as(tmp_path / "crooked.dcm")
    with pytest.raises(BadFile, match=r"crooked\.dcm: holds segments that make up no volume"):
        io.read_labels(tmp_path / "crooked.dcm")
    del header.SegmentSequence
    header.save_as(tmp_path / "headless.dcm")
    with pytest.raises(BadFile, match=r"headless\.dcm: is a damaged or incomplete DICOM segmentation"):
        io.read_labels(tmp_path / "headless.dcm")
    (tmp_path / "cut.dcm").write_bytes(file.read_bytes()[:-300])
    with pytest.raises(BadFile, match=r"cut\.dcm"):
        io.read_labels(tmp_path / "cut.dcm")
    monkeypatch.setitem(sys.modules, "highdicom.seg", None)
    with pytest.raises(MissingExtra, match=r"pip install 'attentus\[dicom\]'"):
        io.read_labels(file)


def test_layers_lose_nothing():
    rng = np.random.default_rng(0)
    masks = rng.random((9, 4, 5, 6)) > 0.5
    layers = Layers((4, 5, 6), range(1, 10))
    for number, mask in enumerate(masks, start=1):
        layers.add(number, mask)
    for number, mask in enumerate(masks, start=1):
        assert np.array_equal(np.isin(layers.array, layers.values(number)), mask)
    assert layers.array.dtype == np.uint8
    assert (1, 9) in layers.overlaps
    apart = Layers((2, 2), [7])
    apart.add(7, np.eye(2, dtype=bool))
    assert apart.array.tolist() == [[7, 0], [0, 7]]
    assert apart.overlaps == []


def test_more_combinations_than_a_byte_holds():
    masks = [(np.arange(1024) >> bit & 1).astype(bool) for bit in range(10)]
    layers = Layers((1024,), range(1, 11))
    for number, mask in enumerate(masks, start=1):
        layers.add(number, mask)
    assert layers.array.dtype == np.uint16
    assert all(np.array_equal(np.isin(layers.array, layers.values(n)), m) for n, m in enumerate(masks, start=1))


def test_real_segmentations_equal_their_nrrd_twins():
    folder = make.real_data("formats", "dicom-seg")
    seg, nrrd = io.read_labels(folder / "liver.dcm"), io.read_labels(folder / "liver_seg.nrrd")
    assert seg.grid.matches(nrrd.grid)
    assert np.array_equal(seg.array, nrrd.array)
    assert own_names(folder / "liver.dcm") == {"Liver": (1,)}
    overlapping = folder / "partial_overlaps.dcm"
    with pytest.raises(BadFile, match=r"1 \(GREEN\) with 2 \(ORANGE\); 1 \(GREEN\) with 3 \(PURPLE\); 2"):
        io.read_labels(overlapping)
    for number, segments in ((1, [1, 4, "DARK_BLUE"]), (2, [2]), (3, ["PURPLE"])):
        part = io.read_labels(overlapping, segments=segments)
        assert np.array_equal(part.array, io.read_labels(folder / f"partial_overlaps-{number}.nrrd").array)

"""Repairs: what is safe is done and logged, what is not is explained, and no original changes."""

from __future__ import annotations

import json
import re
from hashlib import sha256

import make
import nibabel as nib
import numpy as np
import pytest

from attentus import Dataset, io
from attentus.cli.main import run
from attentus.data.repair import repair
from attentus.errors import BadFile
from attentus.types import Grid, Volume


@pytest.fixture
def folder(tmp_path):
    """Four cases in canonical storage order, so that edits below mean what they say."""
    for k in range(4):
        image, labels = make.case(k)
        io.write(image, tmp_path / "d" / "images" / f"c{k}.nii.gz")
        io.write(labels, tmp_path / "d" / "labels" / f"c{k}.nii.gz")
    return tmp_path / "d"


def edit(path, change):
    image = nib.load(path)
    array, affine = change(np.asanyarray(image.dataobj).copy(), image.affine.copy())
    nib.save(nib.Nifti1Image(array, affine), path)


def content(folder):
    return {p: sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def shifted(mm):
    def change(array, affine):
        affine[:3, 3] += mm
        return array, affine

    return change


def repaired(folder, out):
    """The labels of case c1 after a repair, checked to lie on their image; and what was done to them."""
    before = content(folder)
    found = repair(Dataset.open(folder), out)
    assert content(folder) == before
    case = Dataset.open(out)["c1"]
    image, labels = io.read(case.images[0]), io.read_labels(case.label)
    image.grid.require_match(labels.grid, case.id)
    assert [one.case for one in found.done] == ["c1"]
    return labels, found.done[0]


def truth():
    return make.case(1)[1].array


def test_floats_become_integers(folder, tmp_path):
    edit(folder / "labels" / "c1.nii.gz", lambda a, m: (a.astype(np.float32), m))
    labels, done = repaired(folder, tmp_path / "out")
    np.testing.assert_array_equal(labels.array, truth())
    assert labels.source.dtype == "uint8"
    assert "Stored as float32" in done.changes[0]
    assert not [f for f in Dataset.open(tmp_path / "out").check() if f.case == "c1"]


def test_a_grid_that_differs_by_rounding_is_the_one_of_the_image(folder, tmp_path):
    edit(folder / "labels" / "c1.nii.gz", shifted([0.4, 0, 0.3]))
    labels, done = repaired(folder, tmp_path / "out")
    np.testing.assert_array_equal(labels.array, truth())
    assert "Up to 0.500 mm off the grid" in done.changes[0]
    assert {value: a == b for value, (a, b) in done.voxels.items()} == {"1": True, "2": True}


@pytest.mark.parametrize("coded", [False, True])
def test_a_lost_header_is_the_one_of_the_image(folder, tmp_path, coded):
    path = folder / "labels" / "c1.nii.gz"
    array = np.asanyarray(nib.load(path).dataobj).copy()
    nib.save(nib.Nifti1Image(array, np.eye(4) if coded else None), path)
    labels, done = repaired(folder, tmp_path / "out")
    np.testing.assert_array_equal(labels.array, truth())
    assert "header had no geometry" in done.changes[0]


def test_a_lost_header_keeps_the_stored_order_of_voxels(tmp_path):
    image, labels = make.case(1)
    turned = make.ORIENTATIONS[13]
    for part, volume in (("images", image), ("labels", labels)):
        where = volume.grid.reoriented(turned)
        io.write(Volume(turned.apply(volume.array), where), tmp_path / "d" / part / "c1.nii.gz")
    edit(tmp_path / "d" / "labels" / "c1.nii.gz", lambda a, m: (a, np.eye(4)))
    restored, _ = repaired(tmp_path / "d", tmp_path / "out")
    np.testing.assert_array_equal(restored.array, truth())
    files = tmp_path / "out" / "labels" / "c1.nii.gz", tmp_path / "d" / "images" / "c1.nii.gz"
    written, original = (io.read(file).source.grid for file in files)
    assert written == original


def test_labels_on_another_grid_are_resampled(folder, tmp_path):
    _, labels = make.case(1)
    fine = Grid((12, 20, 36), (2.0, 1.0, 0.5), (labels.grid.origin[0] - 0.25, 0.0, 0.0))
    io.write(Volume(labels.array.repeat(2, axis=3), fine), folder / "labels" / "c1.nii.gz", overwrite=True)
    moved, done = repaired(folder, tmp_path / "out")
    np.testing.assert_array_equal(moved.array, truth())
    assert "Resampled onto the image (nearest neighbour) from 12 × 20 × 36" in done.changes[0]


def test_labels_of_a_part_of_the_image_are_laid_on_it(folder, tmp_path):
    _, labels = make.case(1)
    box = np.argwhere(labels.array[0])
    start, stop = box.min(axis=0), box.max(axis=0) + 1
    z, y, x = (slice(a, b) for a, b in zip(start, stop, strict=True))
    part = Volume(labels.array[:, z, y, x], labels.grid.cropped(start, stop))
    io.write(part, folder / "labels" / "c1.nii.gz", overwrite=True)
    moved, _ = repaired(folder, tmp_path / "out")
    np.testing.assert_array_equal(moved.array, truth())


def beside(array, affine):
    affine[1, 3] -= 8
    return array[:, 2:], affine


def speck(array, affine):
    array = np.zeros((array.shape[0] * 20, *array.shape[1:]), array.dtype)
    array[101, 10, 6] = 2
    affine[:3, 0] /= 20
    return array, affine


UNSAFE = [
    (shifted([5, -7, 3]), r"lie up to 9\.11 mm apart: either a header is wrong"),
    (lambda a, m: (a[2:], m), r"another shape \(12 × 20 × 16\) .* but its header: that was copied"),
    (lambda a, m: (a[2:], np.eye(4)), "another shape than the image, and nothing says where"),
    (beside, r"of the labelled voxels lie outside of the image"),
    (speck, "nothing would be left of label 2"),
    (lambda a, m: (a[1:] + 0.5, m), "no label map"),
    (lambda a, m: shifted([0, 1, 0])(0 * a[:, 1:], m), "nothing is labelled"),
]


@pytest.mark.parametrize(("change", "why"), UNSAFE)
def test_what_is_not_sure_is_left_and_explained(folder, tmp_path, change, why):
    edit(folder / "labels" / "c1.nii.gz", change)
    found = repair(Dataset.open(folder), tmp_path / "out")
    assert not found.done
    assert list(found.refused) == ["c1"]
    assert re.search(why, found.refused["c1"])
    assert re.search(why, (tmp_path / "out" / "repairs.md").read_text())
    assert Dataset.open(tmp_path / "out")["c1"].label == folder / "labels" / "c1.nii.gz"  # still there, still found


def test_what_needs_no_repair_is_not_copied(folder, tmp_path):
    found = repair(Dataset.open(folder), tmp_path / "out")
    assert (found.done, found.refused) == ((), {})
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["cases.json", "repairs.json", "repairs.md"]
    assert Dataset.open(tmp_path / "out").cases == Dataset.open(folder).cases


def test_annotations_become_files_and_everything_said_is_kept(tmp_path):
    dataset = Dataset.open(make.ircadb(tmp_path / "data"))
    found = repair(dataset, tmp_path / "out")
    again = Dataset.open(tmp_path / "out")
    assert [one.changes[0] for one in found.done] == [
        "Put together from 6 parts as one label file.",
        "Put together from 3 parts as one label file.",
    ]
    assert (again.labels, again.regions, again.channels) == (dataset.labels, dataset.regions, dataset.channels)
    for old, new in zip(dataset, again, strict=True):
        np.testing.assert_array_equal(io.read_labels(old.label).array, io.read_labels(new.label).array)
        io.read_case(new).grid.require_match(io.read_labels(new.label).grid, new.id)


def test_splits_and_what_is_ignored_are_kept(tmp_path):
    make.nnunet(tmp_path / "data")
    split = [{"train": ["bowl_00", "bowl_01"], "val": ["bowl_02", "bowl_03"]}]
    (tmp_path / "data" / "splits_final.json").write_text(json.dumps(split))
    repair(Dataset.open(tmp_path / "data"), tmp_path / "out")
    again = Dataset.open(tmp_path / "out")
    assert (list(again.splits), again.ignore) == (split, ("ignore",))


def test_the_folder_of_a_repair(folder, tmp_path):
    with pytest.raises(BadFile, match="lies inside the dataset"):
        repair(Dataset.open(folder), folder / "fixed")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(BadFile, match=r"exists and is no folder with a repairs\.json"):
        repair(Dataset.open(folder), tmp_path / "mine", overwrite=True)
    repair(Dataset.open(folder), tmp_path / "out")
    with pytest.raises(BadFile, match="exists already"):
        repair(Dataset.open(folder), tmp_path / "out")
    repair(Dataset.open(folder), tmp_path / "out", overwrite=True)


def test_on_the_command_line(folder, tmp_path, capsys):
    edit(folder / "labels" / "c1.nii.gz", shifted([0.4, 0, 0]))
    edit(folder / "labels" / "c2.nii.gz", shifted([40, 0, 0]))
    assert run(["data", "check", str(folder)]) == 1
    assert "2 error(s)" in capsys.readouterr().out
    out = tmp_path / "out"
    assert run(["data", "check", str(folder), "--repair", str(out)]) == 1
    said = capsys.readouterr().out
    assert "1 error(s) in 1 case(s)" in said
    assert "1 label file(s) repaired, 1 case(s) left" in said
    assert run(["data", "check", str(folder), "--repair", str(out), "--overwrite", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert [one["case"] for one in told["repairs"]["done"]] == ["c1"]
    assert list(told["repairs"]["refused"]) == ["c2"]
    log = json.loads((out / "repairs.json").read_text())
    assert log["repaired"][0]["original"].endswith("c1.nii.gz")
    assert log["repaired"][0]["changes"] == told["repairs"]["done"][0]["changes"]


def test_a_layout_is_named_on_the_command_line(tmp_path, capsys):
    make.stacks(tmp_path)
    assert run(["data", "check", str(tmp_path)]) == 2
    assert "--layout stacks" in capsys.readouterr().err
    assert run(["data", "check", str(tmp_path), "--layout", "stacks"]) == 0
    assert run(["data", "show", str(tmp_path), "--layout", "pairs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.split("\n", 1)[1])["cases"]


def test_the_collection_of_broken_files(tmp_path):
    dataset = Dataset.open(make.real_data("broken", "derived"))
    found = repair(dataset, tmp_path / "out")
    assert "either a header is wrong" in found.refused["affine-shift"]
    assert (
        "that was copied" in found.refused["shape-mismatch"]
    )  # and wrong: the first slice that is there is the second
    assert not found.done
    errors = {f.case for f in Dataset.open(tmp_path / "out").check() if f.severity == "error"}
    gone = {"truncated-image", "zero-byte-image", "swapped-roles"}
    assert errors == {"affine-shift", "shape-mismatch", "fractional-label", "nan-voxels", *gone}

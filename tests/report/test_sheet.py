import json

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import find_objects, label

from attentus import io
from attentus.data import Dataset
from attentus.errors import BadFile
from attentus.progress import Silent
from attentus.report.sheet import contact_sheet, describe_case
from attentus.types import AxisMap, Grid, Volume

KEYS = ["case", "shape", "spacing_mm", "orientation", "channels", "range", "labels", "error"]


def make(folder, count, *, spacing=(5.0, 1.0, 1.0), shape=(6, 20, 30)):
    """Noise with a block of label 1 in slice 4 and a voxel of label 2 in slice 1, stored with axes turned."""
    rng = np.random.default_rng(0)
    grid = Grid(shape, spacing).reoriented(AxisMap((0, 1, 2), (True, True, False)))
    for k in range(count):
        labels = np.zeros((1, *shape), np.uint8)
        labels[0, 4, 5:15, 5:15] = 1
        labels[0, 1, 3, 3] = 2
        image = Volume(rng.normal(100, 30, (1, *shape)).astype(np.float32), Grid(shape, spacing))
        turned = AxisMap((0, 1, 2), (True, True, False))
        io.write(Volume(turned.apply(image.array), grid), folder / "images" / f"c{k:02}.nii.gz")
        io.write(Volume(turned.apply(labels), grid), folder / "labels" / f"c{k:02}.nii.gz")
    (folder / "dataset.yaml").write_text(json.dumps({"labels": {"liver": 1, "tumour": 2}}), encoding="utf-8")
    return Dataset.open(folder)


def sheet(dataset, out, limit=60):
    contact_sheet(dataset, out, limit=limit, overwrite=False, progress=Silent())
    return np.asarray(Image.open(out).convert("RGB")).astype(int)


def is_paper(pixels):
    return (pixels > 250).all(axis=-1)


def like(pixels, colour):
    return np.abs(pixels - np.array(colour)).max(axis=-1) < 25


@pytest.mark.parametrize("count", [1, 2, 7, 60])
def test_every_case_has_a_square_with_a_picture(tmp_path, count):
    pixels = sheet(make(tmp_path / "data", count, shape=(5, 16, 24)), tmp_path / "s.png")
    cells = [box for box in find_objects(label(~is_paper(pixels))[0]) if box[0].stop - box[0].start > 200]
    assert len(cells) == count
    assert {(rows.stop - rows.start, columns.stop - columns.start) for rows, columns in cells} <= {
        (n, m) for n in (275, 276, 277) for m in (275, 276, 277)
    }
    assert all(pixels[box].std() > 20 for box in cells), "noise is seen, not a blank square"
    height, width, _ = pixels.shape
    assert max(height, width) < 3200
    if count == 60:
        assert 1.0 < width / height < 2.0


def test_cells_show_the_slice_with_most_labels_in_two_colours_and_a_legend(tmp_path):
    pixels = sheet(make(tmp_path / "data", 1), tmp_path / "s.png")
    orange, blue = like(pixels, (255, 171, 26)), like(pixels, (92, 192, 251))
    height = len(pixels)
    assert orange[: height // 2 + 60].sum() > 100, "outline of the liver"
    assert blue[: height // 2 + 60].sum() == 0, "the tumour lies in another slice"
    assert orange[-60:].any(), "legend"
    assert blue[-60:].any(), "legend"


def test_pictures_keep_their_physical_shape(tmp_path):
    pixels = sheet(make(tmp_path / "data", 1, spacing=(5.0, 2.0, 0.5), shape=(6, 20, 40)), tmp_path / "s.png")
    cell = pixels[118:394, 42:318]
    grey = ~like(cell, (0, 0, 0)) & ~is_paper(cell)
    rows, columns = np.flatnonzero(grey.mean(axis=1) > 0.3), np.flatnonzero(grey.mean(axis=0) > 0.3)
    assert (np.ptp(rows) + 1) / (np.ptp(columns) + 1) == pytest.approx(2.0, rel=0.1)  # 40 mm high, 20 mm wide


def test_a_case_that_cannot_be_read_is_a_red_cell(tmp_path):
    dataset = make(tmp_path / "data", 3)
    sound = sheet(dataset, tmp_path / "sound.png")
    (tmp_path / "data" / "images" / "c01.nii.gz").write_bytes(b"no image")
    broken = sheet(Dataset.open(tmp_path / "data"), tmp_path / "broken.png")
    red = (248, 228, 225)
    assert like(sound, red).mean() < 0.01
    assert like(broken, red).mean() > 0.1
    assert broken.shape == sound.shape


def test_labels_that_do_not_fit_leave_the_picture_and_say_why(tmp_path):
    make(tmp_path / "data", 1)
    io.write(
        Volume(np.ones((1, 3, 3, 3), np.uint8), Grid((3, 3, 3), (1.0, 1.0, 1.0))),
        tmp_path / "data" / "labels" / "c00.nii.gz",
        overwrite=True,
    )
    dataset = Dataset.open(tmp_path / "data")
    pixels = sheet(dataset, tmp_path / "s.png")
    assert 0.001 < like(pixels, (248, 228, 225)).mean() < 0.1
    facts = describe_case(dataset["c00"], dataset)
    assert facts["error"] == "image and labels lie on different grids."
    assert facts["shape"] == [6, 20, 30]


def test_pictures_and_odd_names_are_fine(tmp_path):
    folder = tmp_path / "data"
    for name in ("a $b$ ^{c}", "患者"):
        for part in ("images", "masks"):
            (folder / part).mkdir(parents=True, exist_ok=True)
            pixels = np.zeros((40, 30), np.uint8)
            pixels[10:20, 10:20] = 255
            Image.fromarray(pixels).save(folder / part / f"{name}.png")
    dataset = Dataset.open(folder)
    pixels = sheet(dataset, tmp_path / "s.png")
    assert like(pixels, (255, 171, 26)).any()
    assert describe_case(dataset["患者"], dataset)["labels"] == {"label 255": 0.1}


def test_only_as_many_as_wanted_are_drawn(tmp_path):
    dataset = make(tmp_path / "data", 5, shape=(5, 16, 24))
    assert sheet(dataset, tmp_path / "a.png", limit=1).size < sheet(dataset, tmp_path / "b.png").size


def test_other_names_and_existing_files_are_refused(tmp_path):
    dataset = make(tmp_path / "data", 1, shape=(5, 16, 24))
    with pytest.raises(BadFile, match=r"\.png"):
        sheet(dataset, tmp_path / "s.jpg")
    sheet(dataset, tmp_path / "s.png")
    with pytest.raises(BadFile, match="exists already"):
        sheet(dataset, tmp_path / "s.png")


def test_facts_of_a_case(tmp_path):
    dataset = make(tmp_path / "data", 1)
    facts = describe_case(dataset["c00"], dataset)
    assert list(facts) == KEYS
    assert facts["shape"] == [6, 20, 30]
    assert facts["spacing_mm"] == [5.0, 1.0, 1.0]
    assert facts["orientation"] == "IAL"
    assert facts["channels"] == 1
    assert facts["range"][0] < 100 < facts["range"][1]
    assert facts["labels"] == {"liver": 0.5, "tumour": 0.005}  # 100 voxels of 5 mm³
    assert json.loads(json.dumps(facts)) == facts


def test_facts_of_a_case_that_cannot_be_read(tmp_path):
    dataset = make(tmp_path / "data", 2)
    (tmp_path / "data" / "images" / "c01.nii.gz").write_bytes(b"")
    facts = describe_case(dataset["c01"], dataset)
    assert list(facts) == KEYS
    assert facts["error"].startswith("c01.nii.gz: the file is empty")
    assert facts["shape"] == []


def test_a_value_without_name_and_one_that_is_not_a_number_are_described(tmp_path):
    dataset = make(tmp_path / "data", 1)
    image = io.read(dataset["c00"].images[0])
    image.array[0, 0, 0, 0] = np.nan
    io.write(image, dataset["c00"].images[0], overwrite=True)
    labels = io.read_labels(dataset["c00"].label)
    labels.array[0, 0, 0, 0] = 9
    io.write(labels, dataset["c00"].label, overwrite=True)
    facts = describe_case(dataset["c00"], dataset)
    assert np.isfinite(facts["range"]).all()
    assert facts["labels"]["label 9"] == 0.005

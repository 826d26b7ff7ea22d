"""What files are, whatever they are called; files that cannot be used; places that cannot be written to."""

from __future__ import annotations

import gzip
import os
import stat

import make
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from attentus import io
from attentus.errors import AttentusError, BadFile
from attentus.io.atomic import replacing, replacing_folder, write_text
from attentus.io.sniff import ending, sniff, stem
from attentus.types import Case, Grid, Volume


def save(path, array, affine=None, **header):
    image = nib.Nifti1Image(array, np.eye(4) if affine is None else affine)
    for field, value in header.items():
        image.header[field] = value
    nib.save(image, path)
    return path


def test_content_decides_not_the_name(tmp_path):
    plain = save(tmp_path / "a.nii", np.ones((3, 4, 5), np.int16))
    fake = tmp_path / "plain.nii.gz"  # not compressed
    fake.write_bytes(plain.read_bytes())
    hidden = tmp_path / "b.dat"
    hidden.write_bytes(gzip.compress(plain.read_bytes()))
    wrong = tmp_path / "c.nrrd"
    wrong.write_bytes(plain.read_bytes())
    for path in (plain, fake, hidden, wrong):
        assert io.read(path).array.shape == (1, 5, 4, 3)
    assert sniff(hidden) == ("nifti", True)
    assert sniff(fake) == ("nifti", False)


@pytest.mark.parametrize(
    ("name", "end", "start"),
    [
        ("a.nii.gz", ".nii.gz", "a"),
        ("A.NII.GZ", ".nii.gz", "A"),
        ("x.y.nrrd", ".nrrd", "x.y"),
        ("z.dcm", ".dcm", "z"),
        ("n", "", "n"),
    ],
)
def test_names_and_endings(name, end, start):
    assert (ending(name), stem(name)) == (end, start)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, I am a text", "no image format"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (gzip.compress(b"", mtime=0), "empty"),
        (gzip.compress(os.urandom(5000))[:600], "end too early|no image format"),
        (b"\x1f\x8b\x08\x00 garbage", "end too early"),
        (b"NRRD0004\ntype: short\n", "damaged NRRD"),
        (b"\x89PNG\r\n\x1a\n broken", "damaged picture"),
        (b"\0" * 128 + b"DICM" + b"\xff" * 40, "damaged DICOM|not an image series|no Rows"),
    ],
)
def test_unusable_files_are_explained(tmp_path, content, message):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=message) as error:
        io.read(path)
    assert str(path) in str(error.value)
    assert error.value.fix


@pytest.mark.parametrize("keep", [100, 348, 352, 400, 0.5, 0.9])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha"])
def test_truncated_at_any_place(tmp_path, name, keep):
    volume = Volume(
        np.random.default_rng(0).normal(size=(1, 20, 20, 20)).astype(np.float32), Grid((20, 20, 20), (1.0, 1.0, 1.0))
    )
    path = tmp_path / name
    io.write(volume, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if keep < 1 else keep])
    with pytest.raises(BadFile, match=name):
        io.read(path)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6), (4, 5, 6, 1), (4, 5, 6, 1, 1), (4, 5, 1)])
def test_axes_of_length_one_are_no_channels(tmp_path, shape):
    volume = io.read(save(tmp_path / "a.nii.gz", np.zeros(shape, np.int16)))
    assert volume.array.shape == (1, shape[2] if len(shape) > 2 else 1, 5, 4)


@pytest.mark.parametrize("shape", [(4, 5, 6, 3), (4, 5, 6, 1, 3)])
def test_channels_may_lie_on_the_fourth_or_fifth_axis(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    volume = io.read(save(tmp_path / "a.nii.gz", array))
    assert volume.array.shape == (3, 6, 5, 4)
    np.testing.assert_array_equal(volume.as_stored().array, array.reshape(4, 5, 6, 3).transpose(3, 2, 1, 0))


def test_rgb_records_become_channels(tmp_path):
    rgb = np.zeros((4, 5, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    rgb["G"] = 7
    volume = io.read(save(tmp_path / "a.nii.gz", rgb))
    assert volume.array[:, 0, 0, 0].tolist() == [0, 7, 0]


def test_more_axes_and_complex_numbers_are_refused(tmp_path):
    with pytest.raises(BadFile, match=r"shape \(2, 2, 2, 3, 4\)"):
        io.read(save(tmp_path / "a.nii.gz", np.zeros((2, 2, 2, 3, 4))))
    with pytest.raises(BadFile, match="complex"):
        io.read(save(tmp_path / "b.nii.gz", np.zeros((2, 2, 2), np.complex64)))


def test_scale_factors_apply(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.full((2, 2, 2), 10, np.int16))
    image = nib.load(path)
    image.header.set_slope_inter(2, -1000)
    nib.save(nib.Nifti1Image(np.full((2, 2, 2), -980.0), np.eye(4), image.header), tmp_path / "b.nii.gz")
    assert io.read(tmp_path / "b.nii.gz").array[0, 0, 0, 0] == -980


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_units_of_length(tmp_path, unit, factor):
    image = nib.Nifti1Image(np.zeros((2, 3, 4), np.uint8), np.diag([2, 3, 4, 1.0]))
    image.header.set_xyzt_units(unit)
    nib.save(image, tmp_path / "a.nii.gz")
    assert io.read(tmp_path / "a.nii.gz").grid.spacing == pytest.approx((4 * factor, 3 * factor, 2 * factor))


def test_nifti2_is_read(tmp_path):
    nib.save(nib.Nifti2Image(np.ones((2, 3, 4), np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    assert io.read(tmp_path / "a.nii.gz").array.sum() == 24


def test_sheared_and_impossible_geometry_is_refused(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.2
    with pytest.raises(BadFile, match="sheared"):
        io.read(save(tmp_path / "a.nii.gz", np.zeros((2, 2, 2)), sheared, qform_code=0))
    path = save(tmp_path / "b.nii", np.zeros((2, 2, 2), np.uint8))
    content = bytearray(path.read_bytes())
    content[280:284] = np.float32(np.nan).tobytes()  # srow_x
    path.write_bytes(bytes(content))
    with pytest.raises(BadFile, match="not a usable matrix"):
        io.read(path)


def test_analyze_and_two_file_nifti_are_told_apart(tmp_path):
    nib.save(nib.Nifti1Pair(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "a.img")
    nib.save(nib.AnalyzeImage(np.zeros((2, 2, 2), np.uint8), np.eye(4)), tmp_path / "b.img")
    for name in ("a.hdr", "b.hdr"):
        with pytest.raises(BadFile, match=rf"{name}: is the header of a two-file NIfTI"):
            io.read(tmp_path / name)


def test_the_grid_of_a_file_is_read_from_its_header(tmp_path):
    for ending_ in (".nii.gz", ".nrrd"):
        volume, _ = make.marked(make.grid(make.ORIENTATIONS[20], oblique=2))
        io.write(volume, tmp_path / f"a{ending_}")
        assert io.read_grid(tmp_path / f"a{ending_}") == io.read(tmp_path / f"a{ending_}").grid


def test_channels_in_separate_files_must_share_a_grid(tmp_path):
    a, _ = make.marked(make.grid())
    io.write(a, tmp_path / "t1.nii.gz")
    io.write(a, tmp_path / "t2.nii.gz")
    case = Case("p", (tmp_path / "t1.nii.gz", tmp_path / "t2.nii.gz"))
    assert io.read_case(case).channels == 2
    io.write(make.marked(make.grid(spacing=(2.5, 0.9, 0.7)))[0], tmp_path / "t2.nii.gz", overwrite=True)
    with pytest.raises(AttentusError, match=r"p: t1\.nii\.gz and t2\.nii\.gz lie on different grids"):
        io.read_case(case)


LABELS = [
    (np.array([[[0.0, 0.5]]]), "hold fractions such as 0.5"),
    (np.array([[[0.0, np.nan]]]), "not finite"),
    (np.array([[[0, -1]]], np.int16), "run from -1 to 0"),
    (np.array([[[0, 70000]]], np.int32), "run from 0 to 70000"),
]


@pytest.mark.parametrize(("array", "message"), LABELS)
def test_what_is_no_label_map(tmp_path, array, message):
    with pytest.raises(BadFile, match=message):
        io.read_labels(save(tmp_path / "l.nii.gz", array))


def test_labels_off_by_a_scale_factor_are_rounded(tmp_path):
    labels = io.read_labels(save(tmp_path / "l.nii.gz", np.array([[[0.0, 0.99999997, 2.0000001]]])))
    assert labels.array.ravel().tolist() == [0, 1, 2]
    assert labels.source.dtype == "float64"


def test_pictures_of_labels(tmp_path):
    from PIL import Image

    grey = np.zeros((4, 5), np.uint8)
    grey[1, 2] = 255
    Image.fromarray(np.stack([grey] * 3, -1)).save(tmp_path / "rgb.png")
    assert io.read_labels(tmp_path / "rgb.png").array.max() == 255
    Image.fromarray(grey).save(tmp_path / "lossy.jpg")
    with pytest.raises(BadFile, match="JPEG, which smears"):
        io.read_labels(tmp_path / "lossy.jpg")
    colour = np.stack([grey, 0 * grey, grey], -1)
    Image.fromarray(colour).save(tmp_path / "colour.png")
    assert io.read(tmp_path / "colour.png").channels == 3
    with pytest.raises(BadFile, match="3 channels where labels have one"):
        io.read_labels(tmp_path / "colour.png")
    Image.fromarray(grey > 0).save(tmp_path / "bits.png")
    assert io.read_labels(tmp_path / "bits.png").array.max() == 1


def test_slices_of_one_volume_have_one_size(tmp_path):
    io.write(Volume.from_array(np.zeros((1, 4, 5), np.uint8)), tmp_path / "s1.png")
    io.write(Volume.from_array(np.zeros((1, 4, 6), np.uint8)), tmp_path / "s2.png")
    with pytest.raises(BadFile, match=r"s2\.png: has shape"):
        io.read(tmp_path)


def test_folders_that_hold_no_scan(tmp_path):
    save(tmp_path / "a.nii.gz", np.zeros((2, 2, 2)))
    with pytest.raises(BadFile, match="folder without DICOM files or picture slices"):
        io.read(tmp_path)
    with pytest.raises(BadFile, match="does not exist"):
        io.read(tmp_path / "nowhere")


# Writing


def test_nothing_is_overwritten_by_accident(tmp_path):
    volume, _ = make.marked(make.grid())
    io.write(volume, tmp_path / "new" / "folder" / "a.nii.gz")
    with pytest.raises(BadFile, match="exists already"):
        io.write(volume, tmp_path / "new" / "folder" / "a.nii.gz")
    io.write(volume, tmp_path / "new" / "folder" / "a.nii.gz", overwrite=True)
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["a.nii.gz"]


def test_a_failure_keeps_the_old_file_and_leaves_no_litter(tmp_path):
    target = tmp_path / "a.txt"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text(f"half {1 / 0}")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_and_a_closed_folder_are_said(tmp_path):
    with pytest.raises(BadFile, match="the disk is full"), replacing(tmp_path / "a"):
        raise OSError(28, "No space left on device")
    with pytest.raises(BadFile, match="no permission"), replacing(tmp_path / "a"):
        raise PermissionError(13, "Permission denied")
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadFile, match=r"cannot be written|exists"):
        write_text(tmp_path / "file" / "below", "x")


def test_results_are_as_open_as_other_files(tmp_path):
    with replacing(tmp_path / "a") as temporary:
        temporary.write_text("x")
        temporary.chmod(0o600)
    (tmp_path / "b").write_text("x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "b").stat().st_mode)


def test_endings_that_cannot_be_written(tmp_path):
    volume, _ = make.marked(make.grid())
    with pytest.raises(BadFile, match=r"Use one of \.nii, \.nii\.gz"):
        io.write(volume, tmp_path / "a.xyz")
    with pytest.raises(BadFile, match="write_dicom"):
        io.write(volume, tmp_path / "a.dcm")
    with pytest.raises(BadFile, match="PNG holds one slice"):
        io.write(volume, tmp_path / "a.png")


def test_a_label_written_for_a_dicom_scan_lies_on_its_grid(tmp_path):
    volume, position = make.marked(make.grid(make.ORIENTATIONS[3], oblique=5))
    make.dicom_series(tmp_path / "s", volume)
    scan = io.read(tmp_path / "s")
    io.write(scan.like((scan.array > 500).astype(np.uint8)), tmp_path / "l.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "l.nii.gz"))
    z, y, x = np.argwhere(sitk.GetArrayFromImage(image))[0]
    np.testing.assert_allclose(image.TransformIndexToPhysicalPoint((int(x), int(y), int(z))), position, atol=1e-3)


# The collection of real files


def test_awkward_but_valid_files_are_read():
    folder = make.real_data("formats")
    expected = {
        "MRIcrop-orig.gipl.gz": (1, 64, 110, 78),
        "breast1_image.nrrd": (1, 21, 120, 45),
        "multi_chunk.nii.gz": (2, 52, 39, 64),
        "prostate_phantom_subvolume.nrrd": (1, 13, 67, 82),
        "t1_chunk.nii.gz": (1, 32, 54, 43),
        "t2_chunk.nii.gz": (1, 41, 17, 58),
        "tensor_rgb.nii.gz": (3, 20, 36, 36),
        "dicom-seg/ct-3slice": (1, 3, 512, 512),
    }
    for name, shape in expected.items():
        assert io.read(folder / name).array.shape == shape, name
    for name in ("MRIcrop-seg.gipl.gz", "breast1_label.nrrd", "dicom-seg/liver_seg.nrrd"):
        assert io.read_labels(folder / name).array.dtype == np.uint8
    for name in ("dicom-seg/liver.dcm", "dicom-seg/partial_overlaps.dcm"):
        with pytest.raises(BadFile, match=r"DICOM segmentation \(SEG\)"):
            io.read(folder / name)
    image, labels = io.read(folder / "dicom-seg" / "ct-3slice"), io.read_labels(folder / "dicom-seg" / "liver_seg.nrrd")
    assert image.grid.matches(labels.grid)


def test_real_dicom_series_are_read():
    chaos = io.read(make.real_data("chaos-ct-liver", "CT_SET_3", "DICOM_anon"))
    assert chaos.array.shape == (1, 78, 512, 512)
    assert chaos.grid.spacing == pytest.approx((2.0, 0.7265625, 0.7265625))  # SliceThickness says 3.2
    assert chaos.array.min() == -1000
    brain = make.real_data("dicom-brain", "Study3")
    series = [io.read(folder) for folder in sorted(brain.iterdir()) if "11_HC" not in folder.name]
    assert len(series) == 4
    for volume in series:
        assert volume.array.shape == (1, 22, 320, 280)
        assert volume.grid.matches(series[0].grid)
    with pytest.raises(BadFile, match="holds 5 series"):
        io.read(brain)
    assert io.read(brain, series="FLAIR").grid.matches(series[0].grid)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dicom-missing-slice", r"between 19\.dcm and 21\.dcm .*1 slice missing"),
        ("dicom-duplicate-slice", r"6\.dcm and copy_6\.dcm|copy_6\.dcm and 6\.dcm"),
        ("dicom-truncated-file", r"5\.dcm: has incomplete or damaged pixels"),
        ("dicom-mixed-series", "holds 2 series"),
    ],
)
def test_broken_dicom_series_name_the_slice(name, message):
    with pytest.raises(BadFile, match=message):
        io.read(make.real_data("broken", "derived", name))


def refusal(reader, path):
    """What a reader says against a file; None if it reads it. Anything but a BadFile is a traceback for the user."""
    try:
        reader(path)
    except BadFile as error:
        return error
    return None


def test_no_broken_file_gives_a_traceback():
    files = [p for p in sorted(make.real_data("broken").rglob("*")) if p.is_file() and p.suffix != ".md"]
    refusals = [(path, refusal(reader, path)) for path in files for reader in (io.read, io.read_labels)]
    told = [(path, error) for path, error in refusals if error]
    assert len(told) > 15
    assert all(path.name in str(error) and error.fix for path, error in told)


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    def put(words, **options):
        with replacing_folder(tmp_path / "m", holds="key", **options) as folder:
            (folder / "key").write_text(words)

    put("first")
    (tmp_path / "m" / "stale").write_text("old")
    with pytest.raises(BadFile, match="exists already"):
        put("second")
    with pytest.raises(ZeroDivisionError), replacing_folder(tmp_path / "m", holds="key", overwrite=True):
        1 / 0  # noqa: B018
    assert (tmp_path / "m" / "key").read_text() == "first"
    put("third", overwrite=True)
    assert [(p.name, p.read_text()) for p in (tmp_path / "m").iterdir()] == [("key", "third")]
    (tmp_path / "m" / "key").rename(tmp_path / "m" / "precious")
    with pytest.raises(BadFile, match="is no folder with a key"):
        put("fourth", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m"]

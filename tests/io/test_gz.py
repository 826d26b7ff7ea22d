"""Gzipped NIfTI: damage is found, whoever packed the file, and it is in memory once."""

from __future__ import annotations

import gzip
import tracemalloc

import make
import nibabel as nib
import numpy as np
import pytest

from attentus import io
from attentus.errors import BadFile
from attentus.io import gz, nifti
from attentus.types import Volume


@pytest.fixture(params=["isal", "gzip"])
def with_and_without(request, monkeypatch):
    """What is tested holds with ISA-L and, where there is none, without."""
    if request.param == "isal":
        pytest.importorskip("isal")
    else:
        monkeypatch.setattr(gz, "igzip", None)
        monkeypatch.setattr(gz, "LEVEL", 1)


@pytest.fixture
def scan(tmp_path):
    """A volume of several slabs, and its file as Python packs it."""
    rng = np.random.default_rng(0)
    volume = Volume(rng.integers(-1000, 1000, (1, 40, 150, 160)).astype(np.int16), make.grid(shape=(40, 150, 160)))
    assert volume.array.nbytes > nifti.SLAB_BYTES
    io.write(volume, tmp_path / "plain.nii")
    packed = tmp_path / "packed.nii.gz"
    packed.write_bytes(gzip.compress((tmp_path / "plain.nii").read_bytes(), 6))
    return volume, packed


def test_others_read_what_is_written_and_it_is_the_same_every_time(with_and_without, scan, tmp_path):
    volume, _ = scan
    for name in ("a", "b"):
        io.write(volume, tmp_path / f"{name}.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()
    read = np.asanyarray(nib.load(tmp_path / "a.nii.gz").dataobj)
    np.testing.assert_array_equal(read.transpose(2, 1, 0), volume.array[0])
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == (tmp_path / "plain.nii").read_bytes()


def test_files_of_several_members_are_read(with_and_without, scan):
    """As bgzip and parallel packers write them."""
    volume, packed = scan
    content = gzip.decompress(packed.read_bytes())
    packed.write_bytes(b"".join(gzip.compress(content[k : k + 99_991]) for k in range(0, len(content), 99_991)))
    np.testing.assert_array_equal(io.read(packed, as_stored=True).as_stored().array, volume.array)


@pytest.mark.parametrize("damage", ["short", "no end", "checksum", "bits", "header"])
def test_damage_is_found(with_and_without, scan, damage):
    _, packed = scan
    content = bytearray(packed.read_bytes())
    if damage in ("short", "no end"):
        del content[-(len(content) // 2 if damage == "short" else 3) :]
    elif damage == "header":
        content = bytearray(gzip.compress(gzip.decompress(content)[:-1000]))  # whole, but too few voxels in it
    else:
        content[-6 if damage == "checksum" else len(content) // 2] ^= 255
    packed.write_bytes(content)
    with pytest.raises(BadFile, match="fewer voxels" if damage == "header" else "end too early or are damaged"):
        io.read(packed)


def test_a_header_that_promises_too_much_takes_no_memory(with_and_without, scan, tmp_path):
    _, packed = scan
    header = bytearray(gzip.decompress(packed.read_bytes()))
    header[42:48] = np.array([32000, 32000, 32000], np.int16).tobytes()
    (tmp_path / "a.nii").write_bytes(header)
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(header))
    for name in ("a.nii", "a.nii.gz"):
        with pytest.raises(BadFile, match="too short for the size that its header says"):
            io.read(tmp_path / name)


@pytest.mark.parametrize("as_stored", [True, False])
@pytest.mark.parametrize("turned", [0, 13, 37])
def test_voxels_are_in_memory_once(tmp_path, turned, as_stored):
    axes = make.ORIENTATIONS[turned]
    array = np.zeros((1, 64, 256, 200), np.int16)
    array[0, 5, 6, 7] = 3
    io.write(Volume(axes.apply(array), make.grid(axes, shape=array.shape[1:])), tmp_path / "a.nii.gz")
    del array
    io.read_grid(tmp_path / "a.nii.gz")
    tracemalloc.start()
    try:
        volume = io.read(tmp_path / "a.nii.gz", as_stored=as_stored)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert volume.array.dtype == (np.int16 if as_stored else np.float32)
    assert volume.source.dtype == "int16"
    assert volume.array.flags.c_contiguous
    assert volume.array[0, 5, 6, 7] == 3
    assert volume.array.nbytes <= peak < volume.array.nbytes + 4 * nifti.SLAB_BYTES
    assert io.bytes_of(tmp_path / "a.nii.gz") == 64 * 256 * 200 * 2


def test_scaled_voxels_are_single_precision(tmp_path):
    stored = np.arange(-500, 500, dtype=np.int16).reshape(10, 10, 10)
    image = nib.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.1, -3)
    nib.save(image, tmp_path / "a.nii.gz")
    expected = np.asanyarray(nib.load(tmp_path / "a.nii.gz").dataobj).astype(np.float32).transpose(2, 1, 0)
    for as_stored in (True, False):
        volume = io.read(tmp_path / "a.nii.gz", as_stored=as_stored).as_stored()
        assert volume.array.dtype == np.float32
        np.testing.assert_array_equal(volume.array[0], expected)
    assert volume.source.dtype == "float32"
    assert io.bytes_of(tmp_path / "a.nii.gz") == 4000


def test_big_endian_files(tmp_path):
    stored = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    nib.save(nib.Nifti1Image(stored, np.eye(4), nib.Nifti1Header(endianness=">")), tmp_path / "a.nii.gz")
    volume = io.read(tmp_path / "a.nii.gz", as_stored=True)
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.as_stored().array[0], stored.transpose(2, 1, 0))


def test_the_size_of_other_images_is_that_of_their_files(tmp_path):
    volume, _ = make.case(1)
    io.write(volume, tmp_path / "a.nrrd")
    assert io.bytes_of(tmp_path / "a.nrrd") == (tmp_path / "a.nrrd").stat().st_size
    files = make.dicom_series(tmp_path / "d", volume)
    assert io.bytes_of(tmp_path / "d") == sum(file.stat().st_size for file in files)

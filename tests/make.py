"""Builds what the tests read: grids in every orientation, volumes with a marker, DICOM series, damaged files."""

from __future__ import annotations

import json
import os
import signal
from contextlib import nullcontext
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from attentus import io
from attentus.recipes import Recipe, build
from attentus.types import AxisMap, Grid, Volume

ORIENTATIONS = [AxisMap(o, f) for o in permutations(range(3)) for f in product((False, True), repeat=3)]
"""All 48 ways to lay three axes along left-right, front-back and foot-head."""


def real_data(*parts: str) -> Path:
    """A path in the collection of real scans, or a skip that says where it was looked for."""
    places = [os.environ.get("ATTENTUS_TEST_DATA"), Path(__file__).parents[2] / "shared" / "data"]
    found = next((Path(p) for p in places if p and Path(p).is_dir()), None)
    if found is None:
        pytest.skip("no real scans here: set ATTENTUS_TEST_DATA to a folder that holds them")
    return found.joinpath(*parts)


def rotation(seed: int, largest_degrees: float = 40.0) -> np.ndarray:
    """A random rotation matrix by at most that angle."""
    rng = np.random.default_rng(seed)
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    angle = np.radians(rng.uniform(0, largest_degrees))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def grid(axes: AxisMap | None = None, *, oblique: int | None = None, shape=(5, 6, 7), spacing=(2.5, 0.8, 0.7)) -> Grid:
    """A grid in a given orientation, turned by a random rotation when `oblique` is its seed."""
    turned = np.eye(3)[::-1] @ (np.eye(3) if oblique is None else rotation(oblique)).T
    base = Grid(shape, spacing, (-31.5, 12.25, 140.75), tuple(tuple(map(float, row)) for row in turned))
    return base.reoriented(axes or AxisMap())


def marked(where: Grid, seed: int = 0) -> tuple[Volume, np.ndarray]:
    """A volume of noise 0..99 with one voxel of 1000, and that voxel's position (L, P, S) mm."""
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 100, size=(1, *where.shape)).astype(np.int16)
    index = tuple(int(rng.integers(n)) for n in where.shape)
    array[0][index] = 1000
    return Volume(array, where), where.world(index)


def marker_position(volume: Volume) -> np.ndarray:
    """World position of the brightest voxel, mm."""
    index = np.unravel_index(int(volume.array[0].argmax()), volume.grid.shape)
    return volume.grid.world(index)


def dicom_series(folder: Path, volume: Volume, *, slope: float = 1.0, intercept: float = 0.0, **tags) -> list[Path]:
    """Write a volume's slices along its first axis as single-frame MR files with shuffled names and numbers.

    Stored values are `(volume - intercept) / slope`; SliceThickness and InstanceNumber are wrong on purpose.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(1).permutation(volume.grid.shape[0])
    study, series, frame = generate_uid(), tags.pop("SeriesInstanceUID", generate_uid()), generate_uid()
    files = []
    for name, k in enumerate(order):
        ds = _slice(volume, int(k), slope, intercept)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.InstanceNumber = name
        ds.SliceThickness = 9.0
        for tag, value in tags.items():
            setattr(ds, tag, value)
        path = folder / f"{name + 1}.dcm"
        ds.save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _slice(volume: Volume, k: int, slope: float, intercept: float) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.PatientID, ds.PatientName, ds.Modality, ds.SeriesDescription = "made", "Made^Up", "MR", "made for a test"
    _placement(ds, volume.grid, k)
    _pixels(ds, np.rint((volume.array[0, k] - intercept) / slope).astype(np.int16))
    ds.RescaleSlope, ds.RescaleIntercept = slope, intercept
    return ds


def _placement(ds: Dataset, where: Grid, k: int) -> None:
    ds.ImagePositionPatient = [_decimal(v) for v in where.world((k, 0, 0))]
    ds.ImageOrientationPatient = [_decimal(v) for v in (*where.direction[2], *where.direction[1])]
    ds.PixelSpacing = [_decimal(where.spacing[1]), _decimal(where.spacing[2])]


def _pixels(ds: Dataset, array: np.ndarray) -> None:
    ds.Rows, ds.Columns = array.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.PixelData = array.tobytes()


def enhanced_dicom(path: Path, volume: Volume) -> Path:
    """Write a volume as one multi-frame object whose frames are in reverse order."""
    ds = _slice(volume, 0, 1.0, 0.0)
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "RescaleSlope", "RescaleIntercept"):
        delattr(ds, tag)
    order = range(volume.grid.shape[0] - 1, -1, -1)
    ds.PerFrameFunctionalGroupsSequence = []
    for k in order:
        place, orientation, group = Dataset(), Dataset(), Dataset()
        both = Dataset()
        _placement(both, volume.grid, k)
        place.ImagePositionPatient = both.ImagePositionPatient
        orientation.ImageOrientationPatient = both.ImageOrientationPatient
        group.PlanePositionSequence, group.PlaneOrientationSequence = [place], [orientation]
        ds.PerFrameFunctionalGroupsSequence.append(group)
    measures, shared = Dataset(), Dataset()
    measures.PixelSpacing = both.PixelSpacing
    shared.PixelMeasuresSequence = [measures]
    ds.SharedFunctionalGroupsSequence = [shared]
    ds.NumberOfFrames = volume.grid.shape[0]
    _pixels(ds, volume.array[0, list(order)].astype(np.int16))
    ds.save_as(path, enforce_file_format=True)
    return path


def edit_dicom(path: Path, **tags) -> None:
    """Change tags of a file in place; None deletes the tag."""
    ds = pydicom.dcmread(path)
    for tag, value in tags.items():
        if value is None:
            delattr(ds, tag)
        else:
            setattr(ds, tag, value)
    ds.save_as(path)


def _decimal(value: float) -> str:
    """At most 16 characters, as DICOM decimal strings must be."""
    return f"{value:.9f}"[:16]


def case(seed: int, shape=(12, 20, 18), spacing=(2.0, 1.0, 1.0), channels: int = 1) -> tuple[Volume, Volume]:
    """A scan that is easy to learn: a bright ball ("core", 1) and a dark box ("shell", 2) in noise, and its labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.uint8)
    corner = [int(rng.integers(1, n // 3)) for n in shape]
    labels[tuple(slice(c, c + n // 3) for c, n in zip(corner, shape, strict=True))] = 2
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1)
    middle = np.array([rng.uniform(0.55 * n, 0.65 * n) for n in shape])
    labels[(((index - middle) * spacing) ** 2).sum(-1) < (0.22 * shape[2]) ** 2] = 1
    image = rng.normal(0, 10, (channels, *shape)) + 100 * (labels == 1) - 80 * (labels == 2)
    where = Grid(shape, spacing, (float(seed), 0.0, 0.0))
    return Volume(image.astype(np.float32), where), Volume(labels[None], where)


def dataset(folder: Path, cases: int = 6, first_seed: int = 0, **options) -> Path:
    """Write a small dataset in MSD layout; every other file lies in another orientation."""
    entries = []
    for k in range(cases):
        turned = ORIENTATIONS[(11 * k) % 48]
        for part, volume in zip(("images", "labels"), case(first_seed + k, **options), strict=True):
            where = volume.grid.reoriented(turned)
            io.write(Volume(turned.apply(volume.array), where), folder / f"{part}Tr" / f"case_{k:02d}.nii.gz")
        entries.append({p: f"./{p}sTr/case_{k:02d}.nii.gz" for p in ("image", "label")})
    names = [f"channel {c}" for c in range(options.get("channels", 1))]
    description = {
        "name": "Made",
        "modality": {str(k): name for k, name in enumerate(names)},
        "labels": {"0": "background", "1": "core", "2": "shell"},
        "training": entries,
    }
    (folder / "dataset.json").write_text(json.dumps(description))
    return folder


def recipe(**changes) -> Recipe:
    """A recipe that learns the cases of `dataset` in seconds; `changes` are overrides such as train__steps=5."""
    tree = {
        "name": "made",
        "about": "for a test",
        "prepare": {"spacing": [2.0, 1.0, 1.0]},
        "net": {"name": "attention-unet", "options": {"feature_scale": 16}},
        "augment": {"flip": ["x"], "affine": 0.3, "rotate": [10, 0, 0], "intensity": 0.2, "noise": 0.1},
        "train": {"patch": [16, 16, 16], "batch": 2, "steps": 12, "validate_every": 6, "checkpoint_every": 1e-3},
        "split": {"folds": 3},
        "infer": {"batch": 2},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = value
    return build(tree, "made")


class Watcher:
    """A progress that remembers what was said, and asks a training to stop at a step, as Ctrl-C does."""

    def __init__(self, stop_at=None):
        self.stop_at, self.said, self.done = stop_at, [], 0

    def say(self, message):
        self.said.append(message)

    def task(self, what, total, done=0):
        self.what, self.done = what, done
        return nullcontext(self)

    def advance(self, steps=1, note="", total=None):
        self.done += steps
        if self.what == "training" and self.done == self.stop_at:
            signal.raise_signal(signal.SIGINT)


def dicom_seg(path: Path, images: list[Path], masks: dict[str, np.ndarray], kind: str = "BINARY", **options) -> Path:
    """Write masks (z, y, x), in the order of the images given, as a DICOM segmentation without its empty frames."""
    from highdicom import seg
    from highdicom.content import AlgorithmIdentificationSequence
    from pydicom.sr.codedict import codes

    how = AlgorithmIdentificationSequence("made", codes.cid7162.ArtificialIntelligence, "1")
    described = [
        seg.SegmentDescription(n, name, codes.SCT.Organ, codes.SCT.Organ, seg.SegmentAlgorithmTypeValues.AUTOMATIC, how)
        for n, name in enumerate(masks, start=1)
    ]
    if kind == "LABELMAP":
        pixels = sum((mask * n for n, mask in enumerate(masks.values(), start=1)), np.uint8(0)).astype(np.uint8)
    else:
        pixels = np.stack(list(masks.values()), axis=-1)
    sources = [pydicom.dcmread(image) for image in images]
    for source in sources:
        for tag in ("PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID", "AccessionNumber"):
            setattr(source, tag, source.get(tag, ""))
    made = seg.Segmentation(
        sources,
        pixels,
        kind,
        described,
        generate_uid(),
        1,
        generate_uid(),
        1,
        "made",
        "made",
        "1",
        "1",
        **options,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    made.save_as(path)
    return path

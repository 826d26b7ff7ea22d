"""Builds what the tests read: grids in every orientation, volumes with a marker, DICOM series, damaged files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from functools import partial
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.ndimage import gaussian_filter

from attentus import io
from attentus.io.dicom import quietly
from attentus.recipes import Recipe, build
from attentus.types import AxisMap, Grid, Prediction, Volume

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


def dicom_series(
    folder: Path, volume: Volume, *, slope=1.0, intercept=0.0, order=None, names="{}.dcm", **tags
) -> list[Path]:
    """Write a volume's slices along its first axis as single-frame MR files with shuffled names and numbers.

    Stored values are `(volume - intercept) / slope`; SliceThickness and InstanceNumber are wrong on purpose. `order`
    has the slices in the order of names and numbers; `names` takes the number, from 1, or is a function of it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(1).permutation(volume.grid.shape[0]) if order is None else order
    named = names.format if isinstance(names, str) else names
    study, series, frame = generate_uid(), tags.pop("SeriesInstanceUID", generate_uid()), generate_uid()
    files = []
    for name, k in enumerate(order):
        ds = _slice(volume, int(k), slope, intercept)
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
        ds.InstanceNumber = name
        ds.SliceThickness = 9.0
        _tag(ds, tags)
        path = folder / named(name + 1)
        quietly(ds.save_as, path, enforce_file_format=True)
        files.append(path)
    return files


def _tag(ds: Dataset, tags: dict[str, object]) -> None:
    """Set tags, be their values as the standard allows or not."""
    for tag, value in tags.items():
        quietly(setattr, ds, tag, value)


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


def enhanced_dicom(path: Path, volume: Volume, **tags) -> Path:
    """Write a volume as one multi-frame object whose frames are in reverse order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ds = _slice(volume, 0, 1.0, 0.0)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    for tag in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(ds, tag, tags.pop(tag, generate_uid()))
    _tag(ds, tags)
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
    quietly(ds.save_as, path, enforce_file_format=True)
    return path


def complaints(file: Path) -> list[str]:
    """What dciodvfy (Debian: dicom3tools) says is wrong with a DICOM file; a skip where it is not installed."""
    lines = subprocess.run([tool("dciodvfy"), "-new", file], capture_output=True, text=True, check=False).stderr
    return [line for line in lines.splitlines() if line.startswith("Error")]


def tool(name: str) -> str:
    """A program on the path or beside this Python, or a skip."""
    found = shutil.which(name) or shutil.which(name, path=Path(sys.executable).parent)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


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


def prediction(
    scan: Volume, names: dict[str, int], *, seed: int = 0, probabilities: bool = False, **more
) -> Prediction:
    """Blobs of the named values in the middle of a scan: its outer slices hold nothing, and one inside neither.

    Probabilities are those of a net that is sure to 0.8, background first.
    """
    shape = scan.grid.shape
    noise = gaussian_filter(np.random.default_rng(seed).normal(size=shape), 0.7)
    labels = np.zeros(shape, np.uint8)
    for level, value in zip(np.linspace(-0.2, 0.3, len(names)), names.values(), strict=True):
        labels[noise > level] = value
    for axis, n in enumerate(shape):
        edge = np.moveaxis(labels, axis, 0)
        edge[[0, n // 2, n - 1] if n > 4 else []] = 0
    maps = None
    if probabilities:
        values = np.array([0, *names.values()])[:, None, None, None]
        chance = np.where(labels == values, 0.8, 0.2 / len(names))
        maps = scan.like(chance.astype(np.float16))
    return Prediction(scan.like(labels[None]), names, maps, model="made", **more)


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


def anatomy(seed: int, labels: int = 2, axes: AxisMap | None = None, channels: int = 1) -> tuple[Volume, Volume]:
    """A scan whose values tell its labels: every voxel is 100 times its label, plus 10 per channel; and the labels."""
    where = grid(axes, shape=(6, 9, 8))
    drawn = np.random.default_rng(seed).integers(0, labels + 1, size=(1, *where.shape)).astype(np.uint8)
    image = np.concatenate([100 * drawn.astype(np.int16) + 10 * k for k in range(channels)])
    return Volume(image, where), Volume(drawn, where)


def told(labels: np.ndarray, values=(1, 2)) -> np.ndarray:
    """What `anatomy` shows where labels are stored as these values."""
    return sum(100 * k * (labels == value) for k, value in enumerate(values, start=1))


def picture(path: Path, array: np.ndarray, mode: str | None = None) -> None:
    """Write (y, x) as PNG or TIFF; mode "1" is one bit per pixel."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path)


def lits(folder: Path, cases: int = 3) -> Path:
    """LiTS: volumes and segmentations in two batches, the second nested as its archive nests it; a test volume."""
    for k in range(cases):
        place = folder / "Training Batch 1" if k % 2 else folder / "nas" / "LITS" / "Training Batch 2"
        image, labels = anatomy(k, axes=ORIENTATIONS[7 * k % 48])
        io.write(image, place / f"volume-{k}.nii")
        io.write(labels, place / f"segmentation-{k}.nii")
    io.write(anatomy(99)[0], folder / "test-volume-0.nii")
    return folder


def ircadb(folder: Path, patients: int = 2) -> Path:
    """3D-IRCADb-01: files without endings; seven masks that overlap, two of them tumours, none in the last patient."""
    for k in range(1, patients + 1):
        image, labels = anatomy(k, labels=4)
        home, drawn, some = folder / f"3Dircadb1.{k}", labels.array[0], k < patients
        dicom_series(home / "PATIENT_DICOM", image, order=range(6), names=lambda n: f"image_{n - 1}")
        first = np.arange(drawn.shape[2]) < 4
        masks = {
            "skin": drawn >= 0,
            "liver": (drawn == 1) | (drawn == 2) | (drawn == 3),
            "portalvein": (drawn == 3) | (drawn == 4),
            "livertumor01": (drawn == 2) & first & some,
            "livertumor02": (drawn == 2) & ~first & some,
            "Gizmo2": (drawn == 4) & (k == 1),
        }
        for name, mask in masks.items():
            if mask.any():
                series = labels.like(255 * mask[None].astype(np.int16))
                place = home / "MASKS_DICOM" / name
                dicom_series(place, series, order=range(6), names=lambda n: f"image_{n - 1}")
    return folder


def chaos_ct(folder: Path, patients: int = 2) -> Path:
    """CHAOS, CT: slices named from the head down; ground truth of one bit, numbered from 0."""
    for k in range(1, patients + 1):
        image, labels = anatomy(k, labels=1)
        home, down = folder / "Train_Sets" / "CT" / str(k), range(5, -1, -1)
        dicom_series(home / "DICOM_anon", image, order=down, names=lambda n: f"i{n - 1:04d},0000b.dcm")
        for number, z in enumerate(down):
            picture(home / "Ground" / f"liver_GT_{number:03d}.png", labels.array[0, z] > 0, "1")
    return folder


def chaos_mr(folder: Path, patients: int = 2) -> Path:
    """CHAOS, MR: T1-DUAL numbers its files out of phase, in phase, out of phase ...; grey codes, not quite exact."""
    codes = np.array([0, 63, 126, 189, 252], np.uint8)
    for k in range(1, patients + 1):
        home, order = folder / "Train_Sets" / "MR" / str(k), [2, 0, 1, 5, 4, 3]
        for kind, step in (("T1DUAL", 2), ("T2SPIR", 1)):
            image, labels = anatomy(10 * k + step, labels=4, channels=2)
            phases = {"InPhase": 0, "OutPhase": 1} if kind == "T1DUAL" else {"": 0}
            for phase, channel in phases.items():
                series = image.like(image.array[channel : channel + 1])
                place = home / kind / "DICOM_anon" / phase
                dicom_series(place, series, order=order, names=partial(_chaos_name, step, channel))
            for number, z in enumerate(order, start=1):
                grey = codes[labels.array[0, z]] + (labels.array[0, z] > 0) * np.uint8(number % 3)
                picture(home / kind / "Ground" / f"IMG-0004-{step * number:05d}.png", grey)
    return folder


def _chaos_name(step: int, channel: int, number: int) -> str:
    return f"IMG-0004-{step * number - channel:05d}.dcm"


def brats(folder: Path, year: int = 2020, cases: int = 3) -> Path:
    """BraTS: channels shown by their last digit, flair 0, t1 10, t1ce 20, t2 30; enhancing tumour 4, in 2023 3."""
    ends = ("-t2f", "-t1n", "-t1c", "-t2w") if year >= 2023 else ("_flair", "_t1", "_t1ce", "_t2")
    for k in range(cases):
        image, labels = anatomy(k, labels=3, channels=4, axes=ORIENTATIONS[5])
        name = f"BraTS-GLI-{k // 2:05d}-{k % 2:03d}" if year >= 2023 else f"BraTS20_Training_{k:03d}"
        grade = folder / name if year >= 2020 else folder / ("HGG" if k % 2 else "LGG") / name
        for channel, end in enumerate(ends):
            io.write(image.like(image.array[channel : channel + 1]), grade / f"{name}{end}.nii.gz")
        stored = labels.array if year >= 2023 else np.where(labels.array == 3, 4, labels.array).astype(np.uint8)
        seg = "W39_1998.09.19_Segm.nii.gz" if year == 2020 and k == 1 else f"{name}{ends[0][0]}seg.nii.gz"
        io.write(labels.like(stored), grade / seg)
    return folder


def brats2015(folder: Path, cases: int = 2) -> Path:
    """BraTS 2015: .mha in a folder each, named by what they show."""
    for k in range(1, cases + 1):
        image, labels = anatomy(k, labels=4, channels=4)
        home = folder / "HGG" / f"brats_2013_pat{k:04d}_1"
        for channel, end in enumerate(("Flair", "T1", "T1c", "T2")):
            name = f"VSD.Brain.XX.O.MR_{end}.{54500 + channel}"
            io.write(image.like(image.array[channel : channel + 1]), home / name / f"{name}.mha")
        name = f"VSD.Brain_3more.XX.XX.OT.{54510 + k}"
        io.write(labels, home / name / f"{name}.mha")
    return folder


def pancreas_ct(folder: Path, cases: int = 2) -> Path:
    """Pancreas-CT: the images as an archive nests them, numbered from feet to head (the last from head to feet); labels
    whose x, y, z are columns, rows and numbers of images, and whose header says otherwise."""
    import nibabel as nib

    for k in range(1, cases + 1):
        image, labels = anatomy(k, labels=1)
        order = range(6) if k < cases else range(5, -1, -1)
        series = folder / "Pancreas-CT" / f"PANCREAS_{k:04d}" / "11-24-2015-Pancreas" / "Pancreas-63502"
        dicom_series(series, image, order=order, names=lambda n: f"1-{n:03d}.dcm")
        stored = labels.array[0, list(order)].transpose(2, 1, 0)
        place = folder / "TCIA_pancreas_labels-02-05-2017" / f"label{k:04d}.nii.gz"
        place.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(stored, np.diag([*image.grid.spacing[::-1], 1.0])), place)
    return folder


def nnunet(folder: Path, cases: int = 4, **changes) -> Path:
    """nnU-Net version 2, raw: two channels; `changes` go into dataset.json."""
    for k in range(cases):
        image, labels = anatomy(k, labels=3, channels=2, axes=ORIENTATIONS[11 * k % 48])
        for channel in range(2):
            part = image.like(image.array[channel : channel + 1])
            io.write(part, folder / "imagesTr" / f"bowl_{k:02d}_{channel:04d}.nii.gz")
        io.write(labels, folder / "labelsTr" / f"bowl_{k:02d}.nii.gz")
    described = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "rim": 1, "soup": 2, "ignore": 3},
        "numTraining": cases,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(described | changes))
    return folder


def bids(folder: Path, subjects: int = 3, *, masks: bool = False) -> Path:
    """BIDS: T1w and FLAIR, two sessions of the last subject; labels as dseg with a table, or as one mask each."""
    (folder / "derivatives" / "manual").mkdir(parents=True)
    (folder / "dataset_description.json").write_text('{"Name": "Made", "BIDSVersion": "1.9.0"}')
    visits = [(f"sub-{k:02d}", "") for k in range(1, subjects)]
    visits += [(f"sub-{subjects:02d}", f"ses-{s}") for s in (1, 2)]
    for seed, visit in enumerate(visits):
        image, labels = anatomy(seed, channels=2, axes=ORIENTATIONS[3])
        anat, name = Path(*filter(None, visit), "anat"), "_".join(filter(None, visit))
        for channel, suffix in enumerate(("FLAIR", "T1w")):
            io.write(image.like(image.array[channel : channel + 1]), folder / anat / f"{name}_{suffix}.nii.gz")
        drawn = folder / "derivatives" / "manual" / anat
        if masks:
            for value, what in enumerate(("label-cord", "desc-lesion"), start=1):
                mask = labels.like((labels.array == value).astype(np.uint8))
                io.write(mask, drawn / f"{name}_{what}_mask.nii.gz")
        else:
            io.write(labels, drawn / f"{name}_space-orig_dseg.nii.gz")
    if not masks:
        table = "index\tname\n0\tbackground\n1\tcord\n2\tlesion\n"
        (folder / "derivatives" / "manual" / "dseg.tsv").write_text(table)
    return folder


def listed(folder: Path, cases: int = 4) -> Path:
    """Files called anything, and a CSV that says what they are; returns the CSV."""
    rows = ["Case;FLAIR;PET;Label;Patient;Age;Split"]
    for k in range(cases):
        image, labels = anatomy(k, channels=2)
        for channel in range(2):
            io.write(image.like(image.array[channel : channel + 1]), folder / "x" / f"{k}{channel}.nrrd")
        io.write(labels, folder / "y" / f"truth{k}.nii.gz")
        side = ("train", "train", "validation", "test")[k % 4]
        rows.append(f"c{k};x/{k}0.nrrd;x/{k}1.nrrd;y/truth{k}.nii.gz;p{k // 2};{40 + k};{side}")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n", encoding="utf-8-sig")
    return folder / "cases.csv"


def stacks(folder: Path, cases: int = 2) -> Path:
    """Slices as PNG without leading zeros, a folder per case; eleven of them, so that names sort wrongly as text."""
    for k in range(cases):
        drawn = np.random.default_rng(k).integers(0, 3, size=(11, 5, 4)).astype(np.uint8)
        for z in range(11):
            picture(folder / "images" / f"p{k}" / f"s{z}.png", 100 * drawn[z])
            picture(folder / "labels" / f"p{k}" / f"s{z}.png", drawn[z])
    return folder


def outline(where: Grid, k: float, box: tuple[float, float, float, float]) -> np.ndarray:
    """A rectangle around the pixels y0..y1-1, x0..x1-1 of slice k, as contour points (4, 3) in (L, P, S) mm."""
    y0, y1, x0, x1 = (edge - 0.5 for edge in box)
    return where.world([[k, y0, x0], [k, y0, x1], [k, y1, x1], [k, y1, x0]])


def rtstruct(path: Path, drawn_on: Path, structures: dict[str, list[np.ndarray]], **tags) -> Path:
    """Write closed contours as an RTSTRUCT that refers to the series of an image file."""
    image = pydicom.dcmread(drawn_on, stop_before_pixels=True)
    ds = _slice(Volume.from_array(np.zeros((1, 1, 1))), 0, 1.0, 0.0)
    for tag in ("PixelData", "Rows", "Columns", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(ds, tag)
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    ds.Modality, ds.SeriesInstanceUID, ds.SeriesDescription = "RTSTRUCT", generate_uid(), "contours"
    for tag in ("PatientID", "PatientName", "StudyInstanceUID"):
        setattr(ds, tag, image.get(tag, ""))
    series, study, frame = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = image.SeriesInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = image.FrameOfReferenceUID, [study]
    ds.ReferencedFrameOfReferenceSequence = [frame]
    ds.StructureSetROISequence, ds.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(structures.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        drawn.ReferencedROINumber, drawn.ContourSequence = number, []
        for points in contours:
            item = Dataset()
            item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            item.ContourData = [_decimal(v) for v in points.ravel()]
            drawn.ContourSequence.append(item)
        ds.StructureSetROISequence.append(roi)
        ds.ROIContourSequence.append(drawn)
    for tag, value in tags.items():
        setattr(ds, tag, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    ds.save_as(path, enforce_file_format=True)
    return path


TREE_GRIDS = {
    "CT": Grid((8, 24, 20), (3.0, 1.5, 1.5), (-10.0, 5.0, 100.0)),
    "PT": Grid((6, 12, 10), (4.0, 3.0, 3.0), (-9.0, 6.0, 103.0)),
}


def dicom_tree(folder: Path) -> dict[str, dict[str, np.ndarray]]:
    """Write two patients with CT and PET, labelled by contours and by a SEG; files lie anyhow, without endings.

    Returns:
        For each PatientID the true mask (z, y, x) of each label on the CT's grid, overlaps included.
    """
    liver, tumour = np.zeros(TREE_GRIDS["CT"].shape, bool), np.zeros(TREE_GRIDS["CT"].shape, bool)
    liver[2:6, 4:18, 3:15] = True
    liver[3, 8:10, 5:7] = False  # a hole
    tumour[3:5, 11:14, 8:12] = True
    where = TREE_GRIDS["CT"]
    contours = {
        "Liver": [*(outline(where, k, (4, 18, 3, 15)) for k in range(2, 6)), outline(where, 3, (8, 10, 5, 7))],
        "GTV 1": [outline(where, k, (11, 14, 8, 12)) for k in (3, 4)],
        "couch": [outline(where, 0, (20, 22, 2, 18))],
    }
    for number, patient in enumerate(("Miller^77", "Smith^12")):
        study, frame = generate_uid(), generate_uid()
        series = {}
        for seed, (modality, grid_) in enumerate(TREE_GRIDS.items()):
            tags = {"PatientID": patient, "PatientName": patient, "StudyInstanceUID": study, "Modality": modality}
            tags |= {"FrameOfReferenceUID": frame, "SeriesDescription": f"{modality} of the body", "SeriesNumber": seed}
            files = dicom_series(folder / patient / modality, marked(grid_, 2 * number + seed)[0], **tags)
            series[modality] = sorted(files, key=lambda f: float(pydicom.dcmread(f).ImagePositionPatient[2]))
        if patient == "Miller^77":
            rtstruct(folder / patient / "RS", series["CT"][0], contours)
        else:
            dicom_seg(folder / "seg", series["CT"], {"liver": liver.astype(np.uint8), "GTV 1": tumour.astype(np.uint8)})
    for k, file in enumerate(sorted(folder.rglob("*.dcm"))):
        place = folder / f"part{k % 3}"
        place.mkdir(exist_ok=True)
        file.rename(place / f"IM{k:04d}")
    (folder / "DICOMDIR").write_bytes(b"an index")
    (folder / "notes.txt").write_text("no image")
    return {patient: {"Liver": liver, "GTV 1": tumour} for patient in ("Miller^77", "Smith^12")}

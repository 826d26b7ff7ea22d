"""Segment a scan with this bundle. Needs Python 3.10 or later, numpy and onnxruntime, and nothing else.

    python segment.py scan.nii.gz -o labels.nii.gz
    python segment.py t1.nii.gz t2.nii.gz -o labels.nii.gz      one file per channel, in the order of bundle.json

Scans are NIfTI-1 (.nii, .nii.gz); results lie on the scan's own grid. The bundle is the folder or the zip file that
this file lies in (`PYTHONPATH=bundle.zip python -m segment ...`). Its checksums are compared before anything is used;
they tell damage, not forgery. bundle.json is plain data, model.onnx holds no code. From Python:

    from segment import Bundle, read_nifti
    found = Bundle("bundle").segment(read_nifti(["scan.nii.gz"]))

Arrays are (C, z, y, x), spacing is (z, y, x) in mm.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import sys
import zipfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, combinations, permutations, product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    Config = dict[str, Any]
    Maps = NDArray[np.float32]
    Triple = tuple[int, int, int]

FORMAT, VERSION = "attentus-bundle", 1
SUMS = "SHA256SUMS"
TINY = 1e-8


class BundleError(ValueError):
    """The bundle or the scan cannot be used; the message says why."""


# The bundle: files, checksums, network -------------------------------------------------------------------------------


class Bundle:
    """A model with everything around it.

    Args:
        root: folder or zip file.
        threads: of the processor; 0: one per physical core.

    Raises:
        BundleError: a file is missing or damaged, or the format is a later one.
    """

    def __init__(self, root: str | Path, threads: int = 0) -> None:
        import onnxruntime

        files = verified(Path(root))
        self.config: Config = json.loads(files["bundle.json"])
        if (self.config.get("format"), self.config.get("version")) != (FORMAT, VERSION):
            raise BundleError(f"{root}: this program reads {FORMAT} {VERSION}; the bundle says otherwise.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(files["model.onnx"], options, providers=["CPUExecutionProvider"])

    def segment(self, scan: Scan, *, probabilities: bool = False) -> Result:
        """Segment a scan.

        Args:
            scan: with the channels that `config["channels"]` lists.
            probabilities: keep them.

        Raises:
            BundleError: other channels, or values that are not finite.
        """
        config, image = self.config, scan.canonical()
        if len(image) != len(config["channels"]):
            raise BundleError(f"the scan has {len(image)} channel(s), the model takes {', '.join(config['channels'])}.")
        prepared = prepare(image, scan.spacing, config["prepare"])
        logits = walk(prepared, config, self._run)
        logits[config["mute"]] = -1e30
        labels, kept = decided(logits, prepared, image.shape[1:], config, probabilities=probabilities)
        clean(labels, float(np.prod(scan.spacing)) / 1000, config)
        return Result(scan.back(labels[None])[0], None if kept is None else scan.back(kept))

    def _run(self, windows: Maps) -> Maps:
        """Windows (n, C, z, y, x) to logits (n, K, z, y, x)."""
        batch, flat = self.config["window"]["batch"], self.config["dims"] == 2
        full = np.zeros((batch, *windows.shape[1:]), np.float32)
        full[: len(windows)] = windows
        [logits] = self._session.run(["logits"], {"image": full[:, :, 0] if flat else full})
        found: Maps = (logits[:, :, None] if flat else logits)[: len(windows)]
        return found


@dataclass(frozen=True)
class Result:
    """Labels (z, y, x) and probabilities (K, z, y, x) on the grid of the scan's file."""

    labels: NDArray[np.unsignedinteger]
    probabilities: NDArray[np.float16] | None = None


def verified(root: Path) -> dict[str, bytes]:
    """All files of a bundle, their checksums compared with SHA256SUMS.

    Raises:
        BundleError: no bundle, a file is missing, or differs from what it was.
    """
    try:
        if root.is_dir():
            names = [path.name for path in root.iterdir() if path.is_file()]
            files = {name: (root / name).read_bytes() for name in names}
        else:
            with zipfile.ZipFile(root) as whole:
                files = {name: whole.read(name) for name in whole.namelist()}
    except (OSError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{root}: cannot be read ({error}). Copy the bundle again.") from None
    listed = [line.split("  ", 1) for line in files.get(SUMS, b"").decode("utf-8", "replace").splitlines()]
    sums = {name: digest for digest, name in (pair for pair in listed if len(pair) == 2)}
    for name in {"bundle.json", "model.onnx", *sums}:
        if name not in files or name not in sums:
            raise BundleError(f"{root}: is no whole bundle: {name} is missing, or {SUMS} does not list it.")
        if hashlib.sha256(files[name]).hexdigest() != sums[name]:
            raise BundleError(f"{root}: {name} is damaged (its checksum differs from {SUMS}). Copy the bundle again.")
    return files


# NIfTI ----------------------------------------------------------------------------------------------------------------

HEADER = {
    "sizeof_hdr": ("i4", 0),
    "dim": ("8i2", 40),
    "datatype": ("i2", 70),
    "bitpix": ("i2", 72),
    "pixdim": ("8f4", 76),
    "vox_offset": ("f4", 108),
    "scl_slope": ("f4", 112),
    "scl_inter": ("f4", 116),
    "xyzt_units": ("u1", 123),
    "form_codes": ("2i2", 252),
    "quatern": ("3f4", 256),
    "qoffset": ("3f4", 268),
    "srow": ("(3,4)f4", 280),
    "magic": ("S4", 344),
}
"""The fields of a NIfTI-1 header that count here: type and offset."""
GEOMETRY = ("pixdim", "xyzt_units", "form_codes", "quatern", "qoffset", "srow")
CODES = (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280)
TYPES = dict(zip(CODES, ("u1", "i2", "i4", "f4", "f8", "i1", "u2", "u4", "i8", "u8"), strict=True))
"""Number types by their code."""
TO_MM = {1: 1000.0, 3: 0.001}


@dataclass(frozen=True)
class Scan:
    """Voxels as a file stores them, and where they lie.

    Args:
        array: (C, z, y, x).
        affine: 4x4, takes (z, y, x, 1) to (L, P, S, 1) in mm.
        header: of the file, for results on the same grid.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64]
    header: Any = None

    @property
    def spacing(self) -> NDArray[np.float64]:
        """(z, y, x) mm in the canonical orientation."""
        stored: NDArray[np.float64] = np.linalg.norm(self.affine[:3, :3].T, axis=1)
        return stored[list(self._axes()[0])]

    def canonical(self) -> NDArray[Any]:
        """The voxels with z from feet to head, y from front to back, x from right to left."""
        order, flip = self._axes()
        moved = self.array.transpose(0, *(1 + axis for axis in order))
        return moved[(slice(None), *(slice(None, None, -1 if f else 1) for f in flip))]

    def back(self, array: NDArray[Any]) -> NDArray[Any]:
        """(C, z, y, x) in the canonical orientation as the file stores it."""
        order, flip = self._axes()
        turned = array[(slice(None), *(slice(None, None, -1 if f else 1) for f in flip))]
        return turned.transpose(0, *(1 + order.index(axis) for axis in range(3)))

    def _axes(self) -> tuple[Triple, tuple[bool, ...]]:
        """For each canonical axis the stored one it comes from, and whether it runs the other way."""
        axes = self.affine[:3, :3].T
        lengths = np.linalg.norm(axes, axis=1)
        if not np.isfinite(self.affine).all() or (lengths <= 0).any():
            raise BundleError("the geometry in the scan's header is not a usable matrix.")
        direction = axes / lengths[:, None]
        if np.abs(direction @ direction.T - np.eye(3)).max() > np.sin(np.radians(0.1)):
            raise BundleError("the scan's voxel axes are sheared; resample it to right angles first.")
        close, world = np.round(np.abs(direction), 6), (2, 1, 0)
        order = max(permutations(range(3)), key=lambda o: close[list(o), list(world)].sum())
        z, y, x = order
        return (z, y, x), tuple(bool(direction[order[k]][world[k]] < 0) for k in range(3))


def read_nifti(paths: Sequence[str | Path]) -> Scan:
    """Read one file with all channels, or one per channel.

    Raises:
        BundleError: no NIfTI-1, damaged, of an unusable kind, or files on different grids.
    """
    scans = [_read_one(Path(path)) for path in paths]
    for path, scan in zip(paths, scans, strict=True):
        same = scan.array.shape[1:] == scans[0].array.shape[1:]
        if not same or np.abs(scan.affine - scans[0].affine).max() > 0.05:
            raise BundleError(f"{path} lies on another grid than {paths[0]}.")
    return Scan(np.concatenate([scan.array for scan in scans]), scans[0].affine, scans[0].header)


def write_nifti(path: str | Path, array: NDArray[Any], scan: Scan) -> None:
    """Write (z, y, x) or (C, z, y, x) on the grid of a scan that was read; compressed if the name ends with .gz."""
    codes = {kind: code for code, kind in TYPES.items()}
    stored = array.astype(np.float32) if array.dtype == np.float16 else array
    header = np.zeros((), _header_type("<"))
    header["sizeof_hdr"], header["magic"], header["vox_offset"] = 348, b"n+1", 352
    header["datatype"], header["bitpix"] = codes[stored.dtype.str[1:]], stored.dtype.itemsize * 8
    header["dim"] = [stored.ndim, *stored.shape[::-1], *[1] * (7 - stored.ndim)]
    for name in GEOMETRY:
        header[name] = scan.header[name]
    header["pixdim"][4:] = 0
    content = header.tobytes() + bytes(4) + stored.astype(stored.dtype.newbyteorder("<")).tobytes()
    Path(path).write_bytes(gzip.compress(content, 6) if str(path).endswith(".gz") else content)


def _header_type(order: str) -> np.dtype[Any]:
    formats = [f"{kind[: len(kind) - 2]}{order}{kind[-2:]}" for kind, _ in HEADER.values()]
    offsets = [offset for _, offset in HEADER.values()]
    return np.dtype({"names": list(HEADER), "formats": formats, "offsets": offsets, "itemsize": 348})


def _read_one(path: Path) -> Scan:
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise BundleError(f"{path}: cannot be read ({error}).") from None
    order = "<" if content[:4] == (348).to_bytes(4, "little") else ">"
    if len(content) < 348 or content[344:346] != b"n+" or int.from_bytes(content[:4], _NAMED[order]) != 348:
        raise BundleError(f"{path}: is no NIfTI-1 file (.nii or .nii.gz).")
    header = np.frombuffer(content, _header_type(order), 1)[0]
    kind = TYPES.get(int(header["datatype"]))
    if kind is None:
        raise BundleError(f"{path}: numbers of type {int(header['datatype'])}; save it as integers or floating point.")
    count = int(header["dim"][0])
    shape = [int(n) for n in header["dim"][1 : 1 + count]] + [1] * (3 - count)
    rest = [n for n in shape[3:] if n != 1] or [1]
    start, size = int(header["vox_offset"]), int(np.prod(shape))
    if not 2 <= count <= 7 or min(shape) < 1 or len(rest) > 1 or len(content) < start + size * np.dtype(kind).itemsize:
        raise BundleError(f"{path}: is cut off, or has another shape than x, y, z and channels ({shape}).")
    array = np.frombuffer(content, np.dtype(order + kind), size, start).reshape(*rest, *shape[2::-1])
    array = array.astype(array.dtype.newbyteorder("="))
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope != 0 and np.isfinite(slope) and (slope, inter) != (1, 0):
        array = array * slope + inter
    return Scan(array, _affine(header, shape), header)


_NAMED: dict[str, Any] = {"<": "little", ">": "big"}


def _affine(header: Any, shape: Sequence[int]) -> NDArray[np.float64]:
    """(z, y, x, 1) to (L, P, S, 1) mm: the sform, or the qform, or the voxel sizes alone."""
    matrix = np.eye(4)
    zooms = header["pixdim"][1:4].astype(float)
    qform, sform = (int(code) for code in header["form_codes"])
    if sform:
        matrix[:3] = header["srow"]
    elif qform:
        b, c, d = header["quatern"].astype(float)
        a = np.sqrt(max(0.0, 1 - b * b - c * c - d * d))
        turn = [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
        matrix[:3, :3] = np.array(turn) * zooms * (1, 1, -1 if header["pixdim"][0] < 0 else 1)
        matrix[:3, 3] = header["qoffset"]
    else:
        matrix[:3, :3] = np.diag(zooms * (-1, 1, 1))
        matrix[:3, 3] = -matrix[:3, :3] @ (np.array(shape[:3]) - 1) / 2
    matrix[:3] *= TO_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    placed: NDArray[np.float64] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix @ np.eye(4)[[2, 1, 0, 3]]
    return placed


# Preparation ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """What the network sees: voxels (C, z, y, x), the box of the scan they come from, how values were scaled."""

    array: Maps
    start: Triple
    stop: Triple
    scales: tuple[Scale, ...]
    outside: tuple[float, ...]

    @property
    def box(self) -> tuple[slice, ...]:
        """The crop as slices of the scan."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))


def prepare(image: NDArray[Any], spacing: NDArray[np.float64], how: Config) -> Prepared:
    """Crop, scale and resample a scan (C, z, y, x).

    Raises:
        BundleError: values that are not finite.
    """
    if image.dtype.kind == "f" and not np.isfinite(image).all():
        raise BundleError("the scan holds values that are not finite numbers.")
    start, stop = _sized(*_foreground(image, spacing, how), image.shape[1:], how["crop_size"])
    cropped = image[(slice(None), *(slice(a, b) for a, b in zip(start, stop, strict=True)))]
    specs = how["intensity"] * (len(image) if len(how["intensity"]) == 1 else 1)
    scales = tuple(Scale(channel, spec) for channel, spec in zip(cropped, specs, strict=True))
    scaled = np.stack([scale(channel) for channel, scale in zip(cropped, scales, strict=True)])
    outside = tuple(float(scale(channel.min())) for channel, scale in zip(cropped, scales, strict=True))
    extents = [(b - a) * s for a, b, s in zip(start, stop, spacing, strict=True)]
    wishes = [None] * 3 if how["spacing"] == "keep" else how["spacing"]
    sizes = how["size"] or [None] * 3
    targets = [e / n if n else w or s for e, n, w, s in zip(extents, sizes, wishes, spacing, strict=True)]
    shape = [max(1, round(float(e / t))) for e, t in zip(extents, targets, strict=True)]
    return Prepared(resample(scaled, shape, how["order"], how["anti_alias"]), start, stop, scales, outside)


class Scale:
    """How the values of one channel become what the network sees."""

    def __init__(self, channel: NDArray[Any], how: Config) -> None:
        self.how = how
        limits: Sequence[float] = how["window"] or self._range(channel)
        moments: Sequence[float] = (0.0, 1.0)
        if how["normalise"] in ("zscore", "zscore-nonzero"):
            moments = how["moments"] or self._moments(channel, limits)
        (self.low, self.high), (self.mean, self.deviation) = limits, moments

    def __call__(self, values: NDArray[Any]) -> Maps:
        """Clip and normalise any part of the channel."""
        clipped = np.clip(values.astype(np.float32), self.low, self.high)
        if self.how["normalise"] == "none":
            return clipped
        if self.how["normalise"] == "range":
            return (clipped - np.float32(self.low)) / np.float32(max(self.high - self.low, TINY))
        scaled = (clipped - np.float32(self.mean)) / np.float32(max(self.deviation, TINY))
        return np.where(values != 0, scaled, np.float32(0)) if self._nonzero else scaled

    @property
    def _nonzero(self) -> bool:
        return bool(self.how["normalise"] == "zscore-nonzero")

    def _range(self, channel: NDArray[Any]) -> tuple[float, float]:
        values = channel[channel != 0] if self._nonzero and (channel != 0).any() else channel
        if self.how["percentiles"]:
            low, high = (float(np.percentile(values.astype(np.float32), p)) for p in self.how["percentiles"])
            return low, high
        return float(values.min()), float(values.max())

    def _moments(self, channel: NDArray[Any], limits: Sequence[float]) -> tuple[float, float]:
        """Mean and deviation of the clipped values, plane by plane."""
        planes = [plane[plane != 0] if self._nonzero else plane for plane in channel]
        low, high = limits
        clipped = [np.clip(plane.astype(np.float32), low, high).astype(np.float64) for plane in planes]
        count = sum(plane.size for plane in clipped)
        if not count:
            return 0.0, 1.0
        mean = sum(float(plane.sum()) for plane in clipped) / count
        return mean, (sum(float(np.square(plane - mean).sum()) for plane in clipped) / count) ** 0.5


def _foreground(image: NDArray[Any], spacing: NDArray[Any], how: Config) -> tuple[Triple, Triple]:
    """The box of what lies above a threshold in any channel, a block wider if blocks are asked for; else everything."""
    shape, threshold, block = image.shape[1:], how["crop_above"], how["crop_block"]
    if threshold is None:
        return (0, 0, 0), (shape[0], shape[1], shape[2])
    edges = [np.arange(n + 1) for n in shape]
    if block:
        counts = [min(max(round(float(n * mm / block)), 1), n) for n, mm in zip(shape, spacing, strict=True)]
        edges = [np.array([round(k * n / m) for k in range(m + 1)]) for n, m in zip(shape, counts, strict=True)]
        image = _block_means(image, edges)
    above = (image > threshold).any(axis=0)
    if not above.any():
        return (0, 0, 0), (shape[0], shape[1], shape[2])
    wider = 1 if block else 0
    used = [np.flatnonzero(above.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    start = [int(e[max(u[0] - wider, 0)]) for e, u in zip(edges, used, strict=True)]
    stop = [int(e[min(u[-1] + 1 + wider, len(e) - 1)]) for e, u in zip(edges, used, strict=True)]
    return (start[0], start[1], start[2]), (stop[0], stop[1], stop[2])


def _block_means(image: NDArray[Any], edges: Sequence[NDArray[Any]]) -> Maps:
    """Means (C, *blocks) over the blocks between edges, slice by slice."""
    z, y, x = (np.diff(e) for e in edges)
    down, across = (np.repeat(np.diag(1 / n), n, axis=0).astype(np.float32) for n in (y, x))
    means = np.zeros((len(image), len(z), len(y), len(x)), np.float32)
    for block, (first, count) in enumerate(zip(edges[0], z, strict=False)):
        for row in range(first, first + count):
            means[:, block] += down.T @ (image[:, row].astype(np.float32) @ across)
        means[:, block] /= count
    return means


def _sized(start: Triple, stop: Triple, shape: Sequence[int], wanted: Any) -> tuple[Triple, Triple]:
    """A box brought to wanted sizes about its centre and moved into the scan."""
    corners = []
    for first, last, full, size in zip(start, stop, shape, wanted or [None] * 3, strict=True):
        if size is None or size >= full:
            corners.append((first, last) if size is None else (0, full))
        else:
            low = min(max((first + last - size) // 2, 0), full - size)
            corners.append((low, low + size))
    z, y, x = corners
    return (z[0], y[0], x[0]), (z[1], y[1], x[1])


def resample(array: Maps, shape: Sequence[int], order: int = 1, anti_alias: float = 0.0) -> Maps:
    """Resample (C, z, y, x) to another number of voxels over the same field of view, axis by axis."""
    growth = [new / old for new, old in zip(shape, array.shape[1:], strict=True)]
    for axis in np.argsort(growth):
        if growth[axis] != 1:
            matrix = mixing(array.shape[1 + axis], shape[axis], order, anti_alias if growth[axis] < 1 else 0.0)
            array = mixed(array, matrix, int(axis))
    return np.ascontiguousarray(array)


def mixed(array: Maps, matrix: Maps, axis: int) -> Maps:
    """Replace the samples along a spatial axis by mixtures of them."""
    moved: Maps = np.moveaxis(np.tensordot(matrix, array, (1, 1 + axis)), 0, 1 + axis)
    return moved


@lru_cache(maxsize=64)
def mixing(old: int, new: int, order: int, blur: float) -> Maps:
    """How each of `new` samples is mixed from `old` ones: linear or cubic B-spline, edges repeated, blurred before."""
    where = (np.arange(new) + 0.5) * old / new - 0.5
    if order == 1:
        where = np.clip(where, 0, old - 1)
        exact = np.maximum(0, 1 - np.abs(where[:, None] - np.arange(old)))
    else:
        pad = 12  # the filter has forgotten the edge by then
        n = old + 2 * pad
        filtered = (4 * np.eye(n) + np.eye(n, k=1) + np.eye(n, k=-1)) / 6
        filtered[0, 0] = filtered[-1, -1] = 5 / 6
        far = np.abs(where[:, None] + pad - np.arange(n))
        spline = np.where(far < 1, 2 / 3 - far**2 + far**3 / 2, np.maximum(0, 2 - far) ** 3 / 6)
        exact = _folded(np.linalg.solve(filtered.T, spline.T).T, pad)
    if blur:
        reach = int(4 * blur + 0.5)
        bell = np.exp(-0.5 * (np.arange(-reach, reach + 1) / blur) ** 2)
        wide = np.zeros((old, old + 2 * reach))
        for k in range(old):
            wide[k, k : k + 2 * reach + 1] = bell / bell.sum()
        exact = exact @ _folded(wide, reach)
    exact[np.abs(exact) < 1e-7] = 0
    matrix: Maps = (exact / exact.sum(axis=1, keepdims=True)).astype(np.float32)
    return matrix


def _folded(matrix: NDArray[np.floating[Any]], pad: int) -> NDArray[np.float64]:
    """Columns of repeated edges added to the edges themselves."""
    inner = matrix[:, pad : matrix.shape[1] - pad].astype(np.float64)
    inner[:, 0] += matrix[:, :pad].sum(axis=1)
    inner[:, -1] += matrix[:, matrix.shape[1] - pad :].sum(axis=1)
    return inner


# Sliding window -------------------------------------------------------------------------------------------------------


def walk(scan: Prepared, config: Config, run: Any) -> Maps:
    """Logits (K, z, y, x) of the prepared scan: overlapping windows, blended."""
    how, shape = config["window"], scan.array.shape[1:]
    size = tuple(how["size"])
    starts = list(product(*(_starts(n, s, how["overlap"]) for n, s in zip(shape, size, strict=True))))
    axes = [_weights(n, how["blend"]) for n in size]
    weight = axes[0][:, None, None] * axes[1][:, None] * axes[2]
    limits = None
    if config["skip_below"] is not None:
        limits = [float(scale(np.array(config["skip_below"]))) for scale in scan.scales]
    flips = [2 + "zyx".index(axis) for axis in config["mirror"]]
    total = np.zeros((config["outputs"], *shape), np.float32)
    weights = np.zeros(shape, np.float32)
    for first in range(0, len(starts), how["batch"]):
        chunk = starts[first : first + how["batch"]]
        cut = [_window(scan.array, start, size, scan.outside) for start in chunk]
        full = [k for k, one in enumerate(cut) if limits is None or (one.max(axis=(1, 2, 3)) > limits).any()]
        found = dict(zip(full, _flipped(run, np.stack([cut[k] for k in full]), flips), strict=True)) if full else {}
        for k, start in enumerate(chunk):
            target = tuple(slice(max(s, 0), min(s + n, m)) for s, n, m in zip(start, size, shape, strict=True))
            part = tuple(slice(t.start - s, t.stop - s) for t, s in zip(target, start, strict=True))
            logits = found[k][(slice(None), *part)] if k in found else _background(config)
            total[(slice(None), *target)] += logits * weight[part]
            weights[target] += weight[part]
    total /= weights
    return total


def _starts(full: int, size: int, overlap: float) -> list[int]:
    if full <= size:
        return [(full - size) // 2]
    count = int(np.ceil((full - size) / max(size * (1 - overlap), 1))) + 1
    return [round(k * (full - size) / (count - 1)) for k in range(count)]


def _weights(size: int, blend: str) -> Maps:
    """Blending weight along an axis, largest 1."""
    if blend == "constant":
        return np.ones(size, np.float32)
    bell = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / max(size / 8, 1e-6)) ** 2)
    weight: Maps = (bell / bell.max()).astype(np.float32)
    return weight


def _window(array: Maps, start: Sequence[int], size: Sequence[int], outside: Sequence[float]) -> Maps:
    """A window that may reach beyond the scan."""
    cut = np.empty((len(array), *size), np.float32)
    cut[:] = np.array(outside, np.float32)[:, None, None, None]
    shape = array.shape[1:]
    source = tuple(slice(max(s, 0), min(s + n, m)) for s, n, m in zip(start, size, shape, strict=True))
    target = tuple(slice(a.start - s, a.stop - s) for a, s in zip(source, start, strict=True))
    cut[(slice(None), *target)] = array[(slice(None), *source)]
    return cut


def _flipped(run: Any, windows: Maps, axes: Sequence[int]) -> Maps:
    """Mean over all flips along some axes, each turned back."""
    choices = list(chain.from_iterable(combinations(axes, n) for n in range(len(axes) + 1)))
    turned = (np.flip(run(np.ascontiguousarray(np.flip(windows, flip))), flip) for flip in choices)
    mean: Maps = sum(turned) / np.float32(len(choices))
    return mean


def _background(config: Config) -> Maps:
    """Logits of a window that is skipped."""
    logits = np.full((config["outputs"], 1, 1, 1), -10, np.float32)
    if not config["regions"]:
        logits[0] = 10
    return logits


# Decision -------------------------------------------------------------------------------------------------------------


def decided(
    logits: Maps, scan: Prepared, shape: Sequence[int], config: Config, *, probabilities: bool
) -> tuple[NDArray[np.unsignedinteger], NDArray[np.float16] | None]:
    """Labels (z, y, x) in stored values, and probabilities if wanted, on the scan's voxels; some slices at a time."""
    values = np.array([0, *(structure["value"] for structure in config["labels"])])
    table = values.astype(np.uint8 if values.max() < 256 else np.uint16)
    labels = np.zeros(shape, table.dtype)
    kept = np.zeros((len(logits), *shape), np.float16) if probabilities else None
    if kept is not None and not config["regions"]:
        kept[0] = 1
    size = [b - a for a, b in zip(scan.start, scan.stop, strict=True)]
    matrices = [mixing(old, new, 1, 0.0) for old, new in zip(logits.shape[1:], size, strict=True)]
    rules = [config["clean"].get(structure["name"], {}) for structure in config["labels"]]
    thresholds = [rule.get("threshold") for rule in rules]
    step = max(1, 4_000_000 // (len(logits) * size[1] * size[2]))
    for first in range(0, size[0], step):
        rows = slice(first, min(first + step, size[0]))
        slab = logits[:, rows]
        for axis, matrix in enumerate(matrices):
            if logits.shape[1 + axis] != size[axis]:
                slab = mixed(logits, matrix[rows], 0) if axis == 0 else mixed(slab, matrix, axis)
        slab = slab / np.float32(config["temperature"])
        labels[scan.box][rows] = table[_painted(slab, thresholds) if config["regions"] else _won(slab, thresholds)]
        if kept is not None:
            kept[(slice(None), *scan.box)][:, rows] = _sigmoid(slab) if config["regions"] else _softmax(slab)
    return labels, kept


def _won(logits: Maps, thresholds: Sequence[float | None]) -> NDArray[np.uint8]:
    """The most probable class, or a structure whose probability is above its threshold."""
    claims = {k: t for k, t in enumerate(thresholds, start=1) if t is not None}
    free = [k for k in range(len(logits)) if k not in claims]
    winner: NDArray[np.uint8] = np.array(free, np.uint8)[logits[free].argmax(axis=0)]
    best = np.logaddexp.reduce(logits, axis=0) if claims else logits[0]
    for k, threshold in claims.items():
        claim = logits[k] - np.float32(np.log(threshold))
        winner[claim > best] = k
        best = np.maximum(best, claim)
    return winner


def _painted(logits: Maps, thresholds: Sequence[float | None]) -> NDArray[np.uint8]:
    """The last region, inner ones last, whose probability is above its threshold."""
    painted = np.zeros(logits.shape[1:], np.uint8)
    for k, (one, threshold) in enumerate(zip(logits, thresholds, strict=True), start=1):
        limit = 0.0 if threshold is None else float(np.log(threshold / (1 - threshold)))
        painted[one > limit] = k
    return painted


def _softmax(logits: Maps) -> Maps:
    powers = np.exp(logits - logits.max(axis=0))
    shares: Maps = powers / powers.sum(axis=0)
    return shares


def _sigmoid(logits: Maps) -> Maps:
    powers = np.exp(-np.abs(logits))
    return np.asarray(np.where(logits >= 0, 1, powers) / (1 + powers), np.float32)


# Post-processing ------------------------------------------------------------------------------------------------------


def clean(labels: NDArray[np.unsignedinteger], voxel_ml: float, config: Config) -> None:
    """Remove false components, outer structures before those inside them, then fill holes; in place."""
    nest = Nest(config)
    for name in nest.outwards:
        _remove(labels, voxel_ml, nest, name)
    for name in nest.outwards:
        _fill(labels, nest, name)


class Nest:
    """What lies in what."""

    def __init__(self, config: Config) -> None:
        self.how: Config = config["clean"]
        self.own = {structure["name"]: int(structure["value"]) for structure in config["labels"]}
        self.values = {structure["name"]: set(structure["values"]) for structure in config["labels"]}
        self.outwards = sorted(self.own, key=lambda name: len(self.around(name)))

    def around(self, name: str) -> set[str]:
        """All structures that one lies in."""
        found: set[str] = set()
        new = {name}
        while new:
            new = {outer for inner in new for outer in self._directly(inner)} - found
            found |= new
        return found

    def whole(self, name: str) -> set[int]:
        """Values of a structure and of everything in it."""
        parts = [self.values[other] for other in self.own if other == name or name in self.around(other)]
        return set().union(*parts)

    def replacement(self, name: str) -> int:
        """The value that removed voxels of a structure get."""
        how, regions = self.how.get(name, {}), self._regions(name)
        wanted = how.get("becomes") or (regions[-1] if regions else how.get("inside"))
        return 0 if wanted in (None, "background") else self.own[wanted]

    def _regions(self, name: str) -> list[str]:
        before = list(self.own)[: list(self.own).index(name)]
        return [other for other in before if self.values[name] <= self.values[other]]

    def _directly(self, name: str) -> list[str]:
        inside = self.how.get(name, {}).get("inside")
        return [*self._regions(name), *([inside] if inside else [])]


def _remove(labels: NDArray[np.unsignedinteger], voxel_ml: float, nest: Nest, name: str) -> None:
    how = nest.how.get(name, {})
    inner = [other for other, rule in nest.how.items() if rule.get("inside") == name]
    if not (inner or how.get("min_ml") or how.get("largest")):
        return
    whole = nest.whole(name)
    components = components_of(_among(labels, whole), how.get("connectivity", "corners"))
    sizes = np.bincount(components.ravel())
    keep = np.ones(len(sizes), bool)
    if inner:
        strange = set().union(*(nest.whole(other) for other in inner))
        keep[:] = False
        keep[components[_among(labels, whole - strange)]] = True
    if how.get("min_ml"):
        keep &= sizes * voxel_ml >= how["min_ml"] * (1 - 1e-9)
    if how.get("largest") and len(sizes) > 1:
        keep &= np.arange(len(sizes)) == np.argmax(np.where(keep[1:], sizes[1:], -1)) + 1
    keep[0] = True
    labels[~keep[components]] = nest.replacement(name)


def _fill(labels: NDArray[np.unsignedinteger], nest: Nest, name: str) -> None:
    wish = nest.how.get(name, {}).get("fill_holes")
    if not wish:
        return
    inside = _among(labels, nest.whole(name))
    axes = [axis for axis, size in enumerate(labels.shape) if size > 1]
    if wish == "slices":
        hole = np.stack([_enclosed(plane[None], [a for a in axes if a])[0] for plane in inside])
    else:
        hole = _enclosed(inside, axes)
    labels[hole & _among(labels, {0, *(nest.own[outer] for outer in nest.around(name))})] = nest.own[name]


def _among(labels: NDArray[np.unsignedinteger], values: Iterable[int]) -> NDArray[np.bool_]:
    mask = np.zeros(labels.shape, bool)
    for value in values:
        mask |= labels == value
    return mask


def _enclosed(mask: NDArray[np.bool_], axes: Sequence[int]) -> NDArray[np.bool_]:
    """Voxels outside a mask from which no way over faces leads to the edge along one of some axes."""
    outside = components_of(~mask, "faces")
    closed = np.full(int(outside.max()) + 1, bool(axes))
    closed[0] = False
    for axis in axes:
        closed[np.take(outside, (0, -1), axis)] = False
    return closed[outside]


def components_of(mask: NDArray[np.bool_], connectivity: str = "corners") -> NDArray[np.int64]:
    """Number the connected components of a mask (z, y, x) from 1, in the order of their first voxels.

    Rows are taken apart into runs of voxels, and runs that touch are joined until nothing changes.
    """
    depth, height, width = mask.shape
    wide = np.zeros((depth, height, width + 2), np.int8)
    wide[..., 1:-1] = mask
    edges = np.flatnonzero(np.diff(wide.ravel()))
    first, last = edges[::2] + 1, edges[1::2] + 1  # of every run, in rows that are two voxels wider
    number = np.arange(len(first))
    while len(first):
        before = number.copy()
        for one, other in _touching(first, last, mask.shape, connectivity):
            low = np.minimum(number[one], number[other])
            for run in (one, other):
                np.minimum.at(number, number[run], low)
                np.minimum.at(number, run, low)
        while (number[number] != number).any():
            number = number[number]
        if (number == before).all():
            break
    _, number = np.unique(number, return_inverse=True)
    found = np.zeros(wide.size, np.int64)
    lengths = last - first
    found[np.flatnonzero(wide.ravel())] = np.repeat(number + 1, lengths)
    return found.reshape(wide.shape)[..., 1:-1]


def _touching(
    first: NDArray[Any], last: NDArray[Any], shape: Sequence[int], connectivity: str
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Pairs of runs in neighbouring rows that touch, one kind of neighbour after the other."""
    height, width = shape[1], shape[2] + 2
    diagonal = connectivity == "corners"
    sides = {(0, 1): connectivity != "faces", (1, 0): connectivity != "faces"}
    if connectivity != "faces":
        sides |= {(1, 1): diagonal, (1, -1): diagonal}
    y = first // width % height
    for (dz, dy), reach in sides.items():
        shift = (dz * height + dy) * width
        runs = np.flatnonzero((y + dy >= 0) & (y + dy < height))
        low = np.searchsorted(last, first[runs] + shift - reach, side="right")
        high = np.searchsorted(first, last[runs] + shift + reach, side="left")
        counts = np.maximum(high - low, 0)
        offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        yield np.repeat(runs, counts), np.repeat(low, counts) + offsets


# Command line ---------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment one scan; 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(description="Segment a scan with this bundle.")
    parser.add_argument("scan", nargs="+", help="NIfTI file with all channels, or one per channel")
    parser.add_argument("-o", "--out", required=True, help="label file, .nii or .nii.gz")
    parser.add_argument("--probabilities", metavar="FILE", help="also write probabilities")
    parser.add_argument("--threads", type=int, default=0, help="default: one per physical core")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    wish = parser.parse_args(arguments)
    taken = [file for file in (wish.out, wish.probabilities) if file and Path(file).exists()]
    if taken and not wish.overwrite:
        print(f"{taken[0]}: exists already; choose another name or add --overwrite.", file=sys.stderr)
        return 2
    try:
        scan = read_nifti(wish.scan)
        bundle = Bundle(Path(__file__).parent, wish.threads)
        found = bundle.segment(scan, probabilities=bool(wish.probabilities))
    except BundleError as error:
        print(error, file=sys.stderr)
        return 2
    write_nifti(wish.out, found.labels, scan)
    if found.probabilities is not None:
        write_nifti(wish.probabilities, found.probabilities, scan)
    counts = {s["name"]: int((found.labels == s["value"]).sum()) for s in bundle.config["labels"]}
    millilitres = float(np.prod(scan.spacing)) / 1000
    print(f"{wish.out}  " + ", ".join(f"{name} {n * millilitres:.1f} ml" for name, n in counts.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

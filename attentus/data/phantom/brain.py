"""MRI of a brain with a glioma: FLAIR, T1w, T1w after gadolinium and T2w, skull-stripped as in BraTS.

The anatomy follows from the seed alone. Its frame has its origin midway between the commissures. Signals are relative
to the brightest healthy tissue until the end, when each channel gets a scale of its own, as scanners do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.data.phantom.cerebrum import Brain
from attentus.data.phantom.glioma import Glioma
from attentus.data.phantom.pose import Pose
from attentus.data.phantom.result import Phantom, sampled, streams
from attentus.data.phantom.shapes import Array, Points, turn
from attentus.data.phantom.texture import Waves
from attentus.types import Grid, Volume

if TYPE_CHECKING:
    from numpy.random import Generator
    from numpy.typing import NDArray

    from attentus.data.phantom.shapes import Box
    from attentus.types import Triple

LABELS = {"background": 0, "edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}
"""As the Medical Segmentation Decathlon names and numbers them (Task01)."""
CHANNELS = ("FLAIR", "T1w", "t1gd", "T2w")
KIND = 1
"""Keeps the random numbers apart from those of `abdomen`."""
STREAMS = ("pose", "brain", "gliomas", "signal", "noise")
"""One stream of random numbers for each; add new ones at the end."""
REACH = (80.0, 100.0, 90.0)
"""No brain extends further from the origin of the drawing along x, y, z; mm."""


def brain(seed: int, *, spacing: Triple | None = None, coarse: float = 1.0) -> Phantom:
    """MRI of the brain of one synthetic patient.

    Args:
        seed: the patient, 0 and up; decides anatomy, tumour, and what the scanner did.
        spacing: voxel size (z, y, x) in mm; by default 1 mm, 155 x 240 x 240 voxels.
        coarse: factor on the voxel size; 3 gives 27 times fewer voxels of the same patient.

    Returns:
        Signals (whole numbers, 0 outside the brain) in the order of `CHANNELS`, labels as in `LABELS`, and what was
        drawn.
    """
    rng = streams(seed, KIND, STREAMS)
    pose, anatomy, gliomas = _pose(rng["pose"]), Brain.draw(rng["brain"]), _gliomas(rng["gliomas"])
    first = tuple(float(np.round(c)) for c in pose.offset - (119.5, 119.5, 79))
    grid = sampled(Grid((155, 240, 240), (1.0, 1.0, 1.0), (first[0], first[1], first[2])), spacing, coarse)
    box, at = _head(pose, grid)
    inside = np.flatnonzero(anatomy.hull(at) < 0.6)
    signals, marks = _draw(anatomy, gliomas, at.row(inside), float(np.mean(grid.spacing)))
    image, labels = np.zeros((4, *grid.shape), np.float32), np.zeros((1, *grid.shape), np.uint8)
    labels[0][box] = _spread(marks, inside, at.x.shape)
    for channel, signal in zip(image, signals, strict=True):
        clean = _blur(_spread(signal, inside, at.x.shape), grid, rng["signal"])
        channel[box] = _measure(clean, rng["signal"], rng["noise"], inside)
    facts = {"kind": "brain", "seed": int(seed), "tumours": [_fact(g, pose) for g in gliomas]}
    return Phantom(Volume(image, grid), Volume(labels, grid), facts)


def _pose(rng: Generator) -> Pose:
    """Registered to an atlas, as BraTS scans are, but for small differences."""
    matrix = turn("z", rng.normal(0, 3)) @ turn("y", rng.normal(0, 2)) @ turn("x", rng.normal(0, 4))
    offset = rng.normal(0, 2, 3)
    bend, shift = Waves.draw(rng, 1.6, (160, 320)), Waves.draw(rng, 0.9, (60, 120), terms=16)
    return Pose(offset, float(rng.uniform(0.93, 1.01)), matrix, bend, shift)


def _gliomas(rng: Generator) -> list[Glioma]:
    """One, or one with a satellite."""
    gliomas = [Glioma.draw(rng)]
    if rng.uniform() < 0.15:
        gliomas.append(Glioma.satellite(rng, gliomas[0]))
    return gliomas


def _head(pose: Pose, grid: Grid) -> tuple[Box, Points]:
    """The part of a grid that holds the brain."""
    axes, places = [], []
    for i in range(3):
        axis = grid.origin[i] + grid.spacing[2 - i] * np.arange(grid.shape[2 - i])
        first, last = np.searchsorted(axis, pose.offset[i] + pose.stature * REACH[i] * np.array([-1, 1]))
        places.append(slice(int(first), max(int(last), int(first) + 1)))
        axes.append(axis[places[-1]])
    return (places[2], places[1], places[0]), pose.points(*axes)[1]


def _draw(anatomy: Brain, gliomas: list[Glioma], at: Points, width: float) -> tuple[Array, NDArray[np.uint8]]:
    """Signals (4, points) and labels (points) of the brain, bent and filled by the tumours."""
    healthy_place = at
    for glioma in gliomas:
        healthy_place = glioma.displace(healthy_place)
    healthy = anatomy.paint(healthy_place, width)
    labels = np.zeros(at.x.size, np.uint8)
    for glioma in gliomas:
        glioma.paint(at, healthy, labels, width)
    return healthy.signals, labels


def _spread(row: Array | NDArray[np.uint8], inside: NDArray[np.intp], shape: tuple[int, ...]) -> NDArray[Any]:
    """A row of values back in its place in an array (z, y, x); 0 elsewhere."""
    array = np.zeros(shape, row.dtype)
    array.ravel()[inside] = row
    return array


def _blur(clean: Array, grid: Grid, rng: Generator) -> Array:
    """The scanner's resolution; now and then that of slices 3 to 5 mm thick, interpolated to the grid."""
    from scipy.ndimage import gaussian_filter

    thick = rng.choice([0.5, rng.uniform(0.9, 1.8)], p=[0.6, 0.4])
    sigma = [
        size / step if size > 0.3 * step else 0 for size, step in zip((thick, 0.5, 0.5), grid.spacing, strict=True)
    ]
    blurred: Array = gaussian_filter(clean, sigma, truncate=3)
    return blurred


def _measure(clean: Array, rng: Generator, noise: Generator, inside: NDArray[np.intp]) -> Array:
    """A scan (z, y, x) of a clean picture: uneven coil, noise of a magnitude image (Rice), arbitrary scale."""
    z, y, x = (np.linspace(-1, 1, n, dtype=np.float32) for n in clean.shape)
    tilt = rng.normal(0, 0.07, 3).astype(np.float32)
    bulge = np.float32(rng.uniform(-0.12, 0.12))
    lines = [(1 + t * c - bulge * c * c) for t, c in zip(tilt, (z, y, x), strict=True)]
    field = lines[0][:, None, None] * lines[1][:, None] * lines[2]
    signal = (clean * field).ravel()[inside]
    level = np.float32(rng.uniform(0.012, 0.032))
    real, imaginary = level * noise.standard_normal((2, inside.size), np.float32)
    scale = np.exp(rng.uniform(np.log(150), np.log(1500)))
    magnitude = np.sqrt(np.square(signal + real) + np.square(imaginary)) * np.float32(scale)
    return np.asarray(_spread(np.maximum(np.rint(magnitude), 1), inside, clean.shape))


def _fact(glioma: Glioma, pose: Pose) -> dict[str, Any]:
    return {
        "kind": "enhancing" if glioma.rim else "non-enhancing",
        "centre_mm": pose.world(glioma.centre),
        "diameter_mm": round(2 * glioma.radius * pose.stature, 1),
        "oedema_mm": round(glioma.spread * pose.stature, 1),
    }

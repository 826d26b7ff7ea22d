"""CT of the abdomen with labels of seven organs and of tumours in the liver.

The anatomy follows from the seed alone and is drawn in mm, from textbook sizes and positions, in a frame whose origin
is the first lumbar vertebra. Each part of the body is drawn from its own random numbers and can then be painted on any
voxels, outside in, so that organs which come later yield to those before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from attentus.data.phantom.bowel import Bowel
from attentus.data.phantom.cage import Cage
from attentus.data.phantom.chest import Chest
from attentus.data.phantom.contrast import Contrast
from attentus.data.phantom.liver import Liver
from attentus.data.phantom.organs import Adrenals, Kidney, Pancreas, Spleen
from attentus.data.phantom.result import Phantom, sampled, streams
from attentus.data.phantom.scan import Scan
from attentus.data.phantom.spine import Spine
from attentus.data.phantom.texture import Grain
from attentus.data.phantom.trunk import Body
from attentus.data.phantom.tumours import draw_tumours
from attentus.data.phantom.vessels import Cava, GreatVessels
from attentus.data.phantom.wall import Wall
from attentus.types import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.random import Generator

    from attentus.data.phantom.canvas import Part
    from attentus.types import Triple

LABELS = {
    "background": 0,
    "liver": 1,
    "liver tumour": 2,
    "spleen": 3,
    "right kidney": 4,
    "left kidney": 5,
    "pancreas": 6,
    "aorta": 7,
}
KIND = 0
"""Keeps the random numbers apart from those of `brain`."""
STREAMS = (
    "body", "scan", "contrast", "grain", "spine", "cage", "chest", "vessels", "right kidney", "left kidney", "spleen",
    "liver", "tumours", "pancreas", "bowel", "noise",
)  # fmt: skip
"""One stream of random numbers for each; add new ones at the end."""


def abdomen(
    seed: int,
    *,
    spacing: Triple | None = None,
    coarse: float = 1.0,
    tumours: tuple[float, float] | None = None,
) -> Phantom:
    """A CT of the abdomen of one synthetic patient.

    Args:
        seed: the patient, 0 and up; decides anatomy, contrast phase, tumours, field of view and noise.
        spacing: voxel size (z, y, x) in mm; by default another one for each patient, with 256 x 256 voxels a slice.
        coarse: factor on the voxel size; 3 gives 27 times fewer voxels of the same patient.
        tumours: least and largest diameter, mm; then every liver has one at least. By default some have none, and many
            are smaller than any radiologist would measure.

    Returns:
        Hounsfield units (whole numbers), labels as in `LABELS`, and what was drawn.
    """
    rng = streams(seed, KIND, STREAMS)
    body = Body.draw(rng["body"])
    scan = Scan.draw(rng["scan"], body)
    patient = Patient.draw(rng, body, tumours)
    grid = sampled(scan.grid, spacing, coarse)
    image = np.broadcast_to(scan.background(grid), grid.shape).copy()
    labels = np.zeros(grid.shape, np.uint8)
    for slab in scan.slabs(grid, body):
        for part in patient.parts:
            part.paint(slab.canvas)
        image[slab.box], labels[slab.box] = slab.slices()
    image += scan.noise(grid, body, rng["noise"])
    np.clip(np.rint(image, out=image), -1024, 3071, out=image)
    facts = {"kind": "abdomen", "seed": int(seed), **patient.facts(scan)}
    return Phantom(Volume(image[None], grid), Volume(labels[None], grid), facts)


@dataclass(frozen=True)
class Patient:
    """Everything that is drawn of one person."""

    body: Body
    contrast: Contrast
    liver: Liver
    parts: tuple[Part, ...]
    """In the order of painting."""

    @classmethod
    def draw(cls, rng: Mapping[str, Generator], body: Body, tumours: tuple[float, float] | None = None) -> Patient:
        """The person who has this body."""
        contrast, grain = Contrast.draw(rng["contrast"]), Grain.draw(rng["grain"])
        spine = Spine.draw(rng["spine"], contrast, grain)
        liver = Liver.draw(rng["liver"], body, contrast, grain)
        liver = replace(liver, tumours=draw_tumours(rng["tumours"], liver, contrast.phase, tumours))
        parts = (
            Wall(body, spine, contrast, grain),
            Chest.draw(rng["chest"], body, spine, contrast),
            spine,
            Cage.draw(rng["cage"], contrast),
            GreatVessels.draw(rng["vessels"], spine, contrast, grain),
            Kidney.draw(rng["right kidney"], -1, body, contrast),
            Kidney.draw(rng["left kidney"], 1, body, contrast),
            Spleen.draw(rng["spleen"], body, contrast, grain),
            liver,
            Cava(spine, contrast),
            Adrenals(contrast),
            Pancreas.draw(rng["pancreas"], body, contrast, grain),
            Bowel.draw(rng["bowel"], body, contrast, grain),
        )
        return cls(body, contrast, liver, parts)

    def facts(self, scan: Scan) -> dict[str, Any]:
        """What was drawn; tumours whose centre lies outside the field of view are left out."""
        scale = self.body.stature
        width, depth = (round(scale * size) for size in self.body.extent)
        low = scan.grid.origin[2] - scan.grid.spacing[0] / 2
        high = low + scan.grid.size_mm[0]
        placed = [(tumour, scan.pose.world(tumour.centre)) for tumour in self.liver.tumours]
        return {
            "phase": self.contrast.phase,
            "habitus": self.body.habitus,
            "trunk_mm": {"width": width, "depth": depth},
            "liver_hu": round(self.contrast["liver"]),
            "gallbladder": self.liver.gallbladder is not None,
            "tumours": [
                {
                    "kind": tumour.kind,
                    "centre_mm": centre,
                    "diameter_mm": round(2 * scale * tumour.radius, 1),
                    "contrast_hu": round(tumour.contrast),
                }
                for tumour, centre in placed
                if low <= centre[2] <= high
            ],
        }

"""Hounsfield units of tissues in the four usual phases after contrast medium.

RA-UNet (table I) lists bone above 400, liver 40 to 50, water 0 ± 10, blood 3 to 14 and air around -200. Bone, water
and bile agree here; a healthy liver before contrast is a little denser (50 to 60, less with fat in it), flowing blood
is near 40, and air is -1000 by definition. Enhancement follows multiphase CT of the liver: arteries and renal cortex
first, portal vein and liver a good half minute later, everything evened out after three minutes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.random import Generator

PHASES = ("native", "arterial", "portal", "delayed")
SHARES = (0.15, 0.2, 0.5, 0.15)

ENHANCING = {
    "artery": (42, 290, 155, 118),
    "vena cava": (40, 75, 135, 115),
    "renal vein": (40, 150, 160, 120),
    "portal vein": (42, 110, 172, 120),
    "hepatic vein": (42, 66, 165, 120),
    "liver": (57, 70, 110, 92),
    "spleen": (48, 118, 120, 95),
    "renal cortex": (32, 155, 185, 150),
    "renal medulla": (30, 65, 165, 155),
    "urine": (4, 4, 8, 300),
    "pancreas": (42, 102, 92, 75),
    "adrenal": (25, 65, 75, 55),
    "gut wall": (38, 82, 88, 72),
    "heart muscle": (44, 100, 108, 92),
    "heart blood": (42, 260, 150, 118),
    "muscle": (54, 58, 62, 62),
    "lung vessel": (40, 220, 140, 110),
}
"""Mean Hounsfield units by tissue, one for each of `PHASES`."""

PLAIN = {
    "lung": -855.0,
    "fat": -102.0,
    "skin": 15.0,
    "bile": 8.0,
    "gut fluid": 22.0,
    "stool": 35.0,
    "gas": -985.0,
    "spongiosa": 175.0,
    "cortex": 620.0,
    "disc": 88.0,
    "cartilage": 105.0,
    "spinal cord": 38.0,
    "thecal sac": 18.0,
    "marrow fat": -60.0,
}
"""Tissues that take up next to no contrast medium."""


@dataclass(frozen=True)
class Contrast:
    """Hounsfield units of one patient's tissues: `contrast["liver"]`."""

    phase: str
    units: Mapping[str, float]

    @classmethod
    def draw(cls, rng: Generator) -> Contrast:
        """A phase, and how this patient differs from the mean."""
        phase = str(rng.choice(PHASES, p=SHARES))
        column = PHASES.index(phase)
        dose = rng.uniform(0.88, 1.12)
        units = {name: row[0] + (row[column] - row[0]) * dose + rng.normal(0, 3) for name, row in ENHANCING.items()}
        units |= {name: value + rng.normal(0, 3) for name, value in PLAIN.items()}
        units["spongiosa"] += rng.uniform(-55, 50)  # young bone is denser
        units["liver"] -= rng.choice([0, rng.uniform(8, 24)], p=[0.8, 0.2])  # steatosis
        return cls(phase, {name: float(value) for name, value in units.items()})

    def __getitem__(self, tissue: str) -> float:
        return self.units[tissue]

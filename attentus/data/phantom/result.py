"""What drawing a patient gives, and the random numbers it takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from attentus.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.random import Generator

    from attentus.types import Grid, Triple, Volume


class Phantom(NamedTuple):
    """One synthetic examination with its exact labels."""

    image: Volume
    """float32 (C, z, y, x): Hounsfield units of CT, or the four channels of MRI."""
    labels: Volume
    """uint8 (1, z, y, x)."""
    facts: dict[str, Any]
    """What was drawn, fit for JSON; lengths in mm, positions in the world (L, P, S)."""


def streams(seed: int, kind: int, parts: Sequence[str]) -> dict[str, Generator]:
    """Random numbers for each part of a patient, so that a change in one part leaves the others as they were.

    Raises:
        BadInput: the seed is not a whole number from 0 up.
    """
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise BadInput(f"The seed of a phantom is a whole number from 0 up, got {seed!r}.")
    seeds = np.random.SeedSequence([int(seed), kind]).spawn(len(parts))
    return {part: np.random.default_rng(s) for part, s in zip(parts, seeds, strict=True)}


def sampled(grid: Grid, spacing: Triple | None, coarse: float) -> Grid:
    """The same field of view at another spacing (z, y, x) in mm, times a factor.

    Raises:
        BadInput: the factor is not positive.
    """
    if not coarse > 0:
        raise BadInput(f"`coarse` multiplies the voxel size and must be above 0, got {coarse}.")
    if spacing is None and coarse == 1:
        return grid
    return grid.resampled([s * coarse for s in (spacing or grid.spacing)])

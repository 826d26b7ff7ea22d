"""Histograms of a scan's values before and after the recipe's window, as in Fig. 3 of the RA-UNet paper."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from attentus.report.charts import Chart
from attentus.report.plot import Plot, number
from attentus.report.slices import AIR
from attentus.transforms.prepare import Preparation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from attentus.recipes import Prepare
    from attentus.types import Volume

BINS = 120
RARE = 0.1
"""Percent of voxels at either end that the histogram before the window may leave out."""


class Histogram(NamedTuple):
    """How often values occur."""

    edges: NDArray[np.float64]
    """(bins + 1,), ascending."""
    counts: NDArray[np.int64]
    """(bins,) voxels; the last bin holds its upper edge."""
    below: int
    """Voxels below the first edge."""
    above: int
    """Voxels above the last edge."""


def histogram(values: NDArray[np.floating], low: float, high: float, bins: int = BINS) -> Histogram:
    """Count values; with those outside, all of them are counted.

    Args:
        values: any shape, finite.
        low: first edge.
        high: last edge; a little more is taken where it is no more than the first.
        bins: how many, of equal width.
    """
    high = high if high > low else low + max(abs(low), 1.0) * 1e-3
    counts, edges = np.histogram(values, bins, (low, high))
    return Histogram(edges, counts, int((values < edges[0]).sum()), int((values > edges[-1]).sum()))


def windowing(image: Volume, how: Prepare, channels: Sequence[str]) -> list[Chart]:
    """Two histograms per channel: values as stored with the recipe's window, and what the net gets to see.

    Both are of the part of the scan the recipe keeps, before it is resampled.

    Args:
        image: (C, z, y, x).
        how: the recipe's `prepare` section, resolved.
        channels: their names.

    Raises:
        BadInput: the scan does not fit the recipe.
    """
    scan = Preparation.of(image, how)
    z, y, x = (slice(a, b) for a, b in zip(scan.start, scan.stop, strict=True))
    charts = []
    for name, channel, scale in zip(channels, scan.image.array[:, z, y, x], scan.scales, strict=True):
        values = np.asarray(channel, np.float32)
        unit = "HU" if values.min() < AIR else "as stored"
        low, high = (float(v) for v in np.percentile(values, [RARE, 100 - RARE]))
        wide = (min(low, scale.low), max(high, scale.high))
        lost = 100 * float((values < scale.low).mean()), 100 * float((values > scale.high).mean())
        note = (
            f"Dashed: {number(scale.low)} to {number(scale.high)}; {lost[0]:.1f} % lie below and {lost[1]:.1f} % above."
        )
        before = histogram(values, *wide)
        charts.append(_drawn(before, f"{name}, {unit}", note, (scale.low, scale.high)))
        seen = scale(values)
        after = histogram(seen, float(seen.min()), float(seen.max()))
        charts.append(_drawn(after, f"{name}, as the net sees it", f"Normalised: {scale.how.normalise}."))
    return charts


def _drawn(found: Histogram, title: str, note: str, window: tuple[float, float] | None = None) -> Chart:
    """Bars on a logarithmic axis, for background outnumbers all else."""
    top = math.log10(max(int(found.counts.max()), 10))
    plot = Plot((float(found.edges[0]), float(found.edges[-1])), (0.0, 1.06 * top), height=180.0, left=44.0)
    powers = range(0, math.floor(top) + 1, 1 if top < 5 else 2)
    plot.grid("value", values={float(power): number(10.0**power) for power in powers})
    base = plot.py(0.0)
    bars = []
    for count, left, right in zip(found.counts, found.edges[:-1], found.edges[1:], strict=True):
        if count:
            height = plot.py(math.log10(count) if count > 1 else 0.05)
            bars.append(f"M{plot.px(left):.1f} {base:.1f}V{height:.1f}H{plot.px(right):.1f}V{base:.1f}Z")
    plot.path("".join(bars), "bars")
    for edge in window or ():
        plot.line([(edge, 0.0), (edge, plot.y[1])], "level dashed")
    label = f"Histogram of {title}: voxels per bin, logarithmic"
    return Chart(title, plot.svg(label), note)

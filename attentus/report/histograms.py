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
    from attentus.transforms.prepare import Scale
    from attentus.types import Volume

BINS = 120
NORMALISED = {
    "none": "Clipped.",
    "range": "Clipped and brought to 0 to 1.",
    "zscore": "Clipped, then minus the mean, over the standard deviation.",
    "zscore-nonzero": "Clipped, then minus the mean, over the standard deviation, both of what is not 0.",
}
DISTINCT = 20_000
"""With more different values than this a scan counts as continuous."""
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


def histogram(values: NDArray[np.floating], edges: NDArray[np.float64]) -> Histogram:
    """Count values; with those outside, all of them are counted.

    Args:
        values: any shape, finite.
        edges: (bins + 1,), ascending.
    """
    counts, _ = np.histogram(values, edges)
    return Histogram(edges, counts, int((values < edges[0]).sum()), int((values > edges[-1]).sum()))


def step_of(values: NDArray[np.floating]) -> float | None:
    """The distance of which all differences of values are multiples, 1 for whole numbers; None if there is none."""
    distinct = np.unique(values)
    if not 1 < len(distinct) <= DISTINCT:
        return None
    apart = np.diff(distinct)
    share = apart / apart.min()
    return float(apart.min()) if bool((np.abs(share - np.rint(share)) < 0.05).all()) else None


def edges_of(low: float, high: float, step: float | None = None, first: float = 0.0) -> NDArray[np.float64]:
    """Borders of about `BINS` bins of equal width.

    Args:
        low: lowest value that shall be inside.
        high: highest value that shall be inside.
        step: of the values, see `step_of`: every bin then holds as many of them, so that no comb appears.
        first: one of the values, where they have a step.
    """
    if step is None:
        return np.linspace(low, high if high > low else low + max(abs(low), 1.0) * 1e-3, BINS + 1, dtype=np.float64)
    begin, end = math.floor((low - first) / step), math.ceil((high - first) / step)
    each = max(1, math.ceil((end - begin + 1) / BINS))
    count = math.ceil((end - begin + 1) / each)
    return first + step * (np.arange(count + 1, dtype=np.float64) * each + begin - 0.5)


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
        below, above = (f"{share:.1f}\N{NO-BREAK SPACE}%" for share in lost)
        note = f"Dashed: {number(scale.low)} to {number(scale.high)}; {below} lie below and {above} above."
        lattice = step_of(values), float(values.min())
        charts.append(_drawn(histogram(values, edges_of(*wide, *lattice)), f"{name}, {unit}", note, scale))
        seen, clipped = scale(values), np.clip(values, scale.low, scale.high)
        ends = float(clipped.min()), float(clipped.max())
        slope = float(seen.max() - seen.min()) / max(ends[1] - ends[0], 1e-12)
        edges = float(seen.min()) + slope * (edges_of(*ends, *lattice) - ends[0])
        if slope > 0:
            charts.append(
                _drawn(histogram(seen, edges), f"{name}, as the net sees it", NORMALISED[scale.how.normalise])
            )
    return charts


def _drawn(found: Histogram, title: str, note: str, window: Scale | None = None) -> Chart:
    """Bars on a logarithmic axis, for background outnumbers all else."""
    top = math.log10(max(int(found.counts.max()), 10))
    plot = Plot((float(found.edges[0]), float(found.edges[-1])), (0.0, 1.06 * top), height=180.0, left=54.0)
    powers = range(0, math.floor(top) + 1, 1 if top < 5 else 2)
    plot.grid("value", values={float(power): number(10.0**power) for power in powers})
    base = plot.py(0.0)
    bars = []
    for count, left, right in zip(found.counts, found.edges[:-1], found.edges[1:], strict=True):
        if count:
            height = plot.py(math.log10(count) if count > 1 else 0.05)
            bars.append(f"M{plot.px(left):.1f} {base:.1f}V{height:.1f}H{plot.px(right):.1f}V{base:.1f}Z")
    plot.path("".join(bars), "bars")
    for edge in (window.low, window.high) if window else ():
        plot.line([(edge, 0.0), (edge, plot.y[1])], "level dashed")
    label = f"Histogram of {title}: voxels per bin, logarithmic"
    return Chart(title, plot.svg(label), note)

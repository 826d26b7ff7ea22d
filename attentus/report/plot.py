"""A rectangle with two axes that collects SVG: as much plotting as the report needs.

Written out rather than drawn by a plotting library, because then text stays text and the page's style sheet decides
colours: dark, light and print need one picture. One unit is one CSS pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from markupsafe import Markup

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

WIDTH = 350.0


@dataclass(eq=False)
class Plot:
    """An empty plot; what is added later lies on top."""

    x: tuple[float, float]
    """Range of the data along the horizontal axis."""
    y: tuple[float, float]
    """Range along the vertical axis, bottom to top."""
    height: float = 230.0
    left: float = 42.0
    right: float = 12.0
    top: float = 10.0
    bottom: float = 40.0
    parts: list[Markup] = field(default_factory=list)

    def px(self, x: float) -> float:
        """Horizontal position of a value."""
        return self.left + (x - self.x[0]) / (self.x[1] - self.x[0]) * (WIDTH - self.left - self.right)

    def py(self, y: float) -> float:
        """Vertical position of a value."""
        return self.height - self.bottom - (y - self.y[0]) / (self.y[1] - self.y[0]) * self.depth

    @property
    def depth(self) -> float:
        """Height of the area inside the axes."""
        return self.height - self.top - self.bottom

    def grid(
        self,
        x_label: str = "",
        *,
        vertical: bool = False,
        values: Mapping[float, str] | None = None,
        columns: Mapping[float, str] | None = None,
    ) -> None:
        """Lines and numbers along the value axis, numbers along the other.

        Args:
            x_label: name of the horizontal axis.
            vertical: values run to the right, and lines stand up (rows of box plots).
            values: ticks of the vertical axis and their words; chosen from its range if not given.
            columns: ticks of the horizontal axis and their words; chosen from its range if not given.
        """
        base, end = self.height - self.bottom, WIDTH - self.right
        for x, words in ({x: number(x) for x in ticks(*self.x, 5)} if columns is None else columns).items():
            if vertical:
                self.path(f"M{self.px(x):.1f} {self.top:.1f}V{base:.1f}", "grid")
            middle = min(self.px(x), WIDTH - 3.2 * len(words))  # the last number stays inside
            self.text(middle, base + 16, words, anchor="middle")
        if not vertical:
            for y, words in ({y: number(y) for y in ticks(*self.y, 5)} if values is None else values).items():
                self.path(f"M{self.left:.1f} {self.py(y):.1f}H{end:.1f}", "grid")
                self.text(self.left - 7, self.py(y) + 4, words, anchor="end")
        if x_label:
            self.text((self.left + end) / 2, self.height - 5, x_label, anchor="middle", css="name")

    def path(self, drawing: str, css: str) -> None:
        """Any path, in pixels."""
        self.parts.append(Markup('<path class="{}" d="{}"/>').format(css, drawing))

    def line(self, points: Iterable[tuple[float, float]], css: str) -> None:
        """A line through data points; it breaks where a value is not finite."""
        drawing, pen = [], "M"
        for x, y in points:
            if math.isfinite(x) and math.isfinite(y):
                drawing.append(f"{pen}{self.px(x):.1f} {self.py(y):.1f}")
                pen = "L"
            else:
                pen = "M"
        if drawing:
            self.path("".join(drawing), css)

    def area(self, points: Sequence[tuple[float, float]], css: str) -> None:
        """The area between a line and the bottom."""
        if points:
            base = self.py(self.y[0])
            drawing = "".join(f"L{self.px(x):.1f} {self.py(y):.1f}" for x, y in points)
            self.path(f"M{self.px(points[0][0]):.1f} {base:.1f}{drawing}V{base:.1f}Z", css)

    def dot(self, at: tuple[float, float], css: str, title: str = "", radius: float = 2.6) -> None:
        """A point at a place in pixels, with a text that appears under the mouse."""
        inner = Markup("<title>{}</title>").format(title) if title else ""
        circle = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{:g}">{}</circle>')
        self.parts.append(circle.format(css, *at, radius, inner))

    def text(self, x: float, y: float, words: str, *, anchor: str = "start", css: str = "") -> None:
        """Words at a place in pixels."""
        style = Markup(' class="{}"').format(css) if css else ""
        where = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}</text>')
        self.parts.append(where.format(x, y, anchor, style, words))

    def svg(self, label: str) -> Markup:
        """The whole as an SVG element; `label` describes it to those who cannot see it."""
        head = Markup('<svg class="chart" viewBox="0 0 {:g} {:g}" role="img" aria-label="{}">')
        return head.format(WIDTH, self.height, label) + Markup("").join(self.parts) + Markup("</svg>")


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about that many round numbers (1, 2 or 5 times a power of ten) from low to high."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * k for k in (1, 2, 5, 10) if power * k >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-6), math.floor(high / step + 1e-6)
    return [k * step for k in range(first, last + 1)]


def number(value: float) -> str:
    """A number for an axis: no noise, thousands apart, a true minus."""
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return text.replace("-", "−")


def padded(values: Iterable[float], share: float = 0.05) -> tuple[float, float]:
    """The range of the finite values, a little wider; (0, 1) if there is none."""
    known = [v for v in values if math.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    around = (high - low) * share or abs(high) * share or 1.0
    return low - around, high + around


def shortened(words: str, most: int) -> str:
    """Words cut to a number of characters."""
    return words if len(words) <= most else words[: most - 1].rstrip() + "…"


def spread(positions: Sequence[float], apart: float, lowest: float) -> list[float]:
    """Positions moved as little as possible downwards, then up, so that labels do not overlap.

    Args:
        positions: where the labels would like to be, px.
        apart: least distance between two, px.
        lowest: the largest position allowed, px.
    """
    order = sorted(range(len(positions)), key=lambda k: positions[k])
    placed = list(positions)
    for before, k in pairwise(order):
        placed[k] = max(placed[k], placed[before] + apart)
    limit = lowest
    for k in reversed(order):
        placed[k] = min(placed[k], limit)
        limit = placed[k] - apart
    return placed

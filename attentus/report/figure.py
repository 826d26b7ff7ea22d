"""Figures as files: panels in rows, as SVG, PNG, or a page of their own."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

from attentus.errors import BadFile
from attentus.io.atomic import replacing, require_free
from attentus.report import styles
from attentus.report.page import render

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attentus.report.charts import Chart

FORMATS = (".svg", ".png", ".html")
EDGE, GAP = 16.0, 24.0
"""Space around the figure and between its panels, px."""
ZOOM = 3.0
"""Pixels of a PNG per px of the figure: 288 per inch."""
LINE, LETTER = 15.0, 5.9
"""Height of a line of notes and width of a letter, px."""
BEHIND = "#ffffff"


@dataclass(frozen=True)
class Figure:
    """A drawing of its own."""

    title: str
    rows: tuple[tuple[Chart, ...], ...]
    """Panels; those of a row stand side by side."""
    note: str = ""
    keys: bool = False
    """Whether missed and false areas are marked and must be explained."""


def in_rows(charts: Sequence[Chart], columns: int) -> tuple[tuple[Chart, ...], ...]:
    """Panels in rows of that many."""
    return tuple(tuple(charts[k : k + columns]) for k in range(0, len(charts), columns))


def check_name(out: Path, *, overwrite: bool) -> None:
    """Refuse a file that cannot be written, before anything is drawn.

    Raises:
        BadFile: another ending, or the file exists.
    """
    if out.suffix.lower() not in FORMATS:
        raise BadFile(out, "is no name of a figure", f"Choose a name that ends in {', '.join(FORMATS)}.")
    require_free(out, overwrite=overwrite)


def write_figure(figure: Figure, out: Path, *, overwrite: bool) -> Path:
    """Write a figure as SVG, as PNG with 288 pixels per inch, or as an HTML page, by the ending of the name.

    None of them needs a network. Text stays text in SVG and HTML. A PNG shows what the SVG does.

    Raises:
        BadFile: another ending, the file exists, or it cannot be written.
    """
    check_name(out, overwrite=overwrite)
    kind = out.suffix.lower()
    with replacing(out, overwrite=overwrite) as temporary:
        if kind == ".png":
            temporary.write_bytes(to_png(to_svg(figure)))
        else:
            text = to_svg(figure) if kind == ".svg" else render("figure.html.j2", figure=figure)
            temporary.write_text(text, encoding="utf-8")
    return out


def to_png(svg: str) -> bytes:
    """Rasterise with the font that comes with Matplotlib, so that every machine draws the same."""
    import resvg_py
    from matplotlib import get_data_path

    fonts = [str(file) for file in (Path(get_data_path()) / "fonts" / "ttf").glob("DejaVuSans*.ttf")]
    picture: bytes = resvg_py.svg_to_bytes(
        svg_string=svg, zoom=ZOOM, background=BEHIND, skip_system_fonts=True, font_files=fonts,
        sans_serif_family="DejaVu Sans", font_family="DejaVu Sans",
    )  # fmt: skip
    return bytes(picture)


def to_svg(figure: Figure) -> str:
    """The whole figure as one SVG file that needs nothing from outside."""
    rows = [(*row, _key()) if figure.keys and row is figure.rows[-1] else row for row in figure.rows]
    parts, widest, top = [], 0.0, EDGE
    if figure.title:
        parts.append(_text(EDGE, top + 14, figure.title, "title"))
        top += 34
    for row in rows:
        left, lowest = EDGE, top
        for panel in row:
            drawn, width, height = _panel(panel, left, top)
            parts.append(drawn)
            left, lowest = left + width + GAP, max(lowest, top + height)
        widest, top = max(widest, left - GAP), lowest + GAP
    for line in textwrap.wrap(figure.note, max(30, int((widest - EDGE) / LETTER))):
        parts.append(_text(EDGE, top, line, "note"))
        top += LINE
    style = styles.standalone() + _OWN
    return _FILE.format(
        width=widest + EDGE, height=top + EDGE - (0 if figure.note else GAP), title=escape(figure.title),
        style=style, patterns=styles.source("patterns.svg"), behind=BEHIND, parts="\n".join(parts),
    )  # fmt: skip


_OWN = """
.title { font-size: 16px; font-weight: 700; fill: #17212b; }
.panel { font-size: 13px; font-weight: 700; fill: #17212b; }
.note { font-size: 11px; fill: #586673; }
"""
_FILE = """<?xml version="1.0" encoding="UTF-8"?>
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}"
 width="{width:.0f}" height="{height:.0f}">
<title>{title}</title>
<style>
{style}</style>
<defs>
{patterns}</defs>
<rect width="100%" height="100%" fill="{behind}"/>
{parts}
</svg>
"""


def _panel(panel: Chart, left: float, top: float) -> tuple[str, float, float]:
    """A panel with its title and note at a place, and the room it takes."""
    width, height = size_of(panel.svg)
    parts, down = [], top
    if panel.title:
        parts.append(_text(left, down + 12, panel.title, "panel"))
        down += 22
    parts.append(re.sub(r"<svg ", f'<svg x="{left:.1f}" y="{down:.1f}" ', _sized(panel.svg, width, height), count=1))
    down += height
    for line in textwrap.wrap(panel.note, max(20, int(width / LETTER))):
        down += LINE
        parts.append(_text(left, down, line, "note"))
    return "\n".join(parts), width, down - top


def size_of(svg: Markup) -> tuple[float, float]:
    """Width and height of a drawing, px."""
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    if found is None:
        raise ValueError("a drawing has no viewBox")
    return float(found[1]), float(found[2])


def _sized(svg: Markup, width: float, height: float) -> str:
    """The drawing with its size written out once."""
    head, _, rest = str(svg).partition(">")
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    return f'{head} width="{width:.1f}" height="{height:.1f}">{rest}'


def _text(x: float, y: float, words: str, css: str) -> str:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(css, x, y, words)


def _key() -> Chart:
    """What outlines, fills and patterns mean."""
    from attentus.report.charts import Chart

    shapes = [
        ('<path class="reference s1" d="M8 4H32V16H8Z"/>', "reference"),
        ('<path class="prediction s1" d="M8 4H32V16H8Z"/>', "prediction"),
        ('<path class="missed" d="M8 4H32V16H8Z"/>', "missed"),
        ('<path class="prediction s1" d="M8 4H32V16H8Z"/><path class="false" d="M8 4H32V16H8Z"/>', "false"),
    ]
    lines = "".join(
        f'<g transform="translate(0 {24 * k})"><rect x="4" width="32" height="20" fill="#0b0d0f"/>'
        f'<g class="picture">{shape}</g><text class="note" x="44" y="14">{word}</text></g>'
        for k, (shape, word) in enumerate(shapes)
    )
    return Chart("", Markup(f'<svg viewBox="0 0 120 96">{lines}</svg>'))  # noqa: S704 - all of it is written above

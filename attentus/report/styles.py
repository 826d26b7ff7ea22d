"""The style sheet of drawings that stand alone: the page's own, in its light colours and without variables.

Vector editors and rasterisers know no `var(...)`. Every variable becomes its value, and a rule that speaks of a
structure's colour (`--c`) becomes one rule per colour.
"""

from __future__ import annotations

import re
from importlib.resources import files

FONTS = '"DejaVu Sans", Arial, Helvetica, sans-serif'
_RULE = re.compile(r"([^{}]+)\{([^{}]*)\}")
_VARIABLE = re.compile(r"var\(--(\w+)(?:, var\(--(\w+)\))?\)")


def source(name: str) -> str:
    """A file of `templates/` as it is."""
    return (files("attentus.report") / "templates" / name).read_text(encoding="utf-8")


def standalone() -> str:
    """CSS for an SVG file with charts and pictures."""
    page = _variables(_RULE.search(source("report.css")), ":root")
    rules = [(match[1].strip(), match[2]) for match in _RULE.finditer(_without_comments(source("drawing.css")))]
    scan = page | next(_names(body) for selector, body in rules if selector.startswith(".picture,"))
    lines = [f"svg {{ font-family: {FONTS}; }}"]
    for selector, body in rules:
        parts = [part.strip() for part in body.split(";") if part.strip() and not part.strip().startswith("--")]
        plain = [_filled(part, page) for part in parts if "var(--c)" not in part]
        if plain:
            lines.append(f"{selector} {{ {'; '.join(plain)} }}")
        coloured = [part for part in parts if "var(--c" in part]
        for one in (name.strip() for name in selector.split(",")) if coloured else ():
            lines += _per_colour(one, coloured, page, scan)
    return "\n".join(lines)


def _per_colour(selector: str, parts: list[str], page: dict[str, str], scan: dict[str, str]) -> list[str]:
    """A rule for each structure's colour; on scans colours are brighter."""
    names = [name for name in page if re.fullmatch(r"s\d", name)]
    places = [("", page)] if selector.startswith(".chart") else [("", page), (".picture ", scan)]
    return [
        f"{before}{selector}.{name} {{ {'; '.join(_filled(part, values | {'c': values[name]}) for part in parts)} }}"
        for before, values in places
        for name in names
    ]


def _filled(part: str, values: dict[str, str]) -> str:
    """A declaration with the values of its variables, or of what stands in for one that is not set."""
    return _VARIABLE.sub(lambda found: values.get(found[1]) or values[found[2]], part)


def _variables(found: re.Match[str] | None, selector: str) -> dict[str, str]:
    if found is None or found[1].strip() != selector:
        raise ValueError(f"the style sheet does not begin with {selector}")
    return _names(found[2])


def _names(body: str) -> dict[str, str]:
    return dict(re.findall(r"--(\w+):\s*([^;]+)", body))


def _without_comments(css: str) -> str:
    return re.sub(r"/\*.*?\*/", "", css, flags=re.DOTALL)

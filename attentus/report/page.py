"""One self-contained HTML file from a template of this folder."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any


def render(template: str, **facts: Any) -> str:
    """Fill a template; everything that comes in as plain text is escaped.

    Args:
        template: name of a file in `templates/`.
        **facts: what it shows, beside the version and today's date.
    """
    from jinja2 import Environment, PackageLoader

    from attentus import __version__

    templates = Environment(
        loader=PackageLoader("attentus.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    today = f"{datetime.now(timezone.utc).astimezone():%Y-%m-%d}"
    return templates.get_template(template).render(**facts, version=__version__, today=today)

"""What a layout finds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from attentus.types import Case


@dataclass(frozen=True)
class Found:
    """The contents of a folder, as far as names tell."""

    name: str
    root: Path
    layout: str
    cases: tuple[Case, ...]
    channels: tuple[str, ...] | None
    """Channel names in file order; None when nobody says."""
    labels: Mapping[str, int] | None
    """Label name to integer without background; None when nobody says."""

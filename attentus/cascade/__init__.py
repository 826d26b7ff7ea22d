"""Several models as one: find, crop, segment. `fit_cascade` trains them; the result has the face of a `Model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attentus.cascade.assembly import assemble
from attentus.cascade.model import Cascade, is_cascade, load, load_at

if TYPE_CHECKING:
    from attentus.cascade.fitting import CascadeRun, fit_cascade

__all__ = ["Cascade", "CascadeRun", "assemble", "fit_cascade", "is_cascade", "load", "load_at"]


def __getattr__(name: str) -> Any:
    """Load what trains on first use."""
    if name in ("CascadeRun", "fit_cascade"):
        from attentus.cascade import fitting

        return getattr(fitting, name)
    raise AttributeError(f"module 'attentus.cascade' has no attribute '{name}'")

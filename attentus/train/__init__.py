"""Training: ends with a Model. `fit` needs torch and is loaded when it is first touched; reading a run does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attentus.train.fitting import fit

__all__ = ["fit"]


def __getattr__(name: str) -> Any:
    """Load `fit` on first use."""
    if name == "fit":
        from attentus.train.fitting import fit

        return fit
    raise AttributeError(f"module 'attentus.train' has no attribute '{name}'")

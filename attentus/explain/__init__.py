"""Where a net's attention looks, as volumes and numbers (`attention`), and whether it earns its keep (`audit`)."""

from __future__ import annotations

from attentus.explain.auditing import Audit, audit
from attentus.explain.maps import Explanation, attention

__all__ = ["Audit", "Explanation", "attention", "audit"]

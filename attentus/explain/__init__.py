"""Where a net's attention looks, as volumes and numbers (`attention`), and whether it earns its keep (`audit`)."""

from __future__ import annotations

from attentus.explain.auditing import Audit, audit
from attentus.explain.maps import Explanation, attention
from attentus.explain.retrain import Retrained, retrain

__all__ = ["Audit", "Explanation", "Retrained", "attention", "audit", "retrain"]

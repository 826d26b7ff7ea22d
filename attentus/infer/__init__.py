"""From a scan to its segmentation."""

from attentus.infer.ensemble import Ensemble, load
from attentus.infer.model import Model

__all__ = ["Ensemble", "Model", "load"]

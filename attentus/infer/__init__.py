"""From a scan to its segmentation."""

from attentus.infer.model import Model

__all__ = ["Model"]

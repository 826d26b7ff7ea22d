"""Attentus: attention-based medical image segmentation, from a folder of scans to models, masks and a report."""

__version__ = "0.1.0"

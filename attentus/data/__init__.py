"""Datasets on disk, what is wrong with them, and how patches for training come from them."""

from attentus.data.check import Finding
from attentus.data.dataset import Dataset

__all__ = ["Dataset", "Finding"]

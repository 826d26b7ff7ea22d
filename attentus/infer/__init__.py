"""From a scan to its segmentation."""

from attentus.infer.dicom_out import write_dicom
from attentus.infer.ensemble import Ensemble, load
from attentus.infer.model import Model

__all__ = ["Ensemble", "Model", "load", "write_dicom"]

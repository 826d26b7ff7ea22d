"""Leave Attentus: networks as files that other programs run, and models as bundles that need none."""

from __future__ import annotations

from attentus.export.bundle import to_bundle
from attentus.export.calibration import calibration_windows
from attentus.infer.backends.onnx_file import OPSET, to_onnx

__all__ = ["OPSET", "calibration_windows", "to_bundle", "to_onnx"]

"""Leave Attentus: networks as files that other programs run."""

from __future__ import annotations

from attentus.infer.backends.onnx_file import OPSET, to_onnx

__all__ = ["OPSET", "to_onnx"]

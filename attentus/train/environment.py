"""What a result was made with."""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGES = (
    *("attentus", "torch", "lightning-fabric", "numpy", "scipy", "nibabel", "SimpleITK", "pydicom", "pydantic"),
    *("safetensors", "onnxruntime", "openvino", "nncf", "python-gdcm", "highdicom"),
    *("tensorboard", "matplotlib", "jinja2", "typer", "rich"),
)


def environment() -> dict[str, str]:
    """Versions and machine, without anything that names a person or a place."""
    import torch

    facts = {
        "python": sys.version.split()[0],
        "system": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
        "torch threads": str(torch.get_num_threads()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def hardware(device: torch.device) -> str:
    """What a time is measured on: the GPU, or the processor and the threads it was given."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} thread(s)"


def _processor() -> str:
    """The processor's model, as far as the system tells."""
    facts = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.+)$", facts.read_text("utf-8"), re.MULTILINE) if facts.is_file() else None
    return model[1].strip() if model else platform.processor() or platform.machine()

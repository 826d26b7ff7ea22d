"""What a result was made with."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    *("attentus", "torch", "lightning", "numpy", "scipy", "nibabel", "SimpleITK", "pydicom", "pydantic", "safetensors"),
    *("python-gdcm", "tensorboard", "matplotlib", "jinja2", "typer", "rich"),
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

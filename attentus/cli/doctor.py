"""attentus doctor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from attentus.cli.options import Json
from attentus.cli.show import print_json, table

EXTRAS = {
    "tensorboard": ("tensorboard", "live training curves"),
    "gdcm": ("dicom", "compressed DICOM (JPEG, JPEG-LS, JPEG 2000)"),
}
"""Module to the extra that brings it and what it is good for."""


def doctor(
    folder: Annotated[Path, typer.Option(help="Where results shall go; its disk is looked at.")] = Path(),
    json: Json = False,
) -> None:
    """Say what this machine has and what is missing: versions, processors, memory, GPU, disk, backends, extras.

    Runs a small network once to see that it works. Exit code 1 if it does not.
    """
    from importlib.util import find_spec

    from attentus.infer import backends
    from attentus.train.environment import environment

    facts = environment()
    free = shutil.disk_usage(folder).free / 2**30
    facts |= {"memory": f"{_memory_gib():.1f} GiB", f"free disk ({folder.resolve()})": f"{free:.1f} GiB"}
    missing = {extra: purpose for module, (extra, purpose) in EXTRAS.items() if find_spec(module) is None}
    lacking = {name: reason for name in backends.NAMES if (reason := backends.missing(name))}
    problem = _try_a_network()
    if json:
        print_json(
            {
                "environment": facts,
                "backends": backends.names(),
                "backends missing": lacking,
                "missing": missing,
                "problem": problem,
            }
        )
    else:
        table(["what", "found"], list(facts.items()))
        table(["backend", "here"], [[name, lacking.get(name, "yes")] for name in backends.NAMES])
        for extra, purpose in missing.items():
            print(f"optional: {purpose}: pip install 'attentus[{extra}]'")
        if facts["gpu"] == "none":
            print("no GPU: training works on the processor; take small recipes and --max-time")
        print(f"problem: {problem}" if problem else "A small network ran forwards and backwards. All is well.")
    raise typer.Exit(1 if problem else 0)


def _memory_gib() -> float:
    """Physical memory; nan where the system does not say."""
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, OSError, ValueError):
        return float("nan")


def _try_a_network() -> str:
    """Why a small network does not run here; empty if it does."""
    import torch

    from attentus import nets
    from attentus.infer.model import default_device

    try:
        device = default_device()
        net = nets.create("attention-unet", 3, 1, 2, feature_scale=16).to(device)
        loss = net(torch.rand(2, 1, 16, 16, 16, device=device))[0].square().mean()
        loss.backward()
    except RuntimeError as error:
        return f"the network failed on {device}: {error}"
    return "" if torch.isfinite(loss) else f"the network gave {loss.item()} on {device}"

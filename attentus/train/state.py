"""Where a training stands, as one safetensors file: weights, optimiser, and a few facts as JSON in its header.

Everything random is a function of the seed and the step, so this is all a run needs to go on exactly where it was.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from attentus.errors import BadFile
from attentus.infer.model import NET_PREFIX
from attentus.io.atomic import replacing

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from torch.optim import Optimizer
    from torch.optim.swa_utils import AveragedModel

OPTIMISER_PREFIX = "optimiser."
MEAN_PREFIX = "mean."


@dataclass
class State:
    """Facts about a training; the tensors live in net and optimiser."""

    step: int = 0
    """Updates done."""
    seconds: float = 0.0
    """Time spent training and validating, over all sittings."""
    best: float = -1.0
    """Best mean Dice on validation; -1 before the first."""
    best_step: int = 0
    drops: int = 0
    """Plateaus so far."""
    dropped_at: int = 0
    """Step of the last one."""
    scaler: dict[str, Any] = field(default_factory=dict)
    """How fp16 scales its gradients; empty otherwise."""
    finished: bool = False


def save_state(
    path: Path, state: State, net: nn.Module, optimiser: Optimizer, mean: AveragedModel | None = None
) -> None:
    """Write a state atomically: a crash leaves the previous one."""
    stored = optimiser.state_dict()
    tensors = {f"{NET_PREFIX}{name}": tensor for name, tensor in net.state_dict().items()}
    if mean:
        tensors |= {f"{MEAN_PREFIX}{name}": tensor for name, tensor in mean.state_dict().items()}
    facts: dict[str, Any] = {"state": asdict(state), "groups": stored["param_groups"], "values": {}}
    for index, entries in stored["state"].items():
        for name, value in entries.items():
            if hasattr(value, "detach"):
                tensors[f"{OPTIMISER_PREFIX}{index}.{name}"] = value
            else:
                facts["values"][f"{index}.{name}"] = value
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt", "attentus": json.dumps(facts)})


def load_state(path: Path, net: nn.Module, optimiser: Optimizer, mean: AveragedModel | None = None) -> State:
    """Bring net, optimiser and running mean to a stored state.

    Raises:
        BadFile: the file is damaged or belongs to another net.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["attentus"])
        tensors = load_file(path)
        net.load_state_dict(_with_prefix(tensors, NET_PREFIX))
        if mean:
            mean.load_state_dict(_with_prefix(tensors, MEAN_PREFIX))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise BadFile(
            path,
            f"is no state this training can go on from ({' '.join(str(error).split())[:200]})",
            "Delete the folder to start over, or choose another one.",
        ) from None
    entries: dict[int, dict[str, Any]] = {}
    for name, value in {**_with_prefix(tensors, OPTIMISER_PREFIX), **facts["values"]}.items():
        index, _, key = name.partition(".")
        entries.setdefault(int(index), {})[key] = value
    optimiser.load_state_dict({"state": entries, "param_groups": facts["groups"]})
    return State(**facts["state"])


def peek_state(path: Path) -> State | None:
    """The facts of a stored state without its tensors; None if there is none."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:  # opens it once; torch's way fails if it is replaced meanwhile
            return State(**json.loads(file.metadata()["attentus"])["state"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise BadFile(path, f"is damaged ({error})", "Delete it to start the training over.") from None


def save_batch(folder: Path, step: int, images: Tensor, labels: Tensor, where: str) -> Path:
    """Write the patches on which a training failed, so that they can be looked at."""
    path = folder / f"failed-step-{step}.safetensors"
    tensors = {"images": images.detach().cpu().contiguous(), "labels": labels.detach().cpu().contiguous()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"patches": where})
    return path


def _with_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

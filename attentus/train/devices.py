"""One device or many: processes that share every batch, through Lightning Fabric."""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from attentus.errors import AttentusError, BadInput, RecipeError
from attentus.infer.processor import best_precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning_fabric import Fabric

    from attentus.recipes import Train

T = TypeVar("T")

PATIENCE = timedelta(days=7)
"""How long processes wait for each other."""
PRECISIONS: dict[str, Any] = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


def concrete(precision: str) -> str:
    """The number type that "auto" stands for on this machine."""
    if precision != "auto":
        return precision
    return best_precision("cuda" if torch.cuda.is_available() else "cpu")


def launch(how: Train, devices: int = 1, num_nodes: int = 1) -> Fabric:
    """Start the processes of a training, or take one's place among those that torchrun or SLURM has started.

    Raises:
        RecipeError: fp16 without a GPU.
        BadInput: batches that do not divide among the devices, or more devices than there are.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.strategies.ddp import DDPStrategy
    from lightning_fabric.utilities.exceptions import MisconfigurationException

    if how.precision == "fp16" and not torch.cuda.is_available():
        raise RecipeError("train.precision: fp16 needs a GPU; take bf16 or fp32 on a CPU.")
    if how.batch % (devices * num_nodes):
        raise BadInput(
            f"A batch of {how.batch} cannot be divided among {devices * num_nodes} devices."
            f" Set train.batch to a multiple of {devices * num_nodes}."
        )
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # that it uses bf16 as told is no news
    # Heads without weight in the loss get no gradient; the others wait while the first prepares cases or evaluates.
    ddp = DDPStrategy(find_unused_parameters=True, timeout=PATIENCE)
    strategy = ddp if devices * num_nodes > 1 else "auto"
    try:
        fabric = Fabric(
            devices=devices, num_nodes=num_nodes, precision=PRECISIONS[concrete(how.precision)], strategy=strategy
        )
    except (MisconfigurationException, ValueError) as error:
        raise BadInput(f"These devices cannot be had: {error}") from None
    fabric.launch()
    return fabric


def is_first() -> bool:
    """Whether this is the first process, or the only one."""
    from torch import distributed

    return not (distributed.is_available() and distributed.is_initialized()) or distributed.get_rank() == 0


def on_first(fabric: Fabric, make: Callable[[], T]) -> T:
    """Do something in the first process only and give the result to all; an error ends them all, but is told once.

    Raises:
        AttentusError: what `make` raised.
    """
    if fabric.world_size == 1:
        return make()
    outcome: tuple[Any, AttentusError | None] = (None, None)
    if fabric.is_global_zero:
        try:
            outcome = (make(), None)
        except AttentusError as error:
            outcome = (None, error)
    result, failure = fabric.broadcast(outcome)
    if failure is not None:
        torch.distributed.destroy_process_group()  # its threads would abort a process that ends under them
        raise failure if fabric.is_global_zero else SystemExit(2)
    found: T = result
    return found

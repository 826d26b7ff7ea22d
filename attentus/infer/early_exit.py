"""Early exit: a nested net answers a window with its first head that agrees with the one before, and saves the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from attentus.errors import RecipeError

if TYPE_CHECKING:
    from torch import Tensor

    from attentus.recipes import Recipe


def check_early_exit(recipe: Recipe, net: nn.Module) -> None:
    """Refuse `infer.early_exit` for a net that has only one head to ask.

    Raises:
        RecipeError: naming the nets that can.
    """
    if recipe.infer.early_exit is not None and not getattr(net, "can_stop", False):
        raise RecipeError(
            f"infer.early_exit: the net '{recipe.net.name}', as it is made here, has no heads to compare.\n"
            "  Nets that can stop early: anu-net and unet++, with deep_supervision and without ensemble. Leave it out."
        )


class EarlyExit(nn.Module):
    """A nested net that stops, window by window, when two heads in a row say nearly the same.

    input    (N, C, *spatial)
    returns  a tuple of one, logits (N, K, *spatial)

    Args:
        net: with a method `forward_until`, see `nets.anu_net`.
        agreement: Dice of the masks of two heads, of the structure where it is smallest, from which they agree; a
            structure that both lack counts as 1.
        regions: whether outputs are regions of their own, without background.
        mute: outputs that have no vote.
    """

    def __init__(
        self, net: nn.Module, agreement: float, *, regions: bool = False, mute: list[int] | None = None
    ) -> None:
        super().__init__()
        self.net: Any = net
        self.agreement, self.regions, self.mute = agreement, regions, mute or []
        self.levels: list[int] = []
        """Level of the head that answered, of every window so far."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """(N, C, *spatial) to a tuple of one (N, K, *spatial)."""
        logits, levels = self.net.forward_until(x, self._agree)
        self.levels += levels.tolist()
        return (logits,)

    def _agree(self, before: Tensor, now: Tensor) -> Tensor:
        one, other = self._masks(before), self._masks(now)
        both, either = (one & other).sum(-1), one.sum(-1) + other.sum(-1)
        return torch.where(either > 0, 2 * both / either, 1.0).min(dim=1).values >= self.agreement

    def _masks(self, logits: Tensor) -> Tensor:
        """(N, K, *spatial) logits to (N, structures, voxels) masks."""
        flat = logits.flatten(2)
        if self.regions:
            return flat > 0
        voting = torch.tensor([k for k in range(flat.shape[1]) if k not in self.mute], device=flat.device)
        winner = voting[flat[:, voting].argmax(dim=1, keepdim=True)]
        return winner == voting[voting > 0, None]

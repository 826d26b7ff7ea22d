"""The hybrid loss of ANU-Net: weighted cross-entropy plus Dice."""

from __future__ import annotations

from itertools import accumulate
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attentus.errors import BadInput
from attentus.losses.cross_entropy import against, focus, sides
from attentus.losses.dice import DiceLoss
from attentus.losses.targets import Activation, checked, kept, mean, precise, truth
from attentus.nets.parts import one_of

Form = Literal["safe", "focal", "literal"]
EDGE = 1e-3
"""The literal form keeps probabilities this far from 0 and 1, and its divisor this far from 0."""


class ANUHybridLoss(nn.Module):
    """Cross-entropy that dwells on doubtful voxels, plus Dice with squared denominator (ANU-Net Eq. 8, one head).

    `T + 1 - D` with D the mean over samples and outputs of (2·Σ p·t + s) / (Σ p² + Σ t² + s), s = 1e-5, and T the mean
    over voxels and outputs of

    safe     a · w · ce, with w = (0.5 / max(|p - 0.5|, delta))^gamma taken as a constant, 1..(0.5/delta)^gamma
    focal    a · (1-q)^gamma · ce, q the probability given to the truth
    literal  -alpha · t · log p / max(|p - 0.5|, 1e-3)^gamma: as printed. It diverges at p = 0.5, pushes foreground
             between 0.084 and 0.5 down, and does not see the background: for study, not for training

    where ce is binary cross-entropy, and a is alpha for foreground, 1 - alpha for background. The paper gives neither
    alpha nor s. Summed over the four heads with weights of 1 (`DeepSupervision` takes them from the net).

    logits   (N, K, *spatial)
    target   (N, *spatial), integers 0..K-1; or masks (N, K, *spatial) with "sigmoid"; 255 is ignored
    returns  scalar

    Args:
        form: "safe", "focal" or "literal".
        alpha: factor of foreground voxels.
        gamma: how much doubt weighs.
        delta: in the safe form, doubt below this distance from 0.5 weighs no more.
        activation: "sigmoid" as in the paper, each output on its own; or "softmax", each class but the background
            against all others, which for two classes is the paper's on the difference of the logits.
    """

    def __init__(
        self,
        *,
        form: Form = "safe",
        alpha: float = 0.75,
        gamma: float = 2.0,
        delta: float = 0.1,
        activation: Activation = "softmax",
    ) -> None:
        super().__init__()
        one_of("form", form, ("safe", "focal", "literal"))
        if not 0 <= alpha <= 1 or gamma < 0 or not 0 < delta <= 0.5:
            raise BadInput(f"alpha is in 0..1, gamma 0 or more, delta in 0..0.5; got {alpha}, {gamma} and {delta}.")
        self.form, self.alpha, self.gamma, self.delta = form, alpha, gamma, delta
        self.activation = activation
        self.dice = DiceLoss(denominator="squared", background=False, activation=activation)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of (N, K, *spatial) logits against integers or masks."""
        target = checked(logits, target, self.activation)
        scores, hit = precise(logits), truth(logits, target)
        if self.activation == "softmax":
            scores, hit = against_rest(scores), hit[:, 1:]
        term = self._literal(scores, hit) if self.form == "literal" else self._two_sided(scores, hit)
        dice: Tensor = self.dice(logits, target)
        return mean(term, kept(logits, target)) + dice

    def _two_sided(self, scores: Tensor, hit: Tensor) -> Tensor:
        wrong = against(scores, hit)
        if self.form == "focal":
            factor = focus(torch.sigmoid(wrong), self.gamma)
        else:
            factor = (0.5 / _margin(torch.sigmoid(scores.detach()), self.delta)) ** self.gamma
        return sides(hit, self.alpha, scores.dtype) * factor * F.softplus(wrong)

    def _literal(self, scores: Tensor, hit: Tensor) -> Tensor:
        p = torch.sigmoid(scores).clamp(EDGE, 1 - EDGE)
        return -self.alpha * hit * p.log() / _margin(p, EDGE) ** self.gamma


def _margin(p: Tensor, least: float) -> Tensor:
    return (p - 0.5).abs().clamp(min=least)


def against_rest(logits: Tensor) -> Tensor:
    """(N, K, *spatial) to (N, K-1, *spatial): their sigmoid is the softmax probability of each class but the first."""
    outputs = logits.unbind(1)
    before = list(accumulate(outputs[:-1], torch.logaddexp))  # of classes 0, 0..1, 0..2, ...
    after = list(accumulate(outputs[:1:-1], torch.logaddexp))[::-1]  # of classes 2.., 3.., ...
    rest = [*(torch.logaddexp(*both) for both in zip(before[:-1], after, strict=True)), before[-1]]
    return logits[:, 1:] - torch.stack(rest, dim=1)

"""MACER: training that maximises the certified radius."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from caa_cli.config import methods as settings
from caa_cli.smoothing.objective import log_mean_probability
from caa_cli.training.step import Outcome, Step


@dataclass(frozen=True)
class Macer(settings.Macer):
    """Zhai et al. (2020): a hinge on the radius of the soft-smoothed classifier, with `draws` noise draws per image.

    −log p̄_y + weight · σ/2 · max(0, gamma − ξ), where ξ = Φ⁻¹(p̄₁) − Φ⁻¹(p̄₂) of the two most probable classes is taken
    at logits scaled by beta, for images that p̄ classifies correctly. The hinge starts after `defer` epochs.
    """

    def loss(self, step: Step) -> Outcome:
        logits = step.forward(step.repeated(self.draws) + step.noise(self.draws))
        grouped = logits.unflatten(0, (-1, self.draws))
        loss = F.nll_loss(log_mean_probability(grouped.log_softmax(dim=2)), step.labels)
        if self.weight and step.epoch >= self.defer:
            loss = loss + self.weight * step.sigma / 2 * self.hinge(grouped, step.labels)
        return Outcome(loss, logits)

    def hinge(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The mean hinge loss over all images, 0 for those it does not apply to; logits: (images, draws, classes)."""
        top, classes = (self.beta * logits).softmax(dim=2).mean(dim=1).topk(2, dim=1)
        first, second = top.unbind(dim=1)
        with torch.no_grad():
            gap = torch.special.ndtri(first) - torch.special.ndtri(second)
            counts = (classes[:, 0] == labels) & gap.isfinite() & (gap <= self.gamma)
        # Constants replace the other images, which keeps their gradients finite; their loss is multiplied by 0.
        first, second = torch.where(counts, first, 0.75), torch.where(counts, second, 0.25)
        gap = torch.special.ndtri(first) - torch.special.ndtri(second)
        hinge: torch.Tensor = ((self.gamma - gap) * counts).mean()
        return hinge

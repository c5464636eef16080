"""Consistency regularisation."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional as F

from caa_cli.config import methods as settings
from caa_cli.smoothing.objective import log_mean_probability
from caa_cli.training.step import Outcome, Step


@dataclass(frozen=True)
class Consistency(settings.Consistency):
    """Jeong and Shin (2020): predictions for `draws` noise draws per image are pulled towards their mean p̄.

    Mean cross-entropy + weight · mean KL(p̄ ‖ p) + eta · entropy(p̄).
    """

    def loss(self, step: Step) -> Outcome:
        logits = step.forward(step.repeated(self.draws) + step.noise(self.draws))
        cross_entropy = F.cross_entropy(logits, step.labels.repeat_interleave(self.draws))
        log_p = logits.log_softmax(dim=1).unflatten(0, (-1, self.draws))
        log_mean = log_mean_probability(log_p)
        mean = log_mean.exp()
        divergence = (mean.unsqueeze(1) * (log_mean.unsqueeze(1) - log_p)).sum(dim=2).mean()
        entropy = -(mean * log_mean).sum(dim=1).mean()
        return Outcome(cross_entropy + self.weight * divergence + self.eta * entropy, logits)

"""Stability training."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional as F

from caa_cli.config import methods as settings
from caa_cli.training.step import Outcome, Step


@dataclass(frozen=True)
class Stability(settings.Stability):
    """Li et al. (2019): cross-entropy on the clean image, with the noisy prediction pulled towards the clean one.

    L(f(x), y) + weight · H(f(x), f(x + ε)), with H the cross-entropy of the second distribution under the first.
    """

    def loss(self, step: Step) -> Outcome:
        # Two passes, as batch normalisation would mix the statistics of clean and noisy images in one.
        clean = step.forward(step.images)
        noisy = step.forward(step.images + step.noise(1))
        stability = F.cross_entropy(noisy, clean.softmax(dim=1))
        return Outcome(F.cross_entropy(clean, step.labels) + self.weight * stability, noisy)

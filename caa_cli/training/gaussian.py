"""Gaussian augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from torch.nn import functional as F

from caa_cli.config import methods as settings
from caa_cli.training.step import Outcome, Step


@dataclass(frozen=True)
class Gaussian(settings.Gaussian):
    """Cross-entropy under noise (Lecuyer et al., 2019; Cohen et al., 2019), with `draws` noise draws per image.

    The noise is added in pixel units, before normalisation, and never clipped.
    """

    def loss(self, step: Step) -> Outcome:
        logits = step.forward(step.repeated(self.draws) + step.noise(self.draws))
        return Outcome(F.cross_entropy(logits, step.labels.repeat_interleave(self.draws)), logits)

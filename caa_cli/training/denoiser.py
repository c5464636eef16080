"""Denoised smoothing."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

from caa_cli.config import methods as settings
from caa_cli.config.choices import STABILITY
from caa_cli.training.step import Outcome, Step


@dataclass(frozen=True)
class Denoiser(settings.Denoiser):
    """Salman et al. (2020): a denoiser D, trained in front of a classifier f that stays as it is.

    mse: mean (D(x + ε) − x)² over images and pixels.  stability: cross-entropy of f(D(x + ε)) and the class that f
    takes x for.  classification: cross-entropy of f(D(x + ε)) and the label.
    """

    def loss(self, step: Step) -> Outcome:
        denoised = step.forward(step.images + step.noise(1))
        if self.on_pixels(step.epoch):
            return Outcome(F.mse_loss(denoised, step.images), None)
        assert step.classify is not None, "the plan has checked that there is a classifier"
        target = step.labels
        if self.objective == STABILITY:
            with torch.no_grad():
                target = step.classify(step.images).argmax(dim=1)
        logits = step.classify(denoised)
        return Outcome(F.cross_entropy(logits, target), logits)

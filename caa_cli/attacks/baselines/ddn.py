"""Decoupling direction and norm (Rony et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import Baseline, cosine, delta, max_l2, set_perturbation
from caa_cli.attacks.common.state import Batch, Example
from caa_cli.attacks.common.vectors import scale_to
from caa_cli.config import hyperparameters as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import CrossEntropy


@dataclass
class DdnState(Batch):
    """norm: (examples,) the length of the next perturbation."""

    norm: Tensor


@dataclass(frozen=True)
class Ddn(settings.Ddn, Baseline[DdnState]):
    """The gradient of the cross-entropy turns the perturbation; its length is set separately: shorter by the share
    `gamma` after an adversarial point and longer by as much after any other. initial_norm: the first length.

    Unlike in the authors' code, pixels are not quantised.
    """

    # The step along the gradient, annealed along a cosine.
    FIRST, LAST = 1.0, 0.01

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> DdnState:
        norm = torch.full((len(examples),), self.initial_norm, device=examples[0].image.device)
        return DdnState.new(examples, classifier.num_classes, norm=norm)

    def step(self, state: DdnState, classifier: SmoothedClassifier) -> None:
        evaluation = self.evaluate(state, classifier, state.aim.objective(CrossEntropy()))
        state.lost_gradients += evaluation.lost
        turned = delta(state) + cosine(self.FIRST, self.LAST, state, self.steps)[:, None] * evaluation.direction
        state.norm = state.norm * torch.where(evaluation.adversarial, 1.0 - self.gamma, 1.0 + self.gamma)
        state.norm = torch.minimum(state.norm, max_l2(state.clean))
        set_perturbation(state, scale_to(turned, state.norm))

"""The fast minimum-norm attack in L2 (Pintor et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import Baseline, cosine, delta, max_l2, set_perturbation
from caa_cli.attacks.common.state import Batch, Example
from caa_cli.attacks.common.vectors import scale_to
from caa_cli.config import hyperparameters as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import LogRatio


@dataclass
class FmnState(Batch):
    """epsilon: (examples,) the radius of the sphere on which the next point lies."""

    epsilon: Tensor


@dataclass(frozen=True)
class Fmn(settings.Fmn, Baseline[FmnState]):
    """Steps down the gradient of the logit margin, on a sphere that shrinks by the share γ after an adversarial point
    and grows by it after any other. Until the first adversarial point its radius is the distance of the boundary if
    the margin were linear. step_size (the authors' α) and γ are annealed along a cosine, each from `_init` to
    `_final`.
    """

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> FmnState:
        epsilon = torch.zeros(len(examples), device=examples[0].image.device)
        return FmnState.new(examples, classifier.num_classes, epsilon=epsilon)

    def step(self, state: FmnState, classifier: SmoothedClassifier) -> None:
        evaluation = self.evaluate(state, classifier, state.aim.objective(LogRatio()))
        state.lost_gradients += evaluation.lost
        step_size = cosine(self.step_size_init, self.step_size_final, state, self.steps)
        gamma = cosine(self.gamma_init, self.gamma_final, state, self.steps)
        moved, best = delta(state), state.near_distance[:, 0]
        to_boundary = state.aim.margin(evaluation.log_mean).abs() / evaluation.norm.clamp(min=1e-12)
        outward = moved.norm(dim=1) + to_boundary.masked_fill_(evaluation.lost, 0.0)
        grown = torch.where(best < torch.inf, state.epsilon * (1.0 + gamma), outward)
        shrunk = torch.minimum(state.epsilon * (1.0 - gamma), best)
        state.epsilon = torch.where(evaluation.adversarial, shrunk, grown)
        state.epsilon = torch.minimum(state.epsilon, max_l2(state.clean))
        set_perturbation(state, scale_to(moved - step_size[:, None] * evaluation.direction, state.epsilon))

"""The fast minimum-norm attack in L2 (Pintor et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baseline import Baseline, cosine, delta, furthest, of_length, place
from caa_cli.attacks.loop import Batch, Example
from caa_cli.config import attacks as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import LogRatio, margin


@dataclass
class FmnState(Batch):
    """epsilon: (examples,) the radius of the sphere that the next point lies on."""

    epsilon: Tensor


@dataclass(frozen=True)
class Fmn(settings.Fmn, Baseline):
    """Steps down the gradient of the margin, on a sphere that shrinks by the share γ after an adversarial point and
    grows by it after any other. Until the first adversarial point the sphere reaches as far as the boundary would be
    if the margin were linear. Step and γ fall along a cosine from `_init` to `_final`.
    """

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> FmnState:
        common = Batch.common(examples, classifier.num_classes)
        return FmnState(**common, epsilon=torch.zeros(len(examples), device=common["clean"].device))

    def step(self, state: FmnState, classifier: SmoothedClassifier) -> None:
        seen = self.look(state, classifier, LogRatio())
        state.lost_gradients += ~seen.usable
        step_size = cosine(self.step_size_init, self.step_size_final, state.iteration, self.steps)
        gamma = cosine(self.gamma_init, self.gamma_final, state.iteration, self.steps)
        moved, best = delta(state), state.near_distance[:, 0]
        to_boundary = margin(seen.log_mean, state.labels).abs() / seen.norm.clamp(min=1e-12)
        outward = moved.norm(dim=1) + torch.where(seen.usable, to_boundary, 0.0)
        grown = torch.where(torch.isfinite(best), state.epsilon * (1.0 + gamma), outward)
        shrunk = torch.minimum(state.epsilon * (1.0 - gamma), best)
        state.epsilon = torch.where(seen.adversarial, shrunk, grown)
        state.epsilon = torch.minimum(state.epsilon, furthest(state.clean))
        place(state, of_length(moved - step_size[:, None] * seen.direction, state.epsilon))

"""Decoupling direction and norm (Rony et al., 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baseline import Baseline, cosine, delta, furthest, of_length, place
from caa_cli.attacks.loop import Batch, Example
from caa_cli.config import attacks as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import CrossEntropy


@dataclass
class DdnState(Batch):
    """norm: (examples,) the length that the next point is given."""

    norm: Tensor


@dataclass(frozen=True)
class Ddn(settings.Ddn, Baseline):
    """The gradient of the cross-entropy turns the perturbation; its length is set apart from that, shorter by the
    share `gamma` after an adversarial point and longer by as much after any other. initial_norm: the first length.

    Pixels are not quantised.
    """

    # The gradient's step, falling along a cosine.
    FIRST, LAST = 1.0, 0.01

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> DdnState:
        common = Batch.common(examples, classifier.num_classes)
        return DdnState(**common, norm=torch.full((len(examples),), self.initial_norm, device=common["clean"].device))

    def step(self, state: DdnState, classifier: SmoothedClassifier) -> None:
        seen = self.look(state, classifier, CrossEntropy())
        state.lost_gradients += ~seen.usable
        turned = delta(state) + cosine(self.FIRST, self.LAST, state.iteration, self.steps)[:, None] * seen.direction
        state.norm = state.norm * torch.where(seen.adversarial, 1.0 - self.gamma, 1.0 + self.gamma)
        state.norm = torch.minimum(state.norm, furthest(state.clean))
        place(state, of_length(turned, state.norm))

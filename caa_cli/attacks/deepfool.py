"""DeepFool in L2 (Moosavi-Dezfooli et al., 2016)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baseline import Baseline, every_row, place, unit
from caa_cli.attacks.loop import Batch, Example
from caa_cli.config import attacks as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import LogRatio


@dataclass
class DeepFoolState(Batch):
    """rivals: (examples, R) the classes other than the label that are aimed at, −1 until they are chosen.
    total: (examples, dimensions) the sum of all steps, before the overshoot."""

    rivals: Tensor
    total: Tensor


@dataclass(frozen=True)
class DeepFool(settings.DeepFool, Baseline):
    """With f_k = z_k − z_label, steps to where the linearisation of the nearest f_k is zero, and a little beyond.

    candidates: the classes that the clean image is likeliest to be, its label among them; the others are aimed at.
    overshoot: the share by which every point lies beyond the sum of the steps. An example stops at its first
    adversarial point, as the authors' does.
    """

    # The authors' addition to every step, for it to cross what it aims at.
    BEYOND = 1e-4

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> DeepFoolState:
        common = Batch.common(examples, classifier.num_classes)
        rivals = min(self.candidates, classifier.num_classes) - 1
        unknown = torch.full((len(examples), rivals), -1, device=common["clean"].device)
        return DeepFoolState(**common, rivals=unknown, total=torch.zeros_like(common["clean"].flatten(1)))

    def step(self, state: DeepFoolState, classifier: SmoothedClassifier) -> None:
        self._choose(state, classifier)
        rows = every_row(state)
        passed = classifier.rival_gradients(
            state.x, state.labels, state.rivals, state.keys(self.seed, rows), self.samples
        )
        state.forward += passed.forward_evaluations
        state.backward += self.samples * state.rivals.shape[1]
        found = self.offer(state, rows, passed.votes)
        state.done |= found
        directions, norms, usable = unit(passed.gradient.flatten(2))
        z = passed.log_mean
        ahead = z.gather(1, state.rivals) - z.gather(1, state.labels[:, None])
        usable &= torch.isfinite(ahead)
        length, nearest = torch.where(usable, ahead.abs() / norms.clamp(min=1e-12), torch.inf).min(dim=1)
        lost = torch.isinf(length)
        state.lost_gradients += lost & ~found
        step = torch.where(lost, 0.0, length + self.BEYOND)[:, None] * directions[rows, nearest]
        state.total = state.total + step
        place(state, (1.0 + self.overshoot) * state.total)

    def _choose(self, state: DeepFoolState, classifier: SmoothedClassifier) -> None:
        """The candidates of examples that have none: where there are more classes, by a short look at the image."""
        rows = every_row(state)[(state.rivals < 0).any(dim=1)]
        count = state.rivals.shape[1]
        if len(rows) == 0:
            return
        likely = torch.zeros((len(rows), classifier.num_classes), device=state.x.device)
        if count < classifier.num_classes - 1:
            samples = min(self.samples, classifier.PILOT)
            keys = state.keys(self.seed, rows)
            passed = classifier.surrogate(state.x[rows], state.labels[rows], keys, samples, LogRatio())
            state.forward[rows] += passed.forward_evaluations
            state.backward[rows] += samples
            likely = passed.log_mean
        others = likely.scatter(1, state.labels[rows][:, None], -torch.inf)
        state.rivals[rows] = others.topk(count, dim=1).indices

"""DeepFool in L2 (Moosavi-Dezfooli et al., 2016)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import Baseline, set_perturbation
from caa_cli.attacks.common.state import Batch, Example
from caa_cli.attacks.common.vectors import unit
from caa_cli.config import hyperparameters as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import PILOT, GradientCost
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.objective import LogRatio, likeliest_rivals


@dataclass
class DeepFoolState(Batch):
    """rivals: (examples, R) the classes other than the label that steps may aim at.
    total: (examples, dimensions) the sum of all steps, before the overshoot."""

    rivals: Tensor
    total: Tensor


R = TypeVar("R", bound=DeepFoolState)


@dataclass
class Planes:
    """The linearisation of every f_k = z_k − z_label at x, one row an example.

    adversarial: (examples,) whether x is; it is remembered then.
    step: (examples, dimensions) to the nearest plane f_k = 0 and a little beyond; zero where no gradient is usable.
    outward: (examples, dimensions) the unit gradient of f_k for the rival k that leads, zero without one.
    """

    adversarial: Tensor
    step: Tensor
    outward: Tensor


@dataclass(frozen=True)
class Linearising(settings.DeepFool, Baseline[R]):
    """Attacks that linearise the difference of every rival to the label.

    candidates: how many of the clean image's top classes are considered, the label among them; the others are the
    rivals.
    """

    # The authors' addition to every step, for it to cross the boundary that it aims at.
    BEYOND = 1e-4

    def budget(self, num_classes: int, cost: GradientCost = WhiteBox.cost) -> tuple[int, int]:
        """A gradient for every rival, and a short evaluation of the clean image where they have to be chosen."""
        steps = cost.evaluations(self.iterations * self.samples, min(self.candidates, num_classes) - 1)
        choice = cost.evaluations(self._choice_samples() if self.candidates < num_classes else 0)
        return steps[0] + choice[0], steps[1] + choice[1]

    def extra_vectors(self) -> int:
        return 4 * (self.candidates - 1)

    def linearise(self, state: R, classifier: SmoothedClassifier) -> Planes:
        """Evaluates x with a gradient for each rival, keeps adversarial points and counts the cost."""
        passed = self.rival_gradients(state, classifier, state.rivals)
        hits = self.judge(state, passed.votes)
        directions, norms, lost = unit(passed.gradient.flatten(2))
        z = self.logits(passed)
        ahead = z.gather(1, state.rivals) - z.gather(1, state.labels[:, None])
        lengths = ahead.abs() / norms.clamp(min=1e-12)
        length, nearest = lengths.masked_fill_(lost | ahead.isnan(), torch.inf).min(dim=1)
        none = length == torch.inf
        state.lost_gradients += none & ~hits
        step = (length + self.BEYOND).masked_fill_(none, 0.0)[:, None] * _of_each(directions, nearest)
        return Planes(hits, step, _of_each(directions, ahead.argmax(dim=1)))

    def rivals_of(self, state: Batch, classifier: SmoothedClassifier) -> Tensor:
        """The rivals of new examples: of more classes than are considered, by a short evaluation of the image."""
        count = min(self.candidates, classifier.num_classes) - 1
        likely = torch.zeros((len(state), classifier.num_classes), device=state.x.device)
        if count < classifier.num_classes - 1:
            keys, objective = state.keys(self.seed), LogRatio()
            passed = classifier.surrogate(state.x, state.labels, keys, self._choice_samples(), objective)
            state.forward += passed.forward_evaluations
            state.backward += passed.backward_evaluations
            likely = passed.log_mean
        return likeliest_rivals(likely, state.labels, count)

    def _choice_samples(self) -> int:
        """The samples by which an image's rivals are chosen."""
        return min(self.samples, PILOT)


@dataclass(frozen=True)
class DeepFool(Linearising[DeepFoolState]):
    """With f_k = z_k − z_label, steps to where the linearisation of the nearest f_k is zero, and a little beyond.

    overshoot: the share by which every point lies beyond the sum of the steps. An example stops at its first
    adversarial point, as in the authors' code.
    """

    TYPICAL_SHARE = 0.2

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> DeepFoolState:
        joined = Batch.new(examples, classifier.num_classes)
        total = torch.zeros_like(joined.clean.flatten(1))
        return DeepFoolState(rivals=self.rivals_of(joined, classifier), total=total, **vars(joined))

    def step(self, state: DeepFoolState, classifier: SmoothedClassifier) -> None:
        planes = self.linearise(state, classifier)
        state.done |= planes.adversarial
        state.total = state.total + planes.step
        set_perturbation(state, (1.0 + self.overshoot) * state.total)


def _of_each(vectors: Tensor, chosen: Tensor) -> Tensor:
    """One of the vectors (examples, R, dimensions) of each example, by its number."""
    return vectors.gather(1, chosen[:, None, None].expand_as(vectors[:, :1]))[:, 0]

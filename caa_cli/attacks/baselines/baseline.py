"""What the baseline attacks share: one evaluation of the current points, and the geometry of a step.

They were made for plain classifiers. Here each sees the smoothed one: its logits z are the log of the mean softmax
over the noise, its gradients those of z, and a point is adversarial where the votes say so confidently. The paper's
own may take the mean Gumbel–softmax draw for the logits instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self, cast

import torch
from torch import Tensor

from caa_cli.attacks.common.attack import Attack, State
from caa_cli.attacks.common.state import Batch, Example
from caa_cli.attacks.common.vectors import unit
from caa_cli.config.settings import Settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientCost, GradientPass
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.objective import Objective


@dataclass
class Evaluation:
    """One evaluation of x, one row an example.

    direction: (examples, dimensions) the objective's gradient at unit length, zero where there is none.
    norm: (examples,) its length before.  lost: (examples,) whether there is no gradient.
    adversarial: (examples,) whether another class is confidently above the label, or the target above all others.
    log_mean: (examples, classes) the smoothed logits z; with a `gumbel_temperature` the mean draw, in their place.
    """

    direction: Tensor
    norm: Tensor
    lost: Tensor
    adversarial: Tensor
    log_mean: Tensor


@dataclass(frozen=True)
class Baseline(Attack[State]):
    """An attack of so many steps, each an evaluation with a gradient. steps: of one run.

    gumbel_temperature: takes the mean Gumbel–softmax draw at this temperature for the logits, as the paper does.
    """

    steps: int = 100
    gumbel_temperature: float | None = None

    @classmethod
    def of(cls, settings: Settings, iterations: int, **run: Any) -> Self:
        return cls(steps=iterations, **run, **vars(settings))

    @property
    def iterations(self) -> int:
        return self.steps

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> State:
        """A plain batch; attacks with further state override this."""
        return cast(State, Batch.new(examples, classifier.num_classes))

    def budget(self, num_classes: int, cost: GradientCost = WhiteBox.cost) -> tuple[int, int]:
        return cost.evaluations(self.iterations * self.samples)

    def evaluate(self, state: Batch, classifier: SmoothedClassifier, objective: Objective) -> Evaluation:
        """Evaluates x with a gradient, keeps adversarial points and counts the cost. objective: as its aim has it."""
        classes, keys = state.aim.classes, state.keys(self.seed)
        if self.gumbel_temperature is not None:
            objective = objective.on_draws(self.gumbel_temperature)
        passed = classifier.surrogate(state.x, classes, keys, self.samples, objective)
        state.forward += passed.forward_evaluations
        state.backward += passed.backward_evaluations
        hits = self.judge(state, passed.votes)
        direction, norm, lost = unit(passed.gradient.flatten(1))
        return Evaluation(direction, norm, lost, hits, self.logits(passed))

    def rival_gradients(self, state: Batch, classifier: SmoothedClassifier, rivals: Tensor) -> GradientPass:
        """The gradients of every rival's logit over the label's at x, rivals (examples, R); counts the cost."""
        keys, draws_at = state.keys(self.seed), self.gumbel_temperature
        passed = classifier.rival_gradients(state.x, state.labels, rivals, keys, self.samples, draws_at=draws_at)
        state.forward += passed.forward_evaluations
        state.backward += passed.backward_evaluations
        return passed

    def logits(self, passed: GradientPass) -> Tensor:
        """What the attack takes for the smoothed logits, (examples, classes)."""
        return passed.log_mean if self.gumbel_temperature is None else passed.log_mean.exp()

    def judge(self, state: Batch, votes: Tensor) -> Tensor:
        """Which examples are adversarial at x, (examples,) bool; those are remembered."""
        hits = state.aim.reached(votes, self.samples, self.alpha, self.bound)
        state.remember(hits, votes)
        return hits


def delta(state: Batch) -> Tensor:
    """x − clean, (examples, dimensions)."""
    return (state.x - state.clean).flatten(1)


def set_perturbation(state: Batch, perturbation: Tensor) -> None:
    """Sets x to clean + perturbation, in the box; perturbation: (examples, dimensions)."""
    state.x = (state.clean + perturbation.view_as(state.clean)).clamp(0.0, 1.0)


def max_l2(clean: Tensor) -> Tensor:
    """The distance from each clean image to the furthest corner of the box, (examples,)."""
    distances: Tensor = torch.maximum(clean, 1.0 - clean).flatten(1).norm(dim=1)
    return distances


def cosine(first: float, last: float, state: Batch, steps: int) -> Tensor:
    """Cosine annealing from `first` at step 0 towards `last` at `steps`, (examples,)."""
    return state.on_device(last + (first - last) * (1.0 + torch.cos(math.pi * state.iteration / steps)) / 2.0)

"""The criterion by which a point counts as adversarial during the search, the same for every attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.smoothing.judge import count_of, judge_of, largest_other
from caa_cli.smoothing.objective import Objective, logit_margin


def adversarial(
    votes: Tensor, classes: Tensor, samples: int, alpha: float, bound: str, targeted: bool = False
) -> Tensor:
    """Whether another class is confidently above the label (the paper's Eq. attack_criteria), (examples,) bool.

    votes: (examples, classes) of `samples` draws each. classes: (examples,) the labels. The other class is the one
    with the most votes. targeted: `classes` are targets instead, and each has to be confidently above all others.
    This is no verification: `verification.verifier` draws fresh noise.
    """
    judge = judge_of(samples, alpha, bound, votes.shape[1])
    count, others = count_of(votes, classes), largest_other(votes, classes)
    return judge.ahead(count, others) if targeted else judge.ahead(others, count)


@dataclass
class Aim:
    """What the attacks of a batch are after: to get away from the label, or to reach a target.

    classes: (examples,) int64, the label of each example, or its target.  targeted: which of the two.
    """

    classes: Tensor
    targeted: bool = False

    def of(self, rows: Tensor) -> Aim:
        """That of some examples, numbered on the device."""
        return Aim(self.classes[rows], self.targeted)

    def reached(self, votes: Tensor, samples: int, alpha: float, bound: str) -> Tensor:
        """`adversarial` of these votes."""
        return adversarial(votes, self.classes, samples, alpha, bound, self.targeted)

    def is_original(self, leaders: Tensor) -> Tensor:
        """Whether a point at which these classes lead, (examples,), is on the clean image's side: that of the label,
        or of any class but the target."""
        return (self.classes == leaders) != self.targeted

    def objective(self, objective: Objective) -> Objective:
        """The objective of `classes` that goes the same way: down, or up, towards an adversarial point."""
        return objective.to_reach() if self.targeted else objective

    def margin(self, log_mean: Tensor) -> Tensor:
        """By how much the smoothed logits fall short of an adversarial point, (examples,): negative at one."""
        margin = logit_margin(log_mean, self.classes)
        return -margin if self.targeted else margin

    def take(self, rows: Tensor) -> None:
        """Keeps only these examples."""
        self.classes = self.classes[rows]

    def extend(self, other: Aim) -> None:
        """Appends the examples of another batch of the same attack."""
        self.classes = torch.cat([self.classes, other.classes])

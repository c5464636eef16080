"""The iterative fast gradient method in L2, without a ball: the `pgd` of the paper."""

from __future__ import annotations

from dataclasses import dataclass

from caa_cli.attacks.baseline import Baseline, delta, place
from caa_cli.attacks.loop import Batch
from caa_cli.config import attacks as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import CrossEntropy


@dataclass(frozen=True)
class Pgd(settings.Pgd, Baseline):
    """x ← Π(x + ε ∇CE/‖∇CE‖), Π the box (Kurakin et al., 2017; Madry et al., 2018). epsilon: the step, L2.

    An example stops at its first adversarial point, for every further step would lead away from the clean image.
    """

    def step(self, state: Batch, classifier: SmoothedClassifier) -> None:
        seen = self.look(state, classifier, CrossEntropy())
        state.done |= seen.adversarial
        state.lost_gradients += ~seen.usable & ~seen.adversarial
        place(state, delta(state) + self.epsilon * seen.direction)

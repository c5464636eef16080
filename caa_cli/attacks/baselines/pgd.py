"""The iterative fast gradient method in L2, without a ball: the `pgd` of the paper."""

from __future__ import annotations

from dataclasses import dataclass

from caa_cli.attacks.baselines.baseline import Baseline, delta, set_perturbation
from caa_cli.attacks.common.state import Batch
from caa_cli.config import hyperparameters as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import CrossEntropy


@dataclass(frozen=True)
class Pgd(settings.Pgd, Baseline[Batch]):
    """x ← Π(x + ε ∇CE/‖∇CE‖), Π the box (Kurakin et al., 2017; Madry et al., 2018). epsilon: the step, L2.

    An example stops at its first adversarial point: every further step would lead away from the clean image.
    """

    TYPICAL_SHARE = 0.4

    def step(self, state: Batch, classifier: SmoothedClassifier) -> None:
        evaluation = self.evaluate(state, classifier, state.aim.objective(CrossEntropy()))
        state.done |= evaluation.adversarial
        state.lost_gradients += evaluation.lost & ~evaluation.adversarial
        set_perturbation(state, delta(state) + self.epsilon * evaluation.direction)

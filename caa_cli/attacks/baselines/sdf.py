"""SuperDeepFool, SDF, in L2 (Abdollahpourrostam et al., 2023)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import delta, set_perturbation
from caa_cli.attacks.baselines.deepfool import DeepFoolState, Linearising
from caa_cli.attacks.common.state import Batch, Example
from caa_cli.config import hyperparameters as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.smoothing.gradients import WhiteBox


@dataclass
class SdfState(DeepFoolState):
    """base: (examples, dimensions) the perturbation of the point from which DeepFool goes; `total` is what it adds.
    at_base: (examples,) bool, whether x is that point.
    """

    base: Tensor
    at_base: Tensor


@dataclass(frozen=True)
class Sdf(settings.Sdf, Linearising[SdfState]):
    """Repeats: x̃ is where DeepFool first finds an adversarial point from x, w the unit gradient of z_k − z_label
    there, k being the class that leads; x ← Π(x + ⟨x̃ − clean, w⟩ w). Once such an x is adversarial the ray from the
    clean image is bisected, `bisections` times.

    In the last step allowed the nearest adversarial point that was found is bisected.
    """

    TYPICAL_SHARE = 0.3

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> SdfState:
        joined = Batch.new(examples, classifier.num_classes)
        still = torch.zeros_like(joined.clean.flatten(1))
        rivals, at_base = self.rivals_of(joined, classifier), torch.ones_like(joined.done)
        return SdfState(rivals=rivals, total=still, base=still, at_base=at_base, **vars(joined))

    def budget(self, num_classes: int, cost: GradientCost = WhiteBox.cost) -> tuple[int, int]:
        forward, backward = super().budget(num_classes, cost)
        return forward + self.bisections * self.samples, backward

    def extra_vectors(self) -> int:
        return super().extra_vectors() + 4

    def step(self, state: SdfState, classifier: SmoothedClassifier) -> None:
        planes = self.linearise(state, classifier)
        outward, crossed = planes.outward, planes.adversarial
        projected = state.base + (delta(state) * outward).sum(dim=1, keepdim=True) * outward
        projected = (state.clean.flatten(1) + projected).clamp(0.0, 1.0) - state.clean.flatten(1)
        reached = crossed & state.at_base
        # In the last step what is left is the nearest adversarial point.
        end = torch.where(state.per_image(reached), state.x, state.near_image[:, 0])
        over = reached | state.on_device(state.iteration == self.steps - 1)
        state.base = torch.where(crossed[:, None], projected, state.base)
        state.total = torch.where(crossed[:, None], 0.0, state.total + planes.step)
        state.at_base = crossed
        set_perturbation(state, state.base + (1.0 + self.overshoot) * state.total)
        state.done |= over
        self._bisect(state, classifier, over & torch.isfinite(state.near_distance[:, 0]), end)

    def _bisect(self, state: SdfState, classifier: SmoothedClassifier, chosen: Tensor, end: Tensor) -> None:
        """Bisects the ray from the clean image to `end`, of the examples of this mask, by votes alone."""
        rows = [row for row, wanted in enumerate(chosen.tolist()) if wanted]
        if not rows:
            return
        where = state.index(rows)
        clean, end = state.clean[where], end[where]
        low, high = torch.zeros(len(rows), device=end.device), torch.ones(len(rows), device=end.device)
        votes = torch.zeros_like(state.near_votes[:, 0])
        for number in range(self.bisections):
            middle = (low + high) / 2.0
            points = torch.lerp(clean, end, state.per_image(middle))
            # Noise of its own: the steps have the numbers before.
            keys = [replace(key, iteration=self.steps + number) for key in state.keys(self.seed, rows)]
            votes[where] = classifier.keyed_votes(points, keys, self.samples)
            state.x[where] = points
            state.forward[rows] += self.samples
            hits = self.judge(state, votes)[where]
            low, high = torch.where(hits, low, middle), torch.where(hits, middle, high)

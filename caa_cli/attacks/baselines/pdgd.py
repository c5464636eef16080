"""Primal-dual gradient descent, PDGD, in L2 (Matyasko and Chau, 2021)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import Baseline, delta, set_perturbation
from caa_cli.attacks.common.state import Batch, Example, clean_images
from caa_cli.attacks.common.vectors import unit
from caa_cli.config import hyperparameters as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import LogRatio, logit_margin


@dataclass
class PdgdState(Batch):
    """mean, square: (examples, dimensions) Adam's averages of the gradient and its square.
    log_ratio: (examples,) ℓ, the dual variable: the log of the constraint's weight over the distance's.
    weight: (examples,) the moving average λ₁ of the constraint's weight; that of the distance is λ₀ = 1 − λ₁.
    """

    mean: Tensor
    square: Tensor
    log_ratio: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Pdgd(settings.Pdgd, Baseline[PdgdState]):
    """Adam descends on λ₀‖δ‖ + λ₁ softplus(m), m the margin of the smoothed logits, while the dual variable ℓ climbs
    where the point is not adversarial and falls where it is; (λ₀, λ₁) is a moving average of softmax(0, ℓ).

    primal_lr, dual_lr: the first steps of δ and of ℓ; `_decrease` is the share of them that is left at the end, where
    δ's falls exponentially and ℓ's linearly. dual_ratio_init: the first λ₀/λ₁; dual_min_ratio: the least λ₀/λ₁ and
    λ₁/λ₀. dual_ema: the weight of the past in the average. dual_lr None: such that ℓ can travel as far in a short run
    as in the authors' 500 steps from 0.1.

    The authors ask the sign of m whether a point is adversarial; here the votes have to say so confidently.
    """

    @property
    def first_climb(self) -> float:
        """The first step of ℓ."""
        return max(50.0 / self.steps, 0.1) if self.dual_lr is None else self.dual_lr

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> PdgdState:
        flat = torch.zeros_like(clean_images(examples).flatten(1))
        log_ratio = torch.full_like(flat[:, 0], -math.log(self.dual_ratio_init))
        return PdgdState.new(
            examples,
            classifier.num_classes,
            mean=flat,
            square=flat.clone(),
            log_ratio=log_ratio,
            weight=log_ratio.sigmoid(),
        )

    def step(self, state: PdgdState, classifier: SmoothedClassifier) -> None:
        evaluation = self.evaluate(state, classifier, LogRatio())
        state.lost_gradients += evaluation.lost
        # ∂softplus(m)/∂x
        slope = logit_margin(evaluation.log_mean, state.labels).sigmoid() * evaluation.norm
        pull = (state.weight * slope).masked_fill_(evaluation.lost, 0.0)
        outward, _, _ = unit(delta(state))
        self._descend(state, (1.0 - state.weight)[:, None] * outward + pull[:, None] * evaluation.direction)
        self._climb(state, evaluation.adversarial)

    def _descend(self, state: PdgdState, gradient: Tensor) -> None:
        """One step of Adam on the perturbation, with its usual constants."""
        taken = state.iteration + 1
        rate = self.primal_lr * self.primal_lr_decrease ** (state.iteration / self.steps) / (1.0 - 0.9**taken)
        rate, correction = (state.on_device(value)[:, None] for value in (rate, 1.0 - 0.999**taken))
        state.mean = torch.lerp(state.mean, gradient, 0.1)
        state.square = torch.lerp(state.square, gradient.square(), 0.001)
        set_perturbation(state, delta(state) - rate * state.mean / ((state.square / correction).sqrt() + 1e-8))

    def _climb(self, state: PdgdState, adversarial: Tensor) -> None:
        """One step of the dual variable, and of the average of the weights."""
        left = (self.steps - 1 - state.iteration) / max(self.steps - 1, 1)
        rate = self.first_climb * (self.dual_lr_decrease + (1.0 - self.dual_lr_decrease) * left)
        most, sign = -math.log(self.dual_min_ratio), torch.where(adversarial, -1.0, 1.0)
        state.log_ratio = (state.log_ratio + state.on_device(rate) * sign).clamp(-most, most)
        state.weight = torch.lerp(state.log_ratio.sigmoid(), state.weight, self.dual_ema)

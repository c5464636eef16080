"""The augmented Lagrangian method for adversarial attacks, ALMA, in L2 (Rony et al., 2021)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import Baseline, Evaluation, delta, set_perturbation
from caa_cli.attacks.common.projection import least_scale, room_along
from caa_cli.attacks.common.state import Batch, Example, clean_images
from caa_cli.attacks.common.vectors import unit
from caa_cli.config import hyperparameters as settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.logit_ratio import LogitRatio


@dataclass
class AlmaState(Batch):
    """square, momentum: (examples, dimensions) RMSProp's averages.

    What is one number an example is worked out on the CPU. classes: those of `aim`.  mu, rho: the penalty's
    multiplier and weight.  checked: the constraint y at its last check.  rate: the learning rate.
    success_at: the step of the first adversarial point, inf before it.  scale: the divisor of y.
    """

    square: Tensor
    momentum: Tensor
    classes: Tensor
    mu: Tensor
    rho: Tensor
    checked: Tensor
    rate: Tensor
    success_at: Tensor
    scale: Tensor


@dataclass(frozen=True)
class Alma(settings.Alma, Baseline[AlmaState]):
    """Minimises ‖δ‖ + P(y; μ, ρ) with RMSProp, y ≤ 0 being the constraint that the label has lost.

    y is the difference-of-logits ratio plus `logit_tolerance`, P the authors' penalty P2. average: their α, the
    weight of every moving average; None: their 0.9 (for 1,000 steps) from 500 steps on, and their 0.5 (for 100)
    below. init_lr_distance: the length of the first step. lr_reduction: the share of the learning rate that is left
    at the end, after a first success. Every `check_steps` steps, an example without success whose y has not fallen
    below the share `tau` of its last checked value has its weight ρ multiplied by `gamma`.

    The ratio needs three classes, and with targets four. With fewer, y is the logit margin divided by its value at
    the clean image.
    """

    @property
    def weight(self) -> float:
        """The weight of the past in every moving average."""
        if self.average is not None:
            return self.average
        return 0.9 if self.steps >= 500 else 0.5

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> AlmaState:
        size, zeros = len(examples), torch.zeros_like(clean_images(examples).flatten(1))

        def each(value: float) -> Tensor:
            return torch.full((size,), value)

        return AlmaState.new(
            examples,
            classifier.num_classes,
            square=torch.ones_like(zeros),
            momentum=zeros,
            classes=torch.tensor([e.label if e.target is None else e.target for e in examples]),
            mu=each(self.mu_init),
            rho=each(self.rho_init),
            checked=each(torch.inf),
            rate=each(0.0),
            success_at=each(torch.inf),
            scale=each(1.0),
        )

    def step(self, state: AlmaState, classifier: SmoothedClassifier) -> None:
        ratio = LogitRatio(self.logit_tolerance, state.aim.targeted)
        evaluation = self.evaluate(state, classifier, ratio)
        state.lost_gradients += evaluation.lost
        log_mean, norm, lost, adversarial = _for_the_host(evaluation)
        y, step = ratio.value(log_mean, state.classes), state.iteration.float()
        if classifier.num_classes < ratio.least_classes:
            state.scale = torch.where(step == 0, y.abs().clamp(min=1e-12), state.scale)
            y = y / state.scale
        self._adjust(state, y, adversarial, step)
        pull = (_slope(y, state.mu, state.rho) * norm / state.scale).masked_fill_(lost, 0.0)
        moved = delta(state)
        gradient = unit(moved)[0] + state.on_device(pull)[:, None] * evaluation.direction
        state.square = self.weight * state.square + (1.0 - self.weight) * gradient.square()
        scaled = gradient / (state.square.sqrt() + 1e-8)
        state.momentum = self.weight * state.momentum + scaled
        # Without a gradient in the first step, the next one sets the rate.
        unset = (state.rate == 0) & ~lost
        if bool(unset.any()):
            state.rate = torch.where(unset, self._first_rate(state, gradient).cpu(), state.rate)
        rate = state.on_device(state.rate * self._decay(state, step))
        set_perturbation(state, moved - rate[:, None] * state.momentum)

    def _adjust(self, state: AlmaState, y: Tensor, adversarial: Tensor, step: Tensor) -> None:
        """Updates the multiplier and the weight of the penalty for this step's y."""
        first = step == 0
        check = ~first & ((step + 1.0) % self.check_steps == 0)
        stuck = check & torch.isinf(state.success_at) & ~(y < self.tau * state.checked)
        state.rho = torch.where(stuck, self.gamma * state.rho, state.rho)
        state.checked = torch.where(check | first, y, state.checked)
        slope = _slope(y, state.mu, state.rho)
        # Where y is NaN the multiplier stays.
        moved = self.weight * state.mu + (1.0 - self.weight) * torch.where(slope.isnan(), state.mu, slope)
        state.mu = torch.where(first, state.mu, moved.clamp(1e-6, 1e12))
        fresh = adversarial & torch.isinf(state.success_at)
        state.success_at = torch.where(fresh, step, state.success_at)

    def _first_rate(self, state: AlmaState, gradient: Tensor) -> Tensor:
        """The learning rate at which a gradient step from the clean image has the length `init_lr_distance`, box
        included; where the box allows none so long, a step that all but leaves the box."""
        room = room_along(state.clean.flatten(1), -gradient)
        need = torch.full_like(room[:, 0], self.init_lr_distance**2)
        rate = least_scale(room.square(), gradient.square(), need).sqrt()
        longest = 2.0**20 * self.init_lr_distance / gradient.norm(dim=1).clamp(min=1e-12)
        return torch.minimum(rate, longest)

    def _decay(self, state: AlmaState, step: Tensor) -> Tensor:
        """From 1 at the first adversarial point down to `lr_reduction` at the last step."""
        succeeded = torch.isfinite(state.success_at)
        since = torch.where(succeeded, step - state.success_at, 0.0)
        left = torch.where(succeeded, self.steps - state.success_at, 1.0)
        return self.lr_reduction ** (since / left)


def _slope(y: Tensor, mu: Tensor, rho: Tensor) -> Tensor:
    """∂P2/∂y, with P2 = μy + μρy² + ρ²y³/6 for y ≥ 0 and μy/(1 − ρy) below."""
    above = mu + 2.0 * mu * rho * y + rho.square() * y.square() / 2.0
    below = mu / (1.0 - rho * y.clamp(max=0.0)).square()
    return torch.where(y >= 0, above, below)


def _for_the_host(evaluation: Evaluation) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`log_mean`, `norm`, `lost` and `adversarial` on the CPU, in one copy."""
    each = torch.stack([evaluation.norm, evaluation.lost, evaluation.adversarial], dim=1)
    on_host = torch.cat([evaluation.log_mean, each], dim=1).cpu()
    norm, lost, adversarial = on_host[:, -3:].unbind(dim=1)
    return on_host[:, :-3], norm, lost.bool(), adversarial.bool()

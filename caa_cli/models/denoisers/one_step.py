"""One step of a diffusion model as a denoiser (Carlini et al., 2023, "(Certified!!) adversarial robustness for free!")."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caa_cli.errors import UsageError

# What a network predicts at z = √ᾱ·image + √(1−ᾱ)·noise: the noise; √ᾱ·noise − √(1−ᾱ)·image; or the image.
EPSILON, VELOCITY, SAMPLE = PREDICTIONS = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True)
class Step:
    """number: of the step, from 0.  alpha_bar: ᾱ of it, in (0, 1)."""

    number: int
    alpha_bar: float

    @property
    def sigma(self) -> float:
        """The noise that the network expects at this step, in [0, 1] pixel units: it is trained on [−1, 1]."""
        return math.sqrt((1 - self.alpha_bar) / self.alpha_bar) / 2


def first_step(alpha_bars: Tensor, sigma: float) -> Step:
    """The first step whose noise is at least σ: √((1 − ᾱ_t) / ᾱ_t) ≥ 2σ.

    alpha_bars: (steps,) float64, falling.  sigma: in [0, 1] pixel units. Raises UsageError where no step has so much.
    """
    # A last step of pure noise (ᾱ = 0) has nothing left to denoise.
    steps = [Step(number, left) for number, left in enumerate(alpha_bars.tolist()) if left > 0]
    for step in steps:
        if step.sigma >= sigma:
            return step
    raise UsageError(
        f"the diffusion model's last step has noise of σ = {steps[-1].sigma:.4g}, less than σ = {sigma:g}",
        f"choose a --sigma of at most {steps[-1].sigma:.4g}, or another denoiser",
    )


class OneStep(nn.Module):
    """Noisy images → what one step of a diffusion model takes for the clean ones, both around [0, 1].

    network: (z, timestep) → its prediction at z = √ᾱ (2x − 1), of which the first channels count: networks that
    learn their variance return twice as many.  timestep: the step, as the network was trained to be told.
    clip: the estimate stays in [−clip, clip] before it is brought back to [0, 1]; None: it is left as it is.

    z has the noise 2σ√ᾱ where the network expects √(1−ᾱ), at most a step of the schedule more. (Published code adds
    the step's own noise, √((1−ᾱ)/ᾱ)/2 in [0, 1] pixel units, and certifies σ, which is a little less.)
    """

    def __init__(
        self,
        network: Callable[[Tensor, float], Tensor],
        step: Step,
        timestep: float,
        prediction: str = EPSILON,
        clip: float | None = 1.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.timestep = timestep
        self.signal, self.noise = math.sqrt(step.alpha_bar), math.sqrt(1 - step.alpha_bar)
        self.prediction = prediction
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        z = self.signal * (2 * x - 1)
        clean = self._clean(z, self.network(z, self.timestep)[:, : x.shape[1]])
        if self.clip is not None:
            clean = clean.clamp(-self.clip, self.clip)
        return (clean + 1) / 2

    def _clean(self, z: Tensor, predicted: Tensor) -> Tensor:
        if self.prediction == EPSILON:
            return (z - self.noise * predicted) / self.signal
        return self.signal * z - self.noise * predicted if self.prediction == VELOCITY else predicted



"""One step of a diffusion model as a denoiser (Carlini et al., 2023, "(Certified!!) adversarial robustness")."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from caa_cli.errors import UsageError
from caa_cli.models.denoisers.denoiser import Denoiser
from caa_cli.runtime.words import counted

# What a network predicts at z = √ᾱ·image + √(1−ᾱ)·noise: the noise; √ᾱ·noise − √(1−ᾱ)·image; or the image.
EPSILON, VELOCITY, SAMPLE = "epsilon", "v_prediction", "sample"
# U-Nets for images of at least this height and width take others too.
_LARGE = 128


@dataclass(frozen=True)
class Step:
    """number: of the step, from 0.  alpha_bar: ᾱ of it, in (0, 1)."""

    number: int
    alpha_bar: float

    @property
    def sigma(self) -> float:
        """The noise that the network expects at this step, in [0, 1] pixel units: it is trained on [−1, 1]."""
        return math.sqrt((1 - self.alpha_bar) / self.alpha_bar) / 2


@dataclass(frozen=True, kw_only=True)
class Diffusion:
    """What a network was trained for. Images are in [−1, 1].

    alpha_bars: ᾱ of each step, (steps,) float64, falling.  schedule: its name.
    prediction: EPSILON, VELOCITY or SAMPLE.  clip: estimates of the image are clipped to [−clip, clip]; None: they
    aren't.  timestep: number of a step → what the network is told at it.
    """

    alpha_bars: Tensor
    schedule: str
    prediction: str = EPSILON
    clip: float | None = 1.0
    timestep: Callable[[int], float] = float

    def first_step(self, sigma: float) -> Step:
        """The first step with at least the noise σ, in [0, 1] pixel units: √((1 − ᾱ_t) / ᾱ_t) ≥ 2σ.

        Raises UsageError where no step has so much.
        """
        # A last step of pure noise (ᾱ = 0) has nothing left to denoise.
        steps = [Step(number, left) for number, left in enumerate(self.alpha_bars.tolist()) if left > 0]
        for step in steps:
            if step.sigma >= sigma:
                return step
        most = f"{math.floor(1000 * steps[-1].sigma) / 1000:g}"
        raise UsageError(
            f"the diffusion model's last step has noise of σ = {most}, less than σ = {sigma:g}",
            f"choose a --sigma of at most {most}, or another denoiser",
        )


class OneStep(nn.Module):
    """Noisy images → what one step of a diffusion model takes for the clean ones, both around [0, 1].

    network: (z, timestep) → its prediction at z = √ᾱ (2x − 1). Its first channels count: networks that learn the
    variance return as many again.

    z has noise of 2σ√ᾱ where the network expects √(1−ᾱ), which is more by less than a step of the schedule.
    (Published code adds the step's own noise, √((1−ᾱ)/ᾱ)/2 in [0, 1] pixel units, and certifies σ.)
    """

    def __init__(self, network: nn.Module, diffusion: Diffusion, step: Step) -> None:
        super().__init__()
        self.network = network
        self.timestep = diffusion.timestep(step.number)
        self.signal, self.noise = math.sqrt(step.alpha_bar), math.sqrt(1 - step.alpha_bar)
        self.prediction, self.clip = diffusion.prediction, diffusion.clip

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


def one_step_denoiser(
    diffusion: Diffusion,
    network: Callable[[], nn.Module],
    *,
    family: str,
    arch: str,
    channels: int,
    size: int | None,
    multiple: int,
) -> Denoiser:
    """The `Denoiser` of a diffusion model.

    network: makes it, with its weights.  size: of the images that it was trained on; None: unknown.
    """
    # U-Nets are convolutions and attention, so any size goes in. Small images are other pictures at another size; of
    # large ones it makes little difference: published code takes 224×224 for a network of 256×256.
    strict = size is None or size < _LARGE

    def build(sigma: float) -> nn.Module:
        return OneStep(network(), diffusion, diffusion.first_step(sigma)).eval()

    steps = counted(len(diffusion.alpha_bars), "step", ",")
    return Denoiser(
        family=family,
        arch=f"one-step diffusion, {arch}, {diffusion.schedule} schedule of {steps}",
        channels=channels,
        build=build,
        size=size if strict else None,
        multiple=multiple,
        smallest=1 if strict or size is None else size // 2,
        expected_sigma=lambda sigma: diffusion.first_step(sigma).sigma,
    )


def millions(tensors: Mapping[str, Tensor]) -> str:
    """How many weights a network has, as text."""
    return f"{sum(tensor.numel() for tensor in tensors.values()) / 1e6:.3g} M weights"

"""Schedules against closed forms, and one step of a diffusion model against its formula."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from caa_cli.errors import UsageError
from caa_cli.models.denoisers.one_step import EPSILON, SAMPLE, VELOCITY, Diffusion, OneStep, Step
from caa_cli.models.denoisers.schedules import (
    alpha_bars,
    cosine_betas,
    ending_in_noise,
    linear_betas,
    scaled_linear_betas,
)


def linear() -> Diffusion:
    return Diffusion(alpha_bars=alpha_bars(linear_betas(1000)), schedule="linear")


def test_linear_schedule():
    betas = linear_betas(5, 0.1, 0.5)
    assert betas.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=1e-15)
    assert alpha_bars(betas).tolist() == pytest.approx([0.9, 0.72, 0.504, 0.3024, 0.1512], abs=1e-15)
    assert alpha_bars(betas).dtype == torch.float64
    roots = scaled_linear_betas(3, 0.01, 0.09).sqrt()
    assert roots.tolist() == pytest.approx([0.1, 0.2, 0.3], abs=1e-15)


def test_cosine_schedule_follows_its_cosine_until_the_last_step():
    steps = 4000

    def left(time: float) -> float:
        return math.cos((time + 0.008) / 1.008 * math.pi / 2) ** 2

    bars = alpha_bars(cosine_betas(steps)).tolist()
    for number in (0, 1, 1157, 2000, 3900):
        assert bars[number] == pytest.approx(left((number + 1) / steps) / left(0), rel=1e-9)
    assert cosine_betas(steps).max() == 0.999
    assert bars[-1] == pytest.approx(0.001 * bars[-2], rel=1e-9)


def test_a_schedule_that_ends_in_noise_begins_as_before():
    before = alpha_bars(linear_betas(100, 0.001, 0.05))
    after = ending_in_noise(before)
    assert after[0] == pytest.approx(before[0].item(), rel=1e-12)
    assert after[-1] == 0
    assert (after[1:] < before[1:]).all()


@pytest.mark.parametrize("sigma", [0.005, 0.12, 0.25, 0.5, 1.0, 5.0])
def test_step_is_the_first_with_enough_noise(sigma):
    diffusion = linear()
    step = diffusion.first_step(sigma)
    noise = ((1 - diffusion.alpha_bars) / diffusion.alpha_bars).sqrt()
    assert noise[step.number] >= 2 * sigma
    assert step.number == 0 or noise[step.number - 1] < 2 * sigma
    assert step.sigma == pytest.approx(noise[step.number].item() / 2, rel=1e-12)


@pytest.mark.parametrize(
    ("betas", "steps"), [(linear_betas(1000), [145, 259, 396]), (cosine_betas(4000), [1158, 1984, 2809])]
)
def test_the_published_steps(betas, steps):
    """Those of Carlini et al.'s code at σ = 0.25, 0.5 and 1, for ImageNet and CIFAR-10."""
    diffusion = Diffusion(alpha_bars=alpha_bars(betas), schedule="x")
    assert [diffusion.first_step(sigma).number for sigma in (0.25, 0.5, 1.0)] == steps


def test_noise_beyond_the_schedule_is_refused():
    diffusion = Diffusion(alpha_bars=torch.tensor([0.9, 0.5, 0.2, 0.0], dtype=torch.float64), schedule="x")
    assert diffusion.first_step(0.9999).number == 2  # √(0.8 / 0.2) / 2 = 1
    with pytest.raises(UsageError, match=r"last step has noise of σ = 1, less than σ = 1.01") as caught:
        diffusion.first_step(1.01)
    assert caught.value.hint == "choose a --sigma of at most 1, or another denoiser"


class Twice(nn.Module):
    """Some function of image and timestep, with as many channels again, as if it learnt the variance."""

    def forward(self, z: Tensor, timestep: float) -> Tensor:
        assert timestep == 2.5
        return torch.cat([(3 * z).sin() + z.mean(), torch.full_like(z, 1e6)], dim=1)


@pytest.mark.parametrize("prediction", [EPSILON, VELOCITY, SAMPLE])
@pytest.mark.parametrize("clip", [None, 1.0, 0.5])
def test_step_is_the_formula(prediction, clip):
    step, x = Step(5, 0.36), 0.5 + torch.randn(2, 3, 4, 4, dtype=torch.float64)
    diffusion = Diffusion(
        alpha_bars=torch.ones(1), schedule="x", prediction=prediction, clip=clip, timestep=lambda number: number / 2
    )
    z = 0.6 * (2 * x - 1)
    predicted = (3 * z).sin() + z.mean()
    if prediction == EPSILON:
        clean = (z - 0.8 * predicted) / 0.6
    else:
        clean = 0.6 * z - 0.8 * predicted if prediction == VELOCITY else predicted
    if clip is not None:
        assert (clean.abs() > clip).any()
        clean = clean.clamp(-clip, clip)
    out = OneStep(Twice(), diffusion, step)(x)
    assert torch.allclose(out, (clean + 1) / 2, rtol=0, atol=1e-12)


class Knows(nn.Module):
    """Predicts what it is told to."""

    def __init__(self, prediction: Tensor) -> None:
        super().__init__()
        self.prediction = prediction

    def forward(self, z: Tensor, timestep: float) -> Tensor:
        return self.prediction


@pytest.mark.parametrize("prediction", [EPSILON, VELOCITY])
def test_a_perfect_network_removes_the_noise(prediction):
    image, noise = torch.rand(2, 3, 8, 8, dtype=torch.float64), torch.randn(2, 3, 8, 8, dtype=torch.float64)
    step = linear().first_step(0.25)
    told = noise
    if prediction == VELOCITY:
        told = math.sqrt(step.alpha_bar) * noise - math.sqrt(1 - step.alpha_bar) * (2 * image - 1)
    diffusion = Diffusion(alpha_bars=torch.ones(1), schedule="x", prediction=prediction)
    denoised = OneStep(Knows(told), diffusion, step)(image + step.sigma * noise)
    assert torch.allclose(denoised, image, rtol=0, atol=1e-12)

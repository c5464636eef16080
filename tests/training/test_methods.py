"""The losses of the training methods against their formulas, written down a second time and image by image."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pkgutil import resolve_name
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor, nn

from caa_cli.config.methods import METHODS
from caa_cli.training.consistency import Consistency
from caa_cli.training.gaussian import Gaussian
from caa_cli.training.macer import Macer
from caa_cli.training.smoothadv import MeanPrediction, SmoothAdv, ddn, norms, pgd, unit
from caa_cli.training.stability import Stability
from caa_cli.training.step import Method, Outcome, Step

IMAGES, CLASSES, SIGMA = 5, 4, 0.5


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, CLASSES)).double()


def step_of(model: nn.Module, epoch: int = 0, seed: int = 0) -> Step:
    generator = torch.Generator().manual_seed(seed)
    return Step(
        forward=model,
        frozen=lambda: nullcontext(model),
        images=torch.rand((IMAGES, 1, 3, 4), generator=generator, dtype=torch.float64),
        labels=torch.randint(CLASSES, (IMAGES,), generator=generator),
        sigma=SIGMA,
        generator=torch.Generator().manual_seed(seed + 1),
        epoch=epoch,
    )


def outcome(method: Method, model: nn.Module, epoch: int = 0) -> tuple[float, Outcome, Step]:
    step = step_of(model, epoch)
    found = method.loss(step)
    return float(found.loss.detach()), found, step


def probabilities(model: nn.Module, draws: int) -> np.ndarray:
    """(images, draws, classes) under the noise that the method drew."""
    step = step_of(model)
    noisy = step.images.repeat_interleave(draws, dim=0) + step.noise(draws)
    logits = model(noisy).detach().numpy().reshape(IMAGES, draws, CLASSES)
    return np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)


@pytest.mark.parametrize("draws", [1, 3])
def test_gaussian_is_the_mean_cross_entropy(draws: int):
    model = network()
    loss, found, step = outcome(Gaussian(draws=draws), model)
    p = probabilities(model, draws)
    expected = -np.mean([math.log(p[i, d, int(step.labels[i])]) for i in range(IMAGES) for d in range(draws)])
    assert loss == pytest.approx(expected)
    right = np.mean([p[i, d].argmax() == int(step.labels[i]) for i in range(IMAGES) for d in range(draws)])
    assert float(found.correct(step.labels)) == pytest.approx(right * IMAGES)


def test_stability_draws_the_noisy_prediction_to_the_clean_one():
    model = network()
    loss, _, step = outcome(Stability(weight=3.0), model)
    noisy = probabilities(model, 1)[:, 0]
    clean = model(step.images).softmax(dim=1).detach().numpy()
    labels = step.labels.numpy()
    cross_entropy = -np.mean(np.log(clean[np.arange(IMAGES), labels]))
    assert loss == pytest.approx(cross_entropy - 3.0 * np.mean((clean * np.log(noisy)).sum(axis=1)))


@pytest.mark.parametrize("draws", [2, 5])
def test_consistency_is_divergence_and_entropy_of_the_mean(draws: int):
    model = network()
    loss, _, step = outcome(Consistency(draws=draws, weight=7.0, eta=0.3), model)
    p, expected = probabilities(model, draws), 0.0
    for i in range(IMAGES):
        mean = p[i].mean(axis=0)
        cross_entropy = np.mean([-math.log(p[i, d, int(step.labels[i])]) for d in range(draws)])
        divergence = np.mean([stats.entropy(mean, p[i, d]) for d in range(draws)])
        expected += (cross_entropy + 7.0 * divergence + 0.3 * stats.entropy(mean)) / IMAGES
    assert loss == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 8.0])
def test_macer_is_a_hinge_on_the_radius(gamma: float):
    model = network(seed=3)
    draws, beta, weight = 4, 3.0, 5.0
    loss, _, step = outcome(Macer(draws=draws, weight=weight, gamma=gamma, beta=beta), model)
    p = probabilities(model, draws)
    expected, counted = 0.0, 0
    for i in range(IMAGES):
        label = int(step.labels[i])
        expected -= math.log(p[i, :, label].mean()) / IMAGES
        sharp = p[i] ** beta / (p[i] ** beta).sum(axis=1, keepdims=True)
        mean = sharp.mean(axis=0)
        second, first = np.sort(mean)[-2:]
        gap = stats.norm.ppf(first) - stats.norm.ppf(second)
        if mean.argmax() == label and gap <= gamma:
            counted += 1
            expected += weight * SIGMA / 2 * (gamma - gap) / IMAGES
    assert loss == pytest.approx(expected)
    assert counted > 0 or gamma < 2


def test_the_hinge_of_macer_waits():
    model = network()
    method = Macer(draws=4, defer=3)
    waiting, counting = outcome(method, model, epoch=2)[0], outcome(method, model, epoch=3)[0]
    assert waiting == pytest.approx(outcome(Macer(draws=4, weight=0.0), model)[0])
    assert counting > waiting


def test_macer_gives_no_nan_where_all_draws_agree_entirely():
    """Probabilities of exactly 0 and 1 have no Φ⁻¹; such images are no part of the hinge, nor of its gradient."""
    logits = torch.zeros(2, 3, CLASSES)
    logits[0, :, 1] = 1e4
    logits[1, :, 2] = 0.1
    logits.requires_grad_(True)
    hinge = Macer().hinge(logits, torch.tensor([1, 2]))
    hinge.backward()
    assert float(hinge.detach()) > 0
    assert bool(logits.grad.isfinite().all())
    assert float(logits.grad[0].abs().max()) == 0
    assert float(logits.grad[1].abs().max()) > 0


@pytest.mark.parametrize(
    "method",
    [
        Gaussian(draws=2),
        Stability(),
        Consistency(),
        Macer(draws=4),
        SmoothAdv(warmup=0),
        SmoothAdv(inner_attack="ddn"),
    ],
    ids=lambda method: type(method).__name__,
)
def test_gradients_reach_every_weight(method: Method):
    model = network()
    outcome(method, model)[1].loss.backward()
    for parameter in model.parameters():
        assert float(parameter.grad.abs().max()) > 0


class Half(nn.Module):
    """Two classes, class 1 beyond a plane through the grey image; the sharper, the nearer softmax is to a step."""

    def __init__(self, normal: Tensor, sharpness: float = 20.0) -> None:
        super().__init__()
        self.normal, self.sharpness = normal / normal.norm(), sharpness

    def forward(self, x: Tensor) -> Tensor:
        score = self.sharpness * ((x.flatten(1) - 0.5) @ self.normal)
        return torch.stack([torch.zeros_like(score), score], dim=1)


def smoothed(normal: Tensor, count: int, draws: int = 8) -> MeanPrediction:
    noise = 0.1 * torch.randn((count * draws, 1, 10, 10), generator=torch.Generator().manual_seed(0))
    return MeanPrediction(Half(normal), noise, draws)


def test_pgd_goes_straight_at_a_linear_boundary_as_far_as_it_may():
    normal = torch.randn(100, generator=torch.Generator().manual_seed(1))
    images, labels = torch.full((3, 1, 10, 10), 0.5), torch.zeros(3, dtype=torch.int64)
    moved = pgd(smoothed(normal, 3), images, labels, epsilon=0.3, steps=4)
    expected = (0.3 * normal / normal.norm()).view(1, 1, 10, 10).expand(3, -1, -1, -1)
    assert torch.allclose(moved - images, expected, atol=1e-4)


def test_ddn_ends_near_a_linear_boundary():
    normal = torch.randn(100, generator=torch.Generator().manual_seed(1))
    unit = (normal / normal.norm()).view(1, 1, 10, 10)
    distance = 0.2
    images, labels = (0.5 - distance * unit).expand(3, -1, -1, -1), torch.zeros(3, dtype=torch.int64)
    model = smoothed(normal, 3, draws=64)
    moved = ddn(model, images, labels, epsilon=0.4, steps=40)
    assert bool((model(moved).argmax(dim=1) != labels).all())
    length = norms(moved - images).flatten()
    assert bool((length < 1.15 * distance).all())
    assert bool((length > 0.8 * distance).all())


def test_ddn_begins_with_the_longest_move():
    normal = torch.randn(100, generator=torch.Generator().manual_seed(1))
    images, labels = torch.full((3, 1, 10, 10), 0.5), torch.zeros(3, dtype=torch.int64)
    model = MeanPrediction(Half(-normal, sharpness=1e-3), torch.zeros(3, 1, 10, 10), draws=1)
    moved = ddn(model, images, labels, epsilon=1.2, steps=1)
    assert torch.allclose(norms(moved - images).flatten(), torch.tensor(1.2), rtol=1e-3)


class Prescribed:
    """In place of a smoothed classifier: always right, with these directions of the loss, one a step."""

    def __init__(self, *directions: list[float]) -> None:
        self.directions = iter(directions)

    def ascent(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.tensor(next(self.directions)).view(1, 1, 1, 2), labels


def test_the_steps_of_ddn_become_shorter():
    """From 1 to 0.01 by a cosine, so that half-way a step is 0.505 long; the move is 5% longer each time."""
    images, labels = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    moved = ddn(Prescribed([1.0, 0.0], [0.0, 1.0]), images, labels, epsilon=0.2, steps=2)
    expected = torch.tensor([0.21, 0.505])
    assert torch.allclose((moved - images).flatten(), 0.2 * expected / expected.norm(), atol=1e-6)


@given(
    seed=st.integers(0, 2**32 - 1),
    epsilon=st.floats(0.01, 3.0),
    steps=st.integers(1, 6),
    attack=st.sampled_from([pgd, ddn]),
)
@settings(max_examples=40)
def test_inner_attacks_stay_in_the_ball_and_the_box(seed: int, epsilon: float, steps: int, attack: Any):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((4, 1, 10, 10), generator=generator)
    labels = torch.randint(2, (4,), generator=generator)
    moved = attack(smoothed(torch.randn(100, generator=generator), 4), images, labels, epsilon, steps)
    # A hundred pixels near 1, each rounded by up to 6e-8, make 6e-7 of their difference.
    assert float(norms(moved - images).max()) <= epsilon * (1 + 1e-5) + 6e-7
    assert float(moved.min()) >= -1e-6
    assert float(moved.max()) <= 1 + 1e-6


@pytest.mark.parametrize("inner_attack", ["pgd", "ddn"])
def test_smoothadv_trains_on_the_noise_of_its_attack(inner_attack: str):
    """With next to no move it is Gaussian augmentation under the first noise that is drawn."""
    model = network()
    method = SmoothAdv(draws=3, epsilon=1e-9, warmup=0, inner_attack=inner_attack)
    assert outcome(method, model)[0] == pytest.approx(outcome(Gaussian(draws=3), model)[0], abs=1e-7)


def test_the_attack_of_smoothadv_grows_with_the_epochs():
    """With an epsilon that grows over four epochs, the loss of one and the same model grows with it."""
    model = network()
    method = SmoothAdv(draws=4, epsilon=2.0, warmup=4)
    losses = [outcome(method, model, epoch)[0] for epoch in (0, 1, 3, 9)]
    assert losses[0] < losses[1] < losses[2] == losses[3]


def test_every_method_takes_the_settings_that_are_declared_for_it():
    for spec in METHODS.values():
        method = resolve_name(spec.runs)
        assert method(**vars(spec.settings())) == method()


@given(seed=st.integers(0, 2**32 - 1), exponent=st.integers(-40, 30))
@settings(max_examples=50)
def test_a_direction_has_length_one_however_small_the_gradient(seed: int, exponent: int):
    x = torch.randn((3, 1, 4, 4), generator=torch.Generator().manual_seed(seed))
    assert torch.allclose(norms(unit(x * 10.0**exponent)), torch.ones(3, 1, 1, 1), atol=1e-3)
    assert torch.equal(unit(torch.zeros_like(x)), torch.zeros_like(x))

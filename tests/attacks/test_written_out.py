"""DDN, FMN, ALMA and C&W, held against one image at a time by autograd, with their authors' constants."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from networks import SmallNet
from torch import Tensor
from torch.nn.functional import cross_entropy

from caa_cli.attacks.baselines.alma import Alma
from caa_cli.attacks.baselines.cw import CarliniWagner
from caa_cli.attacks.baselines.ddn import Ddn
from caa_cli.attacks.baselines.fmn import Fmn
from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.smoothing.classifier import SmoothedClassifier

STEPS, ROUNDS = 30, 6
# Five equal votes are confident at this level.
VOTES = {"samples": 5, "alpha": 0.4}
CW = {"steps": STEPS, "initial_constant": 0.1, "binary_search_steps": ROUNDS, "learning_rate": 0.1}
Rule = Callable[[SmallNet, Tensor, int], list[Tensor]]


def margin(model: SmallNet, x: Tensor, label: int) -> Tensor:
    z = model(x[None])[0]
    return z[label] - torch.cat([z[:label], z[label + 1 :]]).max()


def slope(of: Callable[[Tensor], Tensor], x: Tensor) -> tuple[float, Tensor]:
    """A function's value and gradient."""
    x = x.detach().requires_grad_(True)
    value = of(x)
    return value.item(), torch.autograd.grad(value, x)[0]


def in_box(clean: Tensor, delta: Tensor) -> Tensor:
    return (clean + delta).clamp(0, 1) - clean


def longest(clean: Tensor) -> float:
    return float(torch.maximum(clean, 1 - clean).norm())


def annealed(first: float, last: float, step: int) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * step / STEPS)) / 2


def ddn(model: SmallNet, clean: Tensor, label: int) -> list[Tensor]:
    delta, norm, points = torch.zeros_like(clean), 1.0, []
    for step in range(STEPS):
        _, gradient = slope(lambda x: cross_entropy(model(x[None])[0], torch.tensor(label)), clean + delta)
        adversarial = margin(model, clean + delta, label).item() < 0
        turned = delta + annealed(1.0, 0.01, step) * gradient / gradient.norm()
        norm = min(norm * (0.95 if adversarial else 1.05), longest(clean))
        delta = in_box(clean, norm * turned / turned.norm())
        points.append(clean + delta)
    return points


def fmn(model: SmallNet, clean: Tensor, label: int) -> list[Tensor]:
    delta, radius, best, points = torch.zeros_like(clean), math.inf, math.inf, []
    for step in range(STEPS):
        m, gradient = slope(lambda x: margin(model, x, label), clean + delta)
        gamma = annealed(0.05, 0.001, step)
        if m < 0:
            best = min(best, float(delta.norm()))
            radius = min((1 - gamma) * radius, best)
        elif best < math.inf:
            radius = (1 + gamma) * radius
        else:
            radius = float(delta.norm()) + abs(m) / float(gradient.norm())
        radius = min(radius, longest(clean))
        moved = delta - annealed(1.0, 0.01, step) * gradient / gradient.norm()
        delta = in_box(clean, radius * moved / moved.norm())
        points.append(clean + delta)
    return points


def first_rate(clean: Tensor, gradient: Tensor, wanted: float) -> float:
    """The rate at which a step from the clean image has this length in the box."""
    low, high = 0.0, 1e6
    for _ in range(100):
        middle = (low + high) / 2
        short = float(in_box(clean, -middle * gradient).norm()) < wanted
        low, high = (middle, high) if short else (low, middle)
    return high


def alma(average: float, check: int, tau: float = 0.95, gamma: float = 1.2, length: float = 0.1) -> Rule:
    def points_of(model: SmallNet, clean: Tensor, label: int) -> list[Tensor]:
        def constraint(x: Tensor) -> Tensor:
            highest = model(x[None])[0].sort(descending=True).values
            return (margin(model, x, label) + 1e-4) / (highest[0] - highest[2])

        def slope_of_penalty(y: float, mu: float, rho: float) -> float:
            t = torch.tensor(y, dtype=torch.float64, requires_grad=True)
            penalty = mu * t + mu * rho * t**2 + rho**2 * t**3 / 6 if y >= 0 else mu * t / (1 - rho * t)
            penalty.backward()
            return float(t.grad)

        delta, square, momentum = torch.zeros_like(clean), torch.ones_like(clean), torch.zeros_like(clean)
        mu, rho, success, points = 1.0, 1.0, math.inf, []
        for step in range(STEPS):
            y, gradient = slope(constraint, clean + delta)
            if step == 0:
                checked = y
            elif (step + 1) % check == 0:
                rho = rho if success < math.inf or y < tau * checked else gamma * rho
                checked = y
            if step > 0:
                mu = min(max(average * mu + (1 - average) * slope_of_penalty(y, mu, rho), 1e-6), 1e12)
            if y < 0 and success == math.inf:
                success = step
            total = slope_of_penalty(y, mu, rho) * gradient
            if step > 0:
                total = total + delta / delta.norm()
            else:
                rate = first_rate(clean, total, length)
            decay = 0.01 ** ((step - success) / (STEPS - success)) if success < math.inf else 1.0
            square = average * square + (1 - average) * total**2
            momentum = average * momentum + total / (square.sqrt() + 1e-8)
            delta = in_box(clean, delta - rate * decay * momentum)
            points.append(clean + delta)
        return points

    return points_of


def cw(confidence: float) -> Rule:
    def points_of(model: SmallNet, clean: Tensor, label: int) -> list[Tensor]:
        constant, lower, upper, points = 0.1, 0.0, math.inf, []
        for _ in range(ROUNDS):
            w = torch.atanh((2 * clean - 1) * (1 - 1e-6)).requires_grad_(True)
            adam, succeeded = torch.optim.Adam([w], lr=0.1), False
            for _ in range(STEPS):
                x = (w.tanh() + 1) / 2
                m = margin(model, x, label)
                succeeded |= m.item() < 0
                adam.zero_grad()
                ((x - clean).square().sum() + constant * (m + confidence).clamp(min=0)).backward()
                adam.step()
                points.append(((w.tanh() + 1) / 2).detach())
            lower, upper = (lower, constant) if succeeded else (constant, upper)
            constant = (lower + upper) / 2 if upper < math.inf else 10 * constant
        return points

    return points_of


RULES: dict[str, tuple[Attack, Rule]] = {
    "ddn": (Ddn(steps=STEPS, **VOTES), ddn),
    "fmn": (Fmn(steps=STEPS, **VOTES), fmn),
    "alma, 0.9": (Alma(steps=STEPS, average=0.9, **VOTES), alma(0.9, 10)),
    "alma, checked often": (Alma(steps=STEPS, check_steps=2, **VOTES), alma(0.5, 2)),
    "alma, checked strictly": (
        Alma(steps=STEPS, check_steps=2, tau=0.5, gamma=3.0, init_lr_distance=0.01, **VOTES),
        alma(0.5, 2, 0.5, 3.0, 0.01),
    ),
    "cw": (CarliniWagner(**CW, **VOTES), cw(0.0)),
    "cw, confident": (CarliniWagner(confidence=0.5, **CW, **VOTES), cw(0.5)),
}


@pytest.mark.parametrize("name", RULES)
def test_without_noise_every_point_is_that_of_the_rule_written_out(name: str):
    attack, rule = RULES[name]
    # Most networks FMN approaches from within, and crosses never.
    network, seed = (3, 1) if name == "fmn" else (0, 5)
    model = SmallNet(network).requires_grad_(False)
    images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    images[0] = (1.6 * images[0] - 0.3).clamp(0, 1)  # with pixels at either end of the box
    labels = model(images).argmax(dim=1).tolist()
    examples = [Example(i, image, label) for i, (image, label) in enumerate(zip(images, labels, strict=True))]
    classifier = SmoothedClassifier(model, sigma=1e-7, num_classes=3, input_shape=(1, 8, 8))
    within = 2e-3 if name.startswith("alma") else 1e-4  # RMSProp magnifies the last bits
    points: list[Tensor] = []
    list(Search(attack, classifier, 3, lambda state: points.append(state.x.clone())).run(examples))
    crossed = 0
    for row, (image, label) in enumerate(zip(images, labels, strict=True)):
        expected = rule(model, image, label)
        for step, (ours, theirs) in enumerate(zip(points, expected, strict=True)):
            if (step + 1) % STEPS:  # where a round of C&W ends, the next has begun already
                assert torch.allclose(ours[row], theirs, atol=within), (row, step)
        crossed += sum(margin(model, x, label).item() < 0 for x in expected)
    assert 0 < crossed < 3 * len(points), "some points are adversarial, and some not"


@pytest.mark.parametrize(("steps", "rate", "average"), [(100, 0.1, 0.5), (500, 0.02, 0.9), (2000, 0.01, 0.9)])
def test_what_the_authors_have_for_long_runs_is_made_to_fit_short_ones(steps: int, rate: float, average: float):
    assert CarliniWagner(steps=steps).rate == rate
    assert CarliniWagner(steps=steps, learning_rate=0.3).rate == 0.3
    assert Alma(steps=steps).weight == average
    assert Alma(steps=steps, average=0.7).weight == 0.7


class OutOfReach(torch.nn.Module):
    """The first class leads by far more than any image of the box can change."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(dim=1, keepdim=True)
        return torch.cat([20.0 - mean, mean], dim=1)


@pytest.mark.parametrize(
    ("attack", "length"), [(Ddn(steps=3, initial_norm=50.0, **VOTES), "norm"), (Fmn(steps=3, **VOTES), "epsilon")]
)
def test_no_perturbation_is_to_be_longer_than_the_box_allows(attack: Attack, length: str):
    image = torch.linspace(0, 1, 64).view(1, 8, 8)
    classifier = SmoothedClassifier(OutOfReach(), sigma=1e-3, num_classes=2, input_shape=(1, 8, 8))
    lengths: list[float] = []
    list(
        Search(attack, classifier, 1, lambda state: lengths.append(float(getattr(state, length)))).run(
            [Example(0, image, 0)]
        )
    )
    assert lengths == [pytest.approx(longest(image))] * 3

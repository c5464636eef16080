"""A linear model, an attack at known distances from its plane, whole or one step of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from networks import Linear
from scipy import stats
from torch import nn

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.caa.state import CaaState
from caa_cli.attacks.common.loop import Example, Finding, Search
from caa_cli.config.choices import FIXED
from caa_cli.smoothing.classifier import SmoothedClassifier

IMAGE = (1, 20, 20)


def plane() -> Linear:
    """A linear model whose normal is as far from every corner of the box, so that grey images may go 3.5 along it."""
    weight = 0.2 * (1.0 - 2.0 * (torch.arange(400) % 2))
    layer = nn.Linear(400, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(400), weight]))
        layer.bias.zero_()
    model = nn.Sequential(nn.Flatten(), layer)
    return Linear(SmoothedClassifier(model, sigma=0.5, num_classes=2, input_shape=IMAGE), weight, 0.0)


def attack_at(linear: Linear, distances: Sequence[float], attack: Any, batch: int = 3) -> list[Finding]:
    """What the attack finds from class 1 at these distances, in their order."""
    examples = [Example(index, linear.at(distance), 1) for index, distance in enumerate(distances)]
    found = Search(attack, linear.classifier, batch).run(examples)
    return sorted(found, key=lambda finding: finding.example.index)


def begin(attack: CertificationAware, linear: Linear, clean: float, x: float, label: int = 1) -> CaaState:
    """An image and the point that the attack has come to, at these signed distances from the plane."""
    state = attack.start([Example(7, linear.at(clean), label)], linear.classifier)
    state.x = linear.at(x)[None]
    return state


def step(attack: CertificationAware, linear: Linear, state: CaaState) -> float:
    """One step; the signed distance of x from the plane after it."""
    attack.step(state, linear.classifier)
    state.iteration += 1
    return linear.distance(state.x[0])


def free(**settings: object) -> CertificationAware:
    """Steps as long as the certificates say."""
    return CertificationAware(**{"step_min": 1e-3, "step_max": 10.0, "sample_schedule": FIXED, **settings})


def certified(votes: int = 1500, samples: int = 1500, alpha: float = 0.005) -> float:
    """The radius of two classes' votes at σ = 0.5, by Goodman's bound."""
    chi2, p = stats.chi2.ppf(1 - alpha / 2, 1), votes / samples
    lower = np.roots([1 + chi2 / samples, -(2 * p + chi2 / samples), p * p]).real.min()
    return 0.5 * float(stats.norm.ppf(lower))

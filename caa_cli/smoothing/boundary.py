"""Where a ray crosses the decision boundary of a smoothed classifier, from votes at a few points of it.

For the label y and its rival k, h = σ/2 (Φ⁻¹(p_k) − Φ⁻¹(p_y)) is negative where the label leads and positive
where the rival does; without confidence bounds its size is the certified radius. It is 1-Lipschitz (Salman et
al., 2019) and linear along a ray if the base classifier is linear, so a line through a few noisy votes says
where it reaches the margin that a proof will ask for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from caa_cli.smoothing.bounds import leader, separation

Votes = NDArray[np.int64]

# What is known of the slope dh/dt along a ray before any vote: it can't exceed 1, and on rays that attacks
# find it is seldom below a half.
_SLOPE, _SLOPE_SPREAD, _SLOPE_MIN = 0.75, 0.25, 0.2
# How far h may bend away from a line, as a share of its distance from the boundary.
_BEND = 0.25


@dataclass(frozen=True)
class Margin:
    """h at one point with its standard error (pixel units, both), and p_y + p_k there."""

    h: float
    error: float
    mass: float


def margin(votes: Votes, total: int, label: int, sigma: float) -> Margin:
    """Estimates h from votes (classes,) out of `total` samples; probabilities are kept in [1/2n, 1 − 1/2n]."""
    rival = int(leader(votes, excluding=label))
    p = np.clip(np.array([votes[rival], votes[label]]) / total, 0.5 / total, 1.0 - 0.5 / total)
    quantile = ndtri(p)
    per_probability = 0.5 * sigma * math.sqrt(2.0 * math.pi) * np.exp(0.5 * quantile**2)
    variance = (per_probability**2 * p * (1.0 - p)).sum() + 2.0 * per_probability.prod() * p.prod()
    return Margin(
        0.5 * sigma * float(quantile[0] - quantile[1]),
        math.sqrt(float(variance) / total),
        float(min(p.sum(), 1.0)),
    )


def margin_to_pass(
    mass: float, total: int, classes: int, alpha: float, bound: str, sigma: float, spare: float
) -> float:
    """The h at which votes `spare` standard errors below their expectation still prove the rival ahead.

    mass: p_y + p_k; what remains lies on other classes or abstains.
    """
    counts = np.zeros(classes)

    def passes(gap: float) -> bool:
        observed = gap - spare * math.sqrt(max(mass - gap * gap, 0.0) / total)
        counts[0], counts[1] = 0.5 * (mass + observed) * total, 0.5 * (mass - observed) * total
        return bool(separation(counts, total, 0, alpha, bound, against=1).confident)

    low, high = 0.0, mass
    for _ in range(20):
        middle = 0.5 * (low + high)
        low, high = (low, middle) if passes(middle) else (middle, high)
    p = np.clip([0.5 * (mass + high), 0.5 * (mass - high)], 0.5 / total, 1.0 - 0.5 / total)
    return 0.5 * sigma * float(ndtri(p[0]) - ndtri(p[1]))


class Crossing:
    """A line through noisy margins along a ray: where h reaches a target."""

    def __init__(self) -> None:
        self.distances: list[float] = []
        self.margins: list[Margin] = []

    def add(self, distance: float, seen: Margin) -> None:
        self.distances.append(distance)
        self.margins.append(seen)

    @property
    def mass(self) -> float:
        """p_y + p_k at the point nearest to the boundary so far."""
        return min(self.margins, key=lambda seen: abs(seen.h)).mass

    def solve(self, spare: float, target: float) -> float:
        """The distance at which the line, lowered by `spare` of its own standard errors, reaches `target`."""
        t = np.array(self.distances)
        h = np.array([seen.h for seen in self.margins])
        errors = np.array([seen.error for seen in self.margins])
        weight = 1.0 / (errors**2 + (_BEND * h) ** 2)
        total = weight.sum()
        t_mean, h_mean = (weight * t).sum() / total, (weight * h).sum() / total
        prior = _SLOPE_SPREAD**-2
        slope = (weight * (t - t_mean) * (h - h_mean)).sum() + prior * _SLOPE
        slope /= (weight * (t - t_mean) ** 2).sum() + prior
        slope = min(max(float(slope), _SLOPE_MIN), 1.0)
        return float(t_mean + (target + spare / math.sqrt(total) - h_mean) / slope)

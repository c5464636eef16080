"""Boundary line search: where a ray crosses the decision boundary, estimated from votes at a few of its points.

The margin h (see `smoothing.margin`) is linear along a ray if the base classifier is linear. So a line through a few
noisy margins estimates where h reaches the value that a verification needs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from caa_cli.smoothing.bounds import separation
from caa_cli.smoothing.margin import bounded, margin_between, margin_per_probability

Votes = NDArray[np.int64]

# The prior of the slope dh/dt along a ray: it can't exceed 1, and on rays that attacks find it is seldom below 1/2.
_SLOPE, _SLOPE_SPREAD, _SLOPE_MIN = 0.75, 0.25, 0.2
# How much h may deviate from a line, as a share of h itself.
_BEND = 0.25


@dataclass(frozen=True)
class Margin:
    """The margin h at one point with its standard error (pixel units, both), and mass, p of both classes there.

    unanimous: all votes were for one class, so |h| is at least this, by nobody knows how much.
    """

    h: float
    error: float
    mass: float
    unanimous: bool = False


def margin(votes: Votes, total: int, sides: tuple[int, int], sigma: float) -> Margin:
    """The margin of the first of two classes over the second; votes: (classes,) of `total`."""
    p = bounded(votes[list(sides)] / total, total)
    per_probability = margin_per_probability(p, sigma)
    variance = (per_probability**2 * p * (1.0 - p)).sum() + 2.0 * per_probability.prod() * p.prod()
    return Margin(
        float(margin_between(p[0], p[1], sigma)),
        math.sqrt(float(variance) / total),
        float(min(p.sum(), 1.0)),
        bool((votes == total).any()),
    )


def margin_to_pass(
    mass: float, total: int, classes: int, alpha: float, bound: str, sigma: float, spare: float
) -> float:
    """The h at which votes `spare` standard errors below their expectation still pass a verification.

    mass: p of both classes; what remains lies on other classes or abstains.
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
    p = bounded([0.5 * (mass + high), 0.5 * (mass - high)], total)
    return float(margin_between(p[0], p[1], sigma))


class Crossing:
    """A weighted line through noisy margins along a ray, with a prior on its slope."""

    def __init__(self) -> None:
        self.distances: list[float] = []
        self.margins: list[Margin] = []

    def add(self, distance: float, measured: Margin) -> None:
        """Adds the margin measured at this distance along the ray."""
        self.distances.append(distance)
        self.margins.append(measured)

    @property
    def mass(self) -> float:
        """p of both classes at the point nearest to the boundary so far."""
        return min(self.margins, key=lambda measured: abs(measured.h)).mass

    @property
    def error(self) -> float:
        """The standard error of the line at the centre of its points, with what it may bend."""
        return float(self._weights().sum() ** -0.5)

    def _weights(self) -> NDArray[np.float64]:
        h = np.array([measured.h for measured in self.margins])
        errors = np.array([measured.error for measured in self.margins])
        weights: NDArray[np.float64] = 1.0 / (errors**2 + (_BEND * h) ** 2)
        split = np.array([not measured.unanimous for measured in self.margins])
        return weights * split if split.any() else weights

    def solve(self, spare: float, target: float) -> float:
        """The distance at which the line, lowered by `spare` of its own standard errors, reaches `target`."""
        t = np.array(self.distances)
        h = np.array([measured.h for measured in self.margins])
        weight = self._weights()
        total = weight.sum()
        t_mean, h_mean = (weight * t).sum() / total, (weight * h).sum() / total
        prior = _SLOPE_SPREAD**-2
        slope = (weight * (t - t_mean) * (h - h_mean)).sum() + prior * _SLOPE
        slope /= (weight * (t - t_mean) ** 2).sum() + prior
        slope = min(max(float(slope), _SLOPE_MIN), 1.0)
        return float(t_mean + (target + spare / math.sqrt(total) - h_mean) / slope)

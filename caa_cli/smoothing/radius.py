"""The certified radius that follows from bounds of two class probabilities, one function a certificate.

Each takes a lower bound a of the top class's probability and an upper bound b of every other's, any shapes that go
together, and returns the L2 radius in units of σ, float64: 0 where a ≤ b, inf where a = 1 and b = 0. All are sound
for Gaussian noise; Cohen's is the largest, for it is tight.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]


def cohen(lower: ArrayLike, upper: ArrayLike) -> Floats:
    """½ (Φ⁻¹(a) − Φ⁻¹(b)) (Cohen et al., 2019; the paper's Eq. Cohen_Bound)."""
    a, b = np.broadcast_arrays(np.asarray(lower, np.float64), np.asarray(upper, np.float64))
    with np.errstate(invalid="ignore"):
        gap = ndtri(a) - ndtri(b)
    return np.where(a > b, 0.5 * gap, 0.0)


def lecuyer(lower: ArrayLike, upper: ArrayLike) -> Floats:
    """The largest ε/√(2 ln(1.25/δ)) with ε ≤ 1 and a ≥ e^2ε b + (1 + e^ε) δ (Lecuyer et al., 2019).

    Smoothing is (ε, δ)-differentially private in the image, by the Gaussian mechanism, and the inequality keeps the
    top class in front under any such change of the probabilities.
    """
    a, b, ahead = _ahead(lower, upper)
    most = (a - b) / 2.0  # of δ: where ε is 0
    # From here down ε stays 1 and only the denominator grows.
    capped = (a - math.e**2 * b) / (1.0 + math.e)
    with np.errstate(all="ignore"):
        # δ = most · e^−s
        last = np.where(capped > 0, np.log(most / np.maximum(capped, 1e-300)), 20.0)

        def radius(s: Floats) -> Floats:
            delta = most * np.exp(-s)
            # e^ε − 1, the root of b v² + (2b + δ) v = a − b − 2δ, whose right side is −(a − b)(e^−s − 1).
            linear = 2.0 * b + delta
            rest = -2.0 * most * np.expm1(-s) / linear
            root = 2.0 * rest / (1.0 + np.sqrt(1.0 + 4.0 * (b / linear) * rest))
            return np.asarray(np.log1p(root) / np.sqrt(2.0 * np.log(1.25 / delta)))

        return np.where(ahead, _maximum(radius, np.zeros_like(a), np.clip(last, 0.0, 20.0)), 0.0)


def li(lower: ArrayLike, upper: ArrayLike) -> Floats:
    """√(2 max over α > 1 of −1/α · ln(1 − a − b + 2M)), M = ((a^(1−α) + b^(1−α))/2)^(1/(1−α)) (Li et al., 2019).

    The least Rényi divergence of order α by which the top class can lose its lead, against that of two Gaussians.
    """
    a, b, ahead = _ahead(lower, upper)
    with np.errstate(all="ignore"):
        # In d = (a − b)/(a + b) where that is small, so that a difference of nearly equal numbers is never taken.
        d = (a - b) / (a + b)
        near = d < 0.5
        small = np.where(near, d, 0.0)
        half_log = np.where(near, 0.5 * np.log1p(-small * small), 0.5 * (np.log(4.0 * a) + np.log(b)) - np.log(a + b))
        half_ratio = np.where(near, np.arctanh(small), 0.5 * (np.log(a) - np.log(b)))

        def divergence(t: Floats) -> Floats:
            """The bound by the divergence of order α = 1 + t."""
            # ln of M over the mean of a and b
            log_mean = half_log - _log_cosh(t * half_ratio) / t
            whole = np.log1p((a + b) * np.expm1(log_mean))
            parts = np.log((1.0 - a) - b + (a + b) * np.exp(log_mean))
            return np.asarray(-np.where(log_mean > -0.5, whole, parts) / (1.0 + t))

        # The best order is below 2.
        best = _maximum(divergence, np.full_like(a, 1e-13), np.ones_like(a))
        return np.where(ahead, np.sqrt(2.0 * np.maximum(best, 0.0)), 0.0)


def _ahead(lower: ArrayLike, upper: ArrayLike) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """(a, b, whether a > b); where it is not, a and b are some numbers for which everything is defined."""
    a, b = np.broadcast_arrays(np.asarray(lower, np.float64), np.asarray(upper, np.float64))
    ahead = a > np.maximum(b, 1e-300)  # below, numbers lose their digits
    return np.where(ahead, a, 0.75), np.where(ahead, b, 0.25), ahead


def _log_cosh(x: Floats) -> Floats:
    """ln cosh x for x ≥ 0, precise near 0 and finite wherever x is."""
    near = np.log1p(2.0 * np.sinh(np.minimum(x, 1.0) / 2.0) ** 2)
    return np.where(x < 1.0, near, x + np.log1p(np.exp(-2.0 * x)) - math.log(2.0))


def _maximum(of: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """The maximum of a function with one peak between `low` and `high`, both ends included: golden sections."""
    at_ends = np.maximum(of(low), of(high))
    share = (math.sqrt(5.0) - 1.0) / 2.0
    left, right = high - share * (high - low), low + share * (high - low)
    at_left, at_right = of(left), of(right)
    # 20 · 0.618^40 < 1e-7: at a flat top an error of the second order.
    for _ in range(40):
        leftwards = at_left >= at_right
        low, high = np.where(leftwards, low, left), np.where(leftwards, right, high)
        width = share * (high - low)
        inner = np.where(leftwards, high - width, low + width)
        value = of(inner)
        left, right = np.where(leftwards, inner, right), np.where(leftwards, left, inner)
        at_left, at_right = np.where(leftwards, value, at_right), np.where(leftwards, at_left, value)
    return np.maximum(at_ends, np.maximum(at_left, at_right))

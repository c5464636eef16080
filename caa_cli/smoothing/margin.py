"""The margin of a rival class over the label: how far a point lies from the decision boundary between them.

For the label y and a rival k the margin is h = σ/2 (Φ⁻¹(p_k) − Φ⁻¹(p_y)), in pixel units: negative where the label
leads, positive where the rival does. Without confidence bounds its absolute value is the certified radius. It is
1-Lipschitz (Salman et al., 2019), and linear where the base classifier is. Arrays here are float64.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

Floats = NDArray[np.float64]


def bounded(shares: ArrayLike, total: int) -> Floats:
    """Shares of n = `total` votes, kept in [1/2n, 1 − 1/2n] so that Φ⁻¹ is finite."""
    return np.clip(shares, 0.5 / total, 1.0 - 0.5 / total)


def margin_between(p_rival: ArrayLike, p_label: ArrayLike, sigma: float) -> Floats:
    """h of these class probabilities."""
    return np.asarray(0.5 * sigma * (ndtri(p_rival) - ndtri(p_label)))


def margin_per_probability(p: ArrayLike, sigma: float) -> Floats:
    """∂h/∂p_k = σ/2 / φ(Φ⁻¹(p)) at p_k = p; for the label, −∂h/∂p_y."""
    return np.asarray(0.5 * sigma * math.sqrt(2.0 * math.pi) * np.exp(0.5 * np.asarray(ndtri(p)) ** 2))

"""Confidence intervals for class probabilities, and the certified radii that follow from them.

Everything here is a pure function of integer vote counts, in float64. Counts have
shape (..., K): the last axis runs over the classes. The total is an argument of its own, because a sample whose
logits are NaN abstains: it belongs to the total but to no class.
"""

from __future__ import annotations

from dataclasses import dataclass
from pkgutil import resolve_name

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, chdtri

from caa_cli.config.bounds import BOUNDS
from caa_cli.config.certificates import CERTIFICATES, COHEN

Floats = NDArray[np.float64]


def goodman(counts: ArrayLike, total: ArrayLike, alpha: float) -> tuple[Floats, Floats]:
    """Goodman's (1965) simultaneous intervals for multinomial proportions, all K classes at level 1 − alpha.

    (2k + χ² ∓ √(χ⁴ + 4k(n−k)χ²/n)) / (2(n + χ²)), with χ² the 1 − alpha/K quantile of χ²₁. This is the
    paper's choice. It is asymptotic: for rare classes the coverage falls below what it promises
    (docs/method/statistics.md has the measured figures); `cp_bonferroni` is the sound alternative.

    Returns (lower, upper), each of the shape of `counts`, within [0, 1].
    """
    k = np.asarray(counts, dtype=np.float64)
    n = np.asarray(total, dtype=np.float64)[..., None]
    chi2 = float(chdtri(1, alpha / k.shape[-1]))
    root = np.sqrt(chi2 * chi2 + 4.0 * k * (n - k) * chi2 / n)
    scale = 2.0 * (n + chi2)
    lower = np.clip((2.0 * k + chi2 - root) / scale, 0.0, 1.0)
    upper = np.clip((2.0 * k + chi2 + root) / scale, 0.0, 1.0)
    return lower, upper


def clopper_pearson_lower(count: ArrayLike, total: ArrayLike, alpha: float) -> Floats:
    """Exact one-sided lower bound for a binomial proportion (Clopper and Pearson, 1934); 0 where count is 0."""
    k, n = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(total, np.float64))
    return np.where(k > 0, betaincinv(np.maximum(k, 1.0), n - k + 1.0, alpha), 0.0)


def clopper_pearson_upper(count: ArrayLike, total: ArrayLike, alpha: float) -> Floats:
    """Exact one-sided upper bound for a binomial proportion; 1 where count equals the total."""
    k, n = np.broadcast_arrays(np.asarray(count, np.float64), np.asarray(total, np.float64))
    return np.where(k < n, betaincinv(k + 1.0, np.maximum(n - k, 1.0), 1.0 - alpha), 1.0)


def cp_bonferroni(counts: ArrayLike, total: ArrayLike, alpha: float) -> tuple[Floats, Floats]:
    """Exact simultaneous intervals: Clopper–Pearson at alpha/(2K) in each tail of each of the K classes.

    Sound at every sample size: the 2K one-sided statements hold together with probability ≥ 1 − alpha.
    """
    k = np.asarray(counts)
    n = np.asarray(total)[..., None]
    tail = alpha / (2 * k.shape[-1])
    return clopper_pearson_lower(k, n, tail), clopper_pearson_upper(k, n, tail)


@dataclass(frozen=True)
class Separation:
    """The bounds of one class and of its competitors.

    `lower` is the lower confidence bound of the chosen class, `upper` the largest upper bound among the
    classes it is compared with; both float64 of the leading shape of the counts.
    """

    lower: Floats
    upper: Floats

    @property
    def confident(self) -> NDArray[np.bool_]:
        """Whether the chosen class is the more likely one, at the level of the bounds."""
        return self.lower > self.upper

    def radius(self, sigma: float, certificate: str = COHEN) -> Floats:
        """The certified radius, 0 without confidence; L2, in the units of σ.  certificate: one of CERTIFICATES."""
        radius: Floats = sigma * resolve_name(CERTIFICATES[certificate].radius)(self.lower, self.upper)
        return radius


def separation(
    counts: ArrayLike,
    total: ArrayLike,
    chosen: ArrayLike,
    alpha: float,
    bound: str,
    against: ArrayLike | None = None,
) -> Separation:
    """Bounds of the `chosen` class against all others, or against the one class `against`.

    counts: (..., K) integers; total, chosen, against: (...) integers.

    bound: one of BOUNDS. With most of them all classes are bounded at once, so `chosen` may have been picked from
    the same counts. With a one-sided one (Cohen et al., 2019) only the chosen class is bounded, p_B = 1 − p_A,
    and the level alpha holds only for a class chosen on *other* samples.
    """
    k = np.asarray(counts)
    if k.shape[-1] < 2:
        raise ValueError("a classifier needs at least two classes")
    picked = np.asarray(chosen)[..., None]
    spec = BOUNDS[bound]
    if spec.one_sided:
        lower = resolve_name(spec.bounds)(np.take_along_axis(k, picked, axis=-1)[..., 0], total, alpha)
        return Separation(lower, 1.0 - lower)
    lowers, uppers = resolve_name(spec.bounds)(k, total, alpha)
    lower = np.take_along_axis(lowers, picked, axis=-1)[..., 0]
    if against is not None:
        upper = np.take_along_axis(uppers, np.asarray(against)[..., None], axis=-1)[..., 0]
    else:
        rest = np.arange(k.shape[-1]) != picked
        upper = np.where(rest, uppers, 0.0).max(axis=-1)
    return Separation(lower, upper)


def leader(counts: ArrayLike, excluding: ArrayLike | None = None) -> NDArray[np.int64]:
    """The class with the most votes, (...,) int64; ties go to the lowest index; `excluding` one class each."""
    k = np.asarray(counts)
    if excluding is not None:
        k = np.where(np.arange(k.shape[-1]) == np.asarray(excluding)[..., None], -1, k)
    winners: NDArray[np.int64] = k.argmax(axis=-1)
    return winners

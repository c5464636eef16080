"""The exact confidence interval of a share (Clopper and Pearson, 1934)."""

from __future__ import annotations

LEVEL = 0.95

Interval = tuple[float, float]


def clopper_pearson(count: float, total: int, level: float = LEVEL) -> Interval:
    """The interval (lower, upper) of the probability behind `count` of `total`, which is at least 1.

    The count may have fractions, of images that count in part: they vary less than a count does.
    """
    from scipy.special import betaincinv

    tail = (1.0 - level) / 2.0
    lower = float(betaincinv(count, total - count + 1, tail)) if count else 0.0
    upper = float(betaincinv(count + 1, total - count, 1.0 - tail)) if count < total else 1.0
    return lower, upper

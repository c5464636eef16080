"""Confidence intervals of a comparison by the bootstrap (Efron, 1979), percentile method.

Images are resampled with replacement, and the same resamples serve all attacks, so that their intervals are paired.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from caa_cli.results.metrics import Columns

LEVEL = 0.95
_SHARES = {"success": "success_rate", "best": "best_share", "near_best": "near_best_share"}
_MEDIANS = {
    "radius": "median_radius",
    "percent": "median_percent",
    "common_radius": "common_median_radius",
    "common_percent": "common_median_percent",
}
# Resamples drawn at a time, so that memory does not grow with their number.
_BLOCK = 256

Interval = tuple[float, float]
Array = NDArray[np.float64]


def intervals(columns: Sequence[Columns], resamples: int, seed: int) -> list[dict[str, Interval | None]]:
    """For each attack the 95% intervals (lower, upper) by the names of `metrics.Figures`; None for no value."""
    if not columns or not columns[0].success:
        return [dict.fromkeys([*_SHARES.values(), *_MEDIANS.values()]) for _ in columns]
    images = len(columns[0].success)
    generator = np.random.default_rng(seed)
    table = {
        (row, field.name): np.array(getattr(column, field.name), dtype=np.float64)
        for row, column in enumerate(columns)
        for field in fields(column)
    }
    drawn: dict[tuple[int, str], list[Array]] = {key: [] for key in table}
    for first in range(0, resamples, _BLOCK):
        chosen = generator.integers(0, images, size=(min(_BLOCK, resamples - first), images))
        for (row, name), values in table.items():
            estimate: Callable[[Array], Array] = _means if name in _SHARES else _medians
            drawn[row, name].append(estimate(values[chosen]))
    names = {**_SHARES, **_MEDIANS}
    return [
        {names[name]: _interval(np.concatenate(drawn[row, name])) for name in names} for row in range(len(columns))
    ]


def _interval(estimates: Array) -> Interval | None:
    """The percentile interval, without resamples in which the attack had no success, and so no median."""
    found = estimates[~np.isnan(estimates)]
    if not len(found):
        return None
    low, high = np.quantile(found, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _means(values: Array) -> Array:
    return np.asarray(values.mean(axis=1))


def _medians(values: Array) -> Array:
    """The median of each row without its NaN; NaN for a row of NaN, about which np.nanmedian would warn."""
    ordered = np.sort(values, axis=1)  # NaN comes last
    counts = (~np.isnan(values)).sum(axis=1)
    rows = np.arange(len(values))
    low, high = ordered[rows, np.maximum(counts - 1, 0) // 2], ordered[rows, counts // 2]
    medians: Array = (low + high) / 2
    return medians

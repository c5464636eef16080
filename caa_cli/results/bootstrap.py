"""Confidence intervals of a comparison: exact ones of shares, the others by the bootstrap (Efron, 1979).

The bootstrap resamples images with replacement, and the same resamples serve all attacks, so that intervals are
paired: those of ratios and differences to the reference compare both attacks on the same images. The percentile
method.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from caa_cli.results.metrics import Columns
from caa_cli.results.optimality import optimality
from caa_cli.results.proportions import LEVEL, Interval, clopper_pearson

# Where each image counts or does not. (`best_share` divides ties, which makes its exact interval wider than need be.)
SHARES = ("success_rate", "best_share", "near_best_share", "nearer_share", "farther_share", "tied_share")
_MEDIANS = tuple(f.name for f in fields(Columns) if f.name not in SHARES)
# Even the widest interval that n values can give, from the smallest to the largest, holds the median with a
# probability of no more than 1 − 2^(1−n): below 95% of fewer than six.
FEWEST = 6
# Resamples drawn at a time, so that memory does not grow with their number.
_BLOCK = 256

Array = NDArray[np.float64]
Chosen = NDArray[np.int64]  # positions of the images of each resample
Estimate = Callable[[Chosen], Array]


def intervals(columns: Sequence[Columns], resamples: int, seed: int) -> list[dict[str, Interval | None]]:
    """For each attack the 95% intervals (lower, upper) by the names of `metrics.Figures`; None for no value.

    An end may be infinite. resamples: 0: only the exact intervals of shares.
    """
    rows = [{name: _exact(getattr(column, name)) for name in SHARES} for column in columns]
    if not resamples:
        return rows
    for row in rows:
        row.update(dict.fromkeys((*_MEDIANS, "optimality")))
    estimates = list(_estimates(columns))
    images = len(columns[0].success_rate) if columns else 0
    drawn: list[list[Array]] = [[] for _ in estimates]
    generator = np.random.default_rng(seed)
    for first in range(0, resamples if estimates else 0, _BLOCK):
        chosen = generator.integers(0, images, size=(min(_BLOCK, resamples - first), images))
        for blocks, (_, _, estimate) in zip(drawn, estimates, strict=True):
            blocks.append(estimate(chosen))
    for blocks, (attack, name, _) in zip(drawn, estimates, strict=True):
        rows[attack][name] = _interval(np.concatenate(blocks))
    return rows


def _exact(column: Sequence[float | None]) -> Interval | None:
    values = [value for value in column if value is not None]
    return clopper_pearson(sum(values), len(values)) if values else None


def _estimates(columns: Sequence[Columns]) -> Iterator[tuple[int, str, Estimate]]:
    """Attack, name and estimate, of resampled images (resamples, images), where there are enough values."""
    overall = np.array([column.overall_median_radius for column in columns], dtype=np.float64)
    for row, column in enumerate(columns):
        for name in _MEDIANS:
            values = np.array(getattr(column, name), dtype=np.float64)
            if np.count_nonzero(~np.isnan(values)) >= FEWEST:
                yield row, name, _median_of(values)
        if overall.shape[1] >= FEWEST:
            yield row, "optimality", _optimality_of(overall[row], overall.min(axis=0))


def _median_of(values: Array) -> Estimate:
    return lambda chosen: _medians(values[chosen])


def _optimality_of(radii: Array, best: Array) -> Estimate:
    return lambda chosen: optimality(radii[chosen], best[chosen])


def _interval(estimates: Array) -> Interval | None:
    """The percentile interval, without resamples in which the attack had no success, and so no median."""
    defined = estimates[~np.isnan(estimates)]
    if not len(defined):
        return None
    ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    if np.isinf(defined).any():  # nothing lies between a number and infinity
        low, high = np.quantile(defined, ends[0], method="lower"), np.quantile(defined, ends[1], method="higher")
    else:
        low, high = np.quantile(defined, ends)
    return float(low), float(high)


def _medians(values: Array) -> Array:
    """The median of each row without its NaN; NaN for a row of NaN, about which np.nanmedian would warn."""
    ordered = np.sort(values, axis=1)  # NaN comes last
    counts = (~np.isnan(values)).sum(axis=1)
    rows = np.arange(len(values))
    low, high = ordered[rows, np.maximum(counts - 1, 0) // 2], ordered[rows, counts // 2]
    medians: Array = (low + high) / 2
    return medians

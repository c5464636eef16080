"""Classifiers whose votes are known beforehand or written down, and the rule of a proof by other means."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pkgutil import resolve_name

import numpy as np
import torch
from scipy import stats
from torch import Tensor, nn

from caa_cli.config.bounds import BOUNDS
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose

SHAPE = (1, 8, 8)


class Prescribed(nn.Module):
    """Gives its samples, in the order in which they come, the classes of `tables`, one table after another.

    A table has the votes of each class and, last, the number of abstentions (NaN logits).
    """

    def __init__(self, tables: Sequence[Sequence[int]]) -> None:
        super().__init__()
        self.classes = len(tables[0]) - 1
        classes = torch.arange(self.classes + 1)
        self.winners = torch.cat([classes.repeat_interleave(torch.tensor(table)) for table in tables])

    def forward(self, x: Tensor) -> Tensor:
        winners, self.winners = self.winners[: len(x)], self.winners[len(x) :]
        assert len(winners) == len(x), "no more votes are prescribed"
        logits = nn.functional.one_hot(winners, self.classes + 1).to(x)
        return torch.where(logits[:, -1:] > 0, torch.nan, logits[:, :-1])


@dataclass(frozen=True)
class Draw:
    """One example's part in a call of `votes`."""

    key: Key
    start: int
    samples: int
    image: Tensor
    votes: np.ndarray

    @property
    def noise(self) -> tuple[Purpose, int, int, int, int]:
        """(purpose, index, iteration, start, samples)"""
        return self.key.purpose, self.key.index, self.key.iteration, self.start, self.samples


class Recording(SmoothedClassifier):
    """A smoothed classifier that notes which noise its votes are drawn on."""

    draws: list[Draw]

    def keyed_votes(self, x: Tensor, keys: Sequence[Key], samples: int, start: int = 0) -> Tensor:
        counts = super().keyed_votes(x, keys, samples, start)
        self.__dict__.setdefault("draws", []).extend(
            Draw(key, start, samples, image.clone(), votes.numpy().copy())
            for key, image, votes in zip(keys, x, counts, strict=True)
        )
        return counts


def recording(model: nn.Module, num_classes: int, shape: Sequence[int] = SHAPE, sigma: float = 0.5) -> Recording:
    return Recording(model, sigma=sigma, num_classes=num_classes, input_shape=shape)


def prescribed(*tables: Sequence[int], sigma: float = 0.5, shape: Sequence[int] = SHAPE) -> Recording:
    """Votes as the tables say, one for each image of each call."""
    return recording(Prescribed(tables), len(tables[0]) - 1, shape, sigma)


def interval(count: int, total: int, classes: int, alpha: float, bound: str) -> tuple[float, float]:
    """The bounds of one class. The beta law and the roots of the score test's equation give those of the bounds that
    are in the package from the beginning; the function of any other bound has its own worked value in test_bounds.py.
    """
    if bound == "goodman":
        chi2, p = stats.chi2.ppf(1 - alpha / classes, 1), count / total
        lower, upper = sorted(np.roots([1 + chi2 / total, -(2 * p + chi2 / total), p * p]).real)
        return float(lower), float(upper)
    if bound not in ("clopper-pearson", "cp-bonferroni"):
        bounds = resolve_name(BOUNDS[bound].bounds)
        if BOUNDS[bound].one_sided:
            lower = float(bounds(count, total, alpha))
            return lower, 1.0 - lower
        lowers, uppers = bounds([count] + [0] * (classes - 1), total, alpha)
        return float(lowers[0]), float(uppers[0])
    tail = alpha / (2 * classes) if bound == "cp-bonferroni" else alpha
    lower = stats.beta.ppf(tail, count, total - count + 1) if count else 0.0
    upper = stats.beta.ppf(1 - tail, count + 1, total - count) if count < total else 1.0
    return float(lower), float(upper)


def proves(rival: int, label: int, total: int, classes: int, alpha: float, bound: str) -> bool:
    """Whether so many votes out of `total` put the rival above the label at level alpha."""
    lower, _ = interval(rival, total, classes, alpha, bound)
    upper = 0.5 if BOUNDS[bound].one_sided else interval(label, total, classes, alpha, bound)[1]
    return lower > upper


def fewest_votes(both: int, total: int, classes: int, alpha: float, bound: str) -> int:
    """Of `both` votes for the rival or the label, as many as the rival needs to be proved ahead."""
    more = range(both // 2, both + 1)
    return more[bisect.bisect(more, False, key=lambda k: proves(k, both - k, total, classes, alpha, bound))]

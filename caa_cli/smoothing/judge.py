"""Judging votes where they are: bounds on a class's probability as tables over its count.

For given samples, alpha and bound an interval is a function of one count. Its ends are worked out once, on the host
in float64, and sent to the device; a judgement is then a lookup there, and no step waits for the host. The results
are those of `smoothing.bounds` to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pkgutil import resolve_name

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from caa_cli.config.bounds import BOUNDS
from caa_cli.config.certificates import CERTIFICATES, COHEN
from caa_cli.smoothing.margin import bounded, margin_per_probability

Floats = NDArray[np.float64]

# The most samples for which there is a table: 1 MB for each end. Above it, the counts at hand are judged on the host.
MOST_SAMPLES = 2**17


@dataclass
class CountTable:
    """A float64 function of a count of votes, 0 to `samples`, evaluated on the device where the counts are."""

    function: Callable[[NDArray[np.int64]], Floats]
    samples: int
    _tables: dict[torch.device, Tensor] = field(default_factory=dict, init=False)

    def __call__(self, counts: Tensor) -> Tensor:
        """Its values at counts (…) int64: (…) float64."""
        device = counts.device
        if self.samples > MOST_SAMPLES:
            return torch.from_numpy(self.function(counts.cpu().numpy())).to(device)
        if device not in self._tables:
            table = torch.from_numpy(self.function(np.arange(self.samples + 1)))
            self._tables[device] = table.to(device, non_blocking=True)
        return self._tables[device][counts]


@dataclass(frozen=True)
class Judge:
    """The bounds of `samples` votes among so many classes at this alpha; bound: of BOUNDS.

    Takes counts: `count` of the class in question and `others`, the largest of those that it is compared with. (An
    upper bound grows with its count, so the largest count has the largest one.)
    """

    samples: int
    alpha: float
    bound: str
    classes: int

    def ahead(self, count: Tensor, others: Tensor) -> Tensor:
        """Whether the class is confidently the more likely one, bool: `Separation.confident`."""
        return self._lower(count) > self._upper(self._rest(count, others))

    def radius(self, count: Tensor, others: Tensor, sigma: float, certificate: str = COHEN) -> Tensor:
        """The certified radius of the class, float32, 0 where it is not ahead: `Separation.radius`."""
        if certificate != COHEN:
            # No difference of two functions of one count: worked out on the host, for the counts at hand.
            lower, upper = torch.stack([self._lower(count), self._upper(self._rest(count, others))]).cpu().numpy()
            radius = sigma * resolve_name(CERTIFICATES[certificate].radius)(lower, upper)
            return torch.from_numpy(radius).to(count.device, torch.float32)
        # Φ⁻¹ is monotone: the gap is positive where the class is ahead.
        gap = self._lower_quantile(count) - self._upper_quantile(self._rest(count, others))
        return (0.5 * sigma * gap).clamp(min=0.0).float()

    def _rest(self, count: Tensor, others: Tensor) -> Tensor:
        """The count that the upper bound depends on: of a one-sided bound it is 1 − lower."""
        return count if BOUNDS[self.bound].one_sided else others

    def _ends(self, counts: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """(lower, upper) of each count, whatever its class."""
        bounds = resolve_name(BOUNDS[self.bound].bounds)
        if BOUNDS[self.bound].one_sided:
            lower = bounds(counts, self.samples, self.alpha)
            return lower, 1.0 - lower
        # A bound takes the counts of K classes at a time; each interval depends on its own count alone.
        rows = np.resize(counts.ravel(), (-(-counts.size // self.classes), self.classes))
        lower, upper = (ends.ravel()[: counts.size] for ends in bounds(rows, self.samples, self.alpha))
        return lower.reshape(counts.shape), upper.reshape(counts.shape)

    @cached_property
    def _lower(self) -> CountTable:
        return CountTable(lambda counts: self._ends(counts)[0], self.samples)

    @cached_property
    def _upper(self) -> CountTable:
        return CountTable(lambda counts: self._ends(counts)[1], self.samples)

    @cached_property
    def _lower_quantile(self) -> CountTable:
        return CountTable(lambda counts: ndtri(self._ends(counts)[0]), self.samples)

    @cached_property
    def _upper_quantile(self) -> CountTable:
        return CountTable(lambda counts: ndtri(self._ends(counts)[1]), self.samples)


@dataclass(frozen=True)
class MarginTable:
    """The margin of `samples` votes and its derivative, in pixel units (see `smoothing.margin`)."""

    samples: int
    sigma: float

    def margin(self, counts: Tensor) -> Tensor:
        """h of the counts of votes of a rival and the label, (…, 2): (…) float64."""
        rival, label = self._quantile(counts).unbind(dim=-1)
        return 0.5 * self.sigma * (rival - label)

    def per_probability(self, counts: Tensor) -> Tensor:
        """|∂h/∂p| of a class with so many votes, float64."""
        return self._per_probability(counts)

    @cached_property
    def _quantile(self) -> CountTable:
        return CountTable(lambda counts: ndtri(self._shares(counts)), self.samples)

    @cached_property
    def _per_probability(self) -> CountTable:
        return CountTable(lambda counts: margin_per_probability(self._shares(counts), self.sigma), self.samples)

    def _shares(self, counts: NDArray[np.int64]) -> Floats:
        return bounded(counts / self.samples, self.samples)


# A search asks for a few numbers of samples again and again.
judge_of = lru_cache(maxsize=64)(Judge)
margins_of = lru_cache(maxsize=64)(MarginTable)


def strongest_other(votes: Tensor, chosen: Tensor) -> Tensor:
    """The class but `chosen` (examples,) with the most votes; votes: (examples, classes)."""
    return votes.scatter(1, chosen[:, None], -1).argmax(dim=1)


def largest_other(votes: Tensor, chosen: Tensor) -> Tensor:
    """The most votes that any class but `chosen` (examples,) has; votes: (examples, classes)."""
    return votes.scatter(1, chosen[:, None], -1).amax(dim=1)


def count_of(votes: Tensor, chosen: Tensor) -> Tensor:
    """The votes of the class `chosen` (examples,); votes: (examples, classes)."""
    return votes.gather(1, chosen[:, None])[:, 0]

"""An exact group sequential test of whether one class is more likely than another.

Of m votes for a rival k or the label y, those for k are Bin(m, p_k / (p_k + p_y)), whatever the other classes do. If
p_k ≤ p_y (the null hypothesis), a fair coin has at least as many heads, so a count that a fair coin rarely reaches
shows that p_k > p_y: exactly, at every sample size. The rival has to be named before the votes are drawn.

The votes come in stages, and the test may pass after each. The error probability `level` is spent on the stages by a
spending function (Lan and DeMets, 1983): level · share^ρ of it once this share of the samples is drawn. The critical
count of a stage follows from the law of a fair coin's counts on the paths that did not pass before, given how many
votes each stage had for the two classes. A test that can hardly pass any more gives up, which adds no error.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, ndtr, ndtri

Floats = NDArray[np.float64]

# ρ of the spending function: at 1 as much is spent early as late, at 3 nearly all is kept for the last stage.
_RHO = 1.0
# Give up below this conditional power, at the votes' own share plus as many of its standard errors.
_LEAST_POWER, _OPTIMISM = 0.2, 1.0
# Half a fair coin's law is kept, in standard deviations: what lies beyond is below the smallest float64.
_REACH = 39.0
# The most products of a convolution that is summed directly: beyond some 40,000 samples per try.
_LONG = 30_000_000


class SequentialTest:
    """One test of p_rival ≤ p_label at this error probability, on at most `total` samples."""

    def __init__(self, level: float, total: int) -> None:
        self.level, self.total = level, total
        self._spent = 0.0
        self._both = 0
        self._first, self._paths = 0, np.ones(1)  # P(count = first + i and not passed before), for a fair coin

    def judge(self, rival: int, both: int, drawn: int) -> bool | None:
        """Whether the rival is proved the likelier; None: draw on.

        rival, both: votes so far for the rival, and for the two classes. drawn: samples so far, abstentions and other
        classes included. To be called once a stage; False is final.
        """
        if rival >= self.next_stage(both, drawn):
            return True
        if drawn >= self.total or self._power(rival, both, drawn) < _LEAST_POWER:
            return False
        return None

    def next_stage(self, both: int, drawn: int) -> int:
        """Go on to a stage; returns the count of votes for the rival at which it passes."""
        first, law = _fair_coin(both - self._both)
        self._both = both
        self._first, self._paths = self._first + first, _sums(self._paths, law)
        budget = self.level * (drawn / self.total) ** _RHO - self._spent
        tail = np.cumsum(self._paths[::-1])[::-1]  # P(count ≥ first + i and not passed before)
        kept = int(np.searchsorted(-tail, -budget))  # the first whose tail is within the budget
        self._spent += float(tail[kept]) if kept < len(tail) else 0.0
        self._paths = self._paths[:kept]
        if not kept:  # every path has passed
            self._paths = np.zeros(1)
        return self._first + kept

    def _power(self, rival: int, both: int, drawn: int) -> float:
        """About how likely the rest of the samples passes, at an optimistic estimate of the rival's share."""
        if both == 0:
            return 1.0
        share = min(rival / both + 0.5 * _OPTIMISM / math.sqrt(both), 1.0)
        rest = both * (self.total - drawn) / drawn
        needed = 0.5 * (both + rest) + 0.5 * critical_z(self.level) * math.sqrt(both + rest) - rival
        deviation = math.sqrt(max(rest * share * (1.0 - share), 1e-12))
        return float(ndtr((rest * share - needed) / deviation))


def critical_z(level: float) -> float:
    """About the standard score that the last stage asks for: a little more than a test without stages would.

    Only plans depend on it: where to try, and when to give up.
    """
    return float(-ndtri(0.4 * level))


def _sums(paths: Floats, law: Floats) -> Floats:
    """The law of the sum of two counts. Long ones by FFT, whose rounding is made up for: no count gets less than its
    due, so that no path passes too early (which tells at levels below 1e-9: there more votes are asked for)."""
    if len(paths) * len(law) <= _LONG:
        return np.convolve(paths, law)
    length = len(paths) + len(law) - 1
    size = 1 << length.bit_length()
    sums = np.fft.irfft(np.fft.rfft(paths, size) * np.fft.rfft(law, size), size)[:length]
    rounding = 4.0 * np.finfo(np.float64).eps * float(np.linalg.norm(paths) * np.linalg.norm(law))
    return np.maximum(sums, 0.0) + rounding


def _fair_coin(tosses: int) -> tuple[int, Floats]:
    """(the first count, P(Bin(tosses, 1/2) = count) from there on), without counts of no weight."""
    reach = math.ceil(0.5 * _REACH * math.sqrt(tosses)) + 1
    first, last = max(0, tosses // 2 - reach), min(tosses, tosses // 2 + 1 + reach)
    counts = np.arange(first, last + 1, dtype=np.float64)
    logarithm = gammaln(tosses + 1) - gammaln(counts + 1) - gammaln(tosses - counts + 1) - tosses * math.log(2.0)
    law = np.exp(logarithm)
    return first, law / law.sum()

"""When a try passes: the two rules of a verification, and what they let the line search aim at.

`exact`: a group sequential test of the class that was named before, on the votes for it and the original class alone
(`SequentialTest`). `intervals`: the paper's Eq. attack_criteria, the lower bound of another class above the upper
bound of the original one, at alpha / tries, all samples at once.

A target has to beat every other class: `exact` tests it against each of them, at the same level, since the one that
is the likelier has to lose too (an intersection–union test); `intervals` compares with the highest upper bound.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from caa_cli.config.bounds import BOUNDS
from caa_cli.config.choices import EXACT, INTERVALS
from caa_cli.smoothing.bounds import leader, separation
from caa_cli.smoothing.margin import bounded, margin_between
from caa_cli.verification.line_search import Votes, margin_to_pass
from caa_cli.verification.sequential_test import SequentialTest, critical_z


@dataclass(frozen=True)
class Rule(ABC):
    """samples: the most of a try; alpha: the error probability of all `tries` together; bound: of BOUNDS."""

    samples: int
    alpha: float
    bound: str
    tries: int = 4

    # The standard errors to spare, by try, when its distance is chosen; the last serves for all further tries.
    SPARE: ClassVar[tuple[float, ...]]
    # The most points of the line search. It ends earlier once its standard error is below PRECISION of a try's.
    PROBES: ClassVar[int]
    PRECISION: ClassVar[float]
    # What verifications on smoothed MNIST models usually take: as many whole tries, and points of the line search.
    USUAL: ClassVar[tuple[float, int]]

    @abstractmethod
    def level(self, attempt: int) -> float:
        """The error probability of a try; together they are alpha."""

    @abstractmethod
    def stages(self) -> Sequence[int]:
        """How many samples have been drawn after each stage of a try."""

    @abstractmethod
    def begin(self, attempt: int, claimed: int, opponents: Sequence[int] | Votes) -> Try:
        """A try. claimed: the class that earlier votes name, or the target.  opponents: the classes to beat."""

    @abstractmethod
    def needed_margin(self, mass: float, classes: int, attempt: int, spare: float, sigma: float) -> float:
        """The margin h at which votes `spare` standard errors below their expectation pass; mass: p of both."""

    @abstractmethod
    def probe_samples(self, usual: int) -> int:
        """Samples of one point of the line search; usual: those that the run has for a choice of a class."""

    def evaluations(self, usual: int, typical: bool) -> float:
        """The most evaluations of a verification and its line search, or those that are typical."""
        tries, probes = self.USUAL if typical else (self.tries, self.PROBES)
        return tries * self.samples + probes * self.probe_samples(usual)

    def can_pass(self, classes: int) -> bool:
        """Whether the first try passes if every sample votes for the rival."""
        attempt, votes = self.begin(0, claimed=1, opponents=[0]), np.zeros(classes, dtype=np.int64)
        for drawn in self.stages():
            votes[1] = drawn
            if attempt.judge(votes, drawn):
                return True
        return False

    def spare(self, attempt: int) -> float:
        return self.SPARE[min(attempt, len(self.SPARE) - 1)]


class Try(ABC):
    """One try. claimed: the class that is to be the likelier one."""

    claimed: int

    @abstractmethod
    def judge(self, votes: Votes, drawn: int) -> bool | None:
        """Whether the try passes on all its votes so far, (classes,); None: the next stage decides."""


class Exact(Rule):
    # Simulated on straight rays by tests/benchmarks/verification_rules.py (docs/method/verification.md).
    SPARE = (0.3, 0.8, 1.3, 3.0)
    FIRST_SHARE, STAGES = 0.7, 15
    PROBES, PRECISION = 6, 2.3
    USUAL = (0.6, 4)

    def level(self, attempt: int) -> float:
        if self.tries == 1:
            return self.alpha
        share = self.FIRST_SHARE if attempt == 0 else (1.0 - self.FIRST_SHARE) / (self.tries - 1)
        return self.alpha * share

    def stages(self) -> Sequence[int]:
        return sorted({math.ceil(self.samples * stage / self.STAGES) for stage in range(1, self.STAGES + 1)})

    def begin(self, attempt: int, claimed: int, opponents: Sequence[int] | Votes) -> Try:
        return _ExactTry(SequentialTest(self.level(attempt), self.samples), claimed, opponents)

    def probe_samples(self, usual: int) -> int:
        return math.ceil(self.samples / self.STAGES)

    def needed_margin(self, mass: float, classes: int, attempt: int, spare: float, sigma: float) -> float:
        gap = min((critical_z(self.level(attempt)) + spare) * math.sqrt(mass / self.samples), mass)
        p = bounded([0.5 * (mass + gap), 0.5 * (mass - gap)], self.samples)
        return float(margin_between(p[0], p[1], sigma))


class _ExactTry(Try):
    """One test against each opponent. It passes once all have passed, each at this stage or an earlier one.

    So an opponent that is as likely as the class, if there is one, has to lose a test that it loses with probability
    `level` at most, and however many others have to lose as well, that is the error probability of the try.
    """

    def __init__(self, test: SequentialTest, claimed: int, opponents: Sequence[int] | Votes) -> None:
        self.claimed = claimed
        # Opponents with the same votes in every stage share a test: of a thousand classes most have none.
        self.undecided = [(test, np.asarray(opponents))]

    def judge(self, votes: Votes, drawn: int) -> bool | None:
        ours, undecided = int(votes[self.claimed]), []
        for test, opponents in self.undecided:
            for theirs in np.unique(votes[opponents]):
                of_these = copy(test)
                passed = of_these.judge(ours, ours + int(theirs), drawn)
                if passed is False:
                    return False
                if passed is None:
                    undecided.append((of_these, opponents[votes[opponents] == theirs]))
        self.undecided = undecided
        return None if undecided else True


class Intervals(Rule):
    # About one image in five needs a second try; to spare more would make the radius of the other four longer.
    SPARE = (0.5, 1.0, 2.0, 3.0)
    PROBES, PRECISION = 4, 0.0
    USUAL = (1.25, 4)

    def level(self, attempt: int) -> float:
        return self.alpha / self.tries

    def stages(self) -> Sequence[int]:
        return (self.samples,)

    def begin(self, attempt: int, claimed: int, opponents: Sequence[int] | Votes) -> Try:
        return _IntervalTry(self, self.level(attempt), claimed, opponents)

    def probe_samples(self, usual: int) -> int:
        return usual

    def needed_margin(self, mass: float, classes: int, attempt: int, spare: float, sigma: float) -> float:
        return margin_to_pass(mass, self.samples, classes, self.level(attempt), self.bound, sigma, spare)


class _IntervalTry(Try):
    def __init__(self, rule: Intervals, level: float, claimed: int, opponents: Sequence[int] | Votes) -> None:
        self.rule, self.level, self.claimed = rule, level, claimed
        self.label = int(opponents[0]) if len(opponents) == 1 else None  # None: every other class is to be beaten

    def judge(self, votes: Votes, drawn: int) -> bool | None:
        # A one-sided bound holds for a class chosen on other samples; the simultaneous ones hold for any.
        if self.label is not None and not BOUNDS[self.rule.bound].one_sided:
            self.claimed = int(leader(votes, excluding=self.label))
        bounds = separation(votes, drawn, self.claimed, self.level, self.rule.bound, against=self.label)
        return bool(bounds.confident)


RULES: dict[str, type[Rule]] = {EXACT: Exact, INTERVALS: Intervals}

"""The criterion by which a point counts as adversarial during the search, the same for every attack."""

from __future__ import annotations

from torch import Tensor

from caa_cli.smoothing.judge import count_of, judge_of, largest_other


def adversarial(votes: Tensor, labels: Tensor, samples: int, alpha: float, bound: str) -> Tensor:
    """Whether another class is confidently above the label (the paper's Eq. attack_criteria), (examples,) bool.

    votes: (examples, classes) of `samples` draws each. The other class is the one with the most votes. This is no
    verification: `verify` draws fresh noise.
    """
    judge = judge_of(samples, alpha, bound, votes.shape[1])
    return judge.ahead(largest_other(votes, labels), count_of(votes, labels))

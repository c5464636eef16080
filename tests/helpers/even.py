"""How often the exact rule passes where the original class and the rival are even: all trials at once."""

from __future__ import annotations

from typing import Any

import numpy as np

from caa_cli.verification.rules import Exact
from caa_cli.verification.sequential_test import SequentialTest

# Votes for other classes move the critical counts: so many draws of them, each with its share of the trials.
_WAYS = 100


def errors_at_even_points(alpha: float, samples: int, mass: float, trials: int, seed: int = 0) -> dict[str, Any]:
    """The share of trials that pass at any of four tries, by try and together; mass: of the two classes.

    No try gives up early, which would only lower it.
    """
    random, rule = np.random.default_rng(seed), Exact(samples, alpha, "goodman")
    drawn = np.array(rule.stages())
    passed = np.zeros((rule.tries, _WAYS, trials // _WAYS), dtype=bool)
    for attempt in range(rule.tries):
        for way in range(_WAYS):
            both = random.binomial(np.diff(drawn, prepend=0), mass)
            test = SequentialTest(rule.level(attempt), samples)
            critical = [test.next_stage(*stage) for stage in zip(both.cumsum().tolist(), drawn.tolist(), strict=True)]
            rival = random.binomial(both, 0.5, (trials // _WAYS, len(both))).cumsum(axis=1)
            passed[attempt, way] = (rival >= critical).any(axis=1)
    error = float(passed.any(axis=0).mean())
    return {
        "alpha": alpha,
        "samples": samples,
        "mass": mass,
        "levels": [rule.level(attempt) for attempt in range(rule.tries)],
        "errors": passed.mean(axis=(1, 2)).tolist(),
        "error": error,
        "standard_error": float(np.sqrt(error * (1.0 - error) / passed[0].size)),
    }

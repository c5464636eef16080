"""Mean excess over the boundary, and evaluations, of a verification's rules on rays with a known boundary. JSON.

    python tests/benchmarks/verification_rules.py [--rays 2000]
    python tests/benchmarks/verification_rules.py --trials 1000000

With --trials: how often the exact rule passes where two classes are even at all points tried (`helpers/even.py`).

The margin is linear along each ray with a slope between 0.6 and 0.95 (what attacks on smoothed networks find), and
two classes share all votes. No model is evaluated: votes are drawn from the law that they have at the point.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from even import errors_at_even_points
from scipy.special import ndtr

from caa_cli.attacks.common.state import Candidate, Finding
from caa_cli.smoothing.noise import Key
from caa_cli.verification.verifier import Verifier

SIGMA, BOUNDARY = 0.5, 2.0


class Ray:
    """Stands for a classifier of 16 pixels: class 1 overtakes class 0 at BOUNDARY from black, towards white."""

    sigma, num_classes = SIGMA, 10

    def __init__(self, slope: float, random: np.random.Generator) -> None:
        self.slope, self.random = slope, random

    def keyed_votes(self, x: torch.Tensor, keys: Sequence[Key], samples: int, start: int = 0) -> torch.Tensor:
        distance = float(x[0].norm())
        rival = self.random.binomial(samples, ndtr(self.slope * (distance - BOUNDARY) / SIGMA))
        votes = torch.zeros(1, self.num_classes, dtype=torch.int64)
        votes[0, 0], votes[0, 1] = samples - rival, rival
        return votes


def finding(ray: Ray) -> Finding:
    """What a search proposes: a candidate a little off the boundary, with the votes of 267 samples."""
    distance = BOUNDARY + ray.random.normal(0.01, 0.03)
    image = torch.full((16,), distance / 4.0, dtype=torch.float64)
    votes = ray.keyed_votes(image[None], [], 267)[0]
    example = SimpleNamespace(index=0, image=torch.zeros_like(image), label=0)
    return Finding(example, [Candidate(image, distance, votes)], 0, 0, 0, 0, 0.0)  # type: ignore[arg-type]


def measure(verifier: Verifier, rays: int, seed: int = 0, slope: float | None = None) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    results = []
    for _ in range(rays):
        ray = Ray(slope or random.uniform(0.6, 0.95), random)
        results.append(verifier.verify(finding(ray), ray))  # type: ignore[arg-type]
    excess = [(r.radius - BOUNDARY) / SIGMA for r in results if r.radius is not None]
    return {
        "mean_excess_in_sigma": round(mean(excess), 4),
        "standard_error": round(float(np.std(excess)) / math.sqrt(len(excess)), 4),
        "evaluations": round(mean(r.forward_evaluations for r in results)),
        "tries": round(mean(r.tries for r in results), 2),
        "not_verified": rays - len(excess),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rays", type=int, default=2000)
    parser.add_argument("--trials", type=int, help="the error at even points instead, on so many images")
    arguments = parser.parse_args()
    rays = arguments.rays
    if arguments.trials:
        even = [(0.005, 15000, 1.0), (0.005, 15000, 0.6), (0.005, 1000, 1.0), (0.05, 300, 0.8)]
        print(json.dumps([errors_at_even_points(*point, arguments.trials) for point in even], indent=1))
        return
    rows = [
        {"rule": rule, "samples": samples, **measure(Verifier(rule=rule, samples=samples), rays)}
        for rule, samples in (("intervals", 15000), ("exact", 7500), ("exact", 15000), ("exact", 25000))
    ]
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()

"""Coverage of the bounds by simulation. Prints JSON.

For each set of class probabilities: the share of draws in which some class's probability lies outside its interval
(it should be at most alpha), and the share in which the certified radius of a linear model at distance D exceeds D.
"""

from __future__ import annotations

import argparse
import json
from pkgutil import resolve_name

import numpy as np
from scipy.stats import norm

from caa_cli.config.bounds import BOUNDS
from caa_cli.smoothing.bounds import separation

PROBABILITIES = {
    "two even classes": [0.5, 0.5],
    "0.9 and nine rare": [0.9] + [0.1 / 9] * 9,
    "0.99 and nine rare": [0.99] + [0.01 / 9] * 9,
    "0.999 and nine rare": [0.999] + [0.001 / 9] * 9,
    "ten even classes": [0.1] * 10,
    "two close, eight rare": [0.48, 0.46] + [0.06 / 8] * 8,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200_000)
    parser.add_argument("--alpha", type=float, default=0.005)
    parser.add_argument("--sigma", type=float, default=0.5)
    arguments = parser.parse_args()
    rng, repeats, alpha, sigma = np.random.default_rng(0), arguments.repeats, arguments.alpha, arguments.sigma
    report: dict[str, object] = {"alpha": alpha, "repeats": repeats}
    for n in (1500, 15_000):
        missed, beyond = {}, {}
        for name, p in PROBABILITIES.items():
            counts, total = rng.multinomial(n, p, size=repeats), np.full(repeats, n)
            for bound in [name for name, spec in BOUNDS.items() if not spec.one_sided]:
                lower, upper = resolve_name(BOUNDS[bound].bounds)(counts, total, alpha)
                missed.setdefault(bound, {})[name] = float(((lower > p) | (upper < p)).any(axis=1).mean())
        for distance in (0.1, 0.4, 0.8, 1.2, 1.6):
            wins = rng.binomial(n, norm.cdf(distance / sigma), size=repeats)
            counts, chosen = np.stack([wins, n - wins], axis=1), np.zeros(repeats, int)
            for bound in BOUNDS:
                radius = separation(counts, np.full(repeats, n), chosen, alpha, bound).radius(sigma)
                beyond.setdefault(bound, {})[f"D = {distance}"] = float((radius > distance).mean())
        report[f"n = {n}"] = {"some class missed": missed, "certified radius beyond the boundary": beyond}
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

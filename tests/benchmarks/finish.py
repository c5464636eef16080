"""How near the finish gets to the exact distance of a linear model, and what it costs. Prints JSON.

Attacks the linear model of the tests at known distances, then verifies each find with other numbers of standard
errors to spare at the first try, and other numbers of probes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import mean

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from networks import make_linear

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.verification.rules import Intervals
from caa_cli.verification.verifier import Verifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=6)
    parser.add_argument("--sigma", type=float, default=0.5)
    arguments = parser.parse_args()
    linear = make_linear(sigma=arguments.sigma)
    distances = (0.6, 0.8, 1.0, 1.5, 2.0) * arguments.repeats
    examples = [Example(index, linear.at(distance), 1) for index, distance in enumerate(distances)]
    findings = list(Search(CertificationAware(patience=4), linear.classifier).run(examples))
    rows = []
    for spare in ((0.5, 1.0, 2.0, 3.0), (0.8, 1.3, 2.0, 3.0), (1.3, 2.0, 3.0, 4.0)):
        Intervals.SPARE = spare
        for probes in (4, 5):
            proofs = [
                Verifier(rule="intervals", probes=probes).verify(finding, linear.classifier) for finding in findings
            ]
            excess = [
                proof.radius - distances[finding.example.index]
                for proof, finding in zip(proofs, findings, strict=True)
                if proof.radius is not None
            ]
            rows.append(
                {
                    "spare": spare[0],
                    "probes": probes,
                    "proved": len(excess),
                    "mean_excess": round(mean(excess), 4),
                    "most_excess": round(max(excess), 4),
                    "tries": mean(proof.tries for proof in proofs),
                    "evaluations": mean(proof.forward_evaluations for proof in proofs),
                }
            )
    print(json.dumps({"images": len(findings), "sigma": arguments.sigma, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()

"""Does a larger certificate make a better attack? `caa` on a linear model, whose exact radius is known. Prints JSON.

The steps of `caa` are bounded by the certified radius of the point that they start from: by each certificate from the
votes, and, as the end of all certificates, by the exact distance to the plane. By certificate and number of steps:
how many images it breaks, the mean excess of the verified radius over the exact distance in units of σ, and the mean
evaluations of the search. With --free nothing else bounds a step (`--step-min`, `--step-max`).

    python tests/benchmarks/step_certificates.py --repeats 6
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))
from networks import Linear, make_linear

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.common.loop import Example, Search
from caa_cli.config.certificates import CERTIFICATES
from caa_cli.verification.verifier import Verifier

EXACT = "exact distance"


@dataclass(frozen=True, kw_only=True)
class Omniscient(CertificationAware):
    """Steps as the distance to the plane allows, in place of a certified radius."""

    linear: Linear

    def _judge(self, evaluation: Any, state: Any, *rest: Any) -> list[bool]:
        decided = super()._judge(evaluation, state, *rest)
        distance = torch.tensor([abs(self.linear.distance(x)) for x in state.x], dtype=evaluation.radius.dtype)
        evaluation.radius = torch.where(evaluation.decided, distance, 0.0)
        return decided


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=6, help="images at each of five distances")
    parser.add_argument("--sigma", type=float, default=0.5)
    parser.add_argument("--steps", type=int, nargs="+", default=[5, 10, 20, 40])
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--free", action="store_true", help="let the radius alone bound a step")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    linear = make_linear(sigma=arguments.sigma)
    distances = (0.6, 0.8, 1.0, 1.5, 2.0) * arguments.repeats
    examples = [Example(index, linear.at(distance), 1) for index, distance in enumerate(distances)]
    bounds = {"step_min": 1e-3, "step_max": 10.0} if arguments.free else {}
    rows = []
    for steps in arguments.steps:
        settings = {"iterations": steps, "patience": 0, "samples": arguments.samples, **bounds}
        attacks = {name: CertificationAware(step_certificate=name, **settings) for name in CERTIFICATES}
        attacks[EXACT] = Omniscient(linear=linear, **settings)
        for name, attack in attacks.items():
            rows.append({"steps": steps, "certificate": name} | outcome(attack, linear, examples, distances))
    print(json.dumps(rows, indent=1))


def outcome(
    attack: CertificationAware, linear: Linear, examples: list[Example], distances: tuple[float, ...]
) -> dict[str, Any]:
    findings = list(Search(attack, linear.classifier).run(examples))
    excess: dict[str, list[float]] = {"candidate": [], "verified": []}
    for finding in findings:
        exact = distances[finding.example.index]
        if finding.candidates:
            excess["candidate"].append((finding.candidates[0].distance - exact) / linear.classifier.sigma)
        radius = Verifier().verify(finding, linear.classifier).radius
        if radius is not None:
            excess["verified"].append((radius - exact) / linear.classifier.sigma)
    return {
        "broken": len(excess["verified"]),
        "images": len(findings),
        "evaluations": round(mean(found.forward_evaluations + found.backward_evaluations for found in findings)),
        **{f"{name}_excess": round(mean(values), 4) if values else None for name, values in excess.items()},
    }


if __name__ == "__main__":
    main()

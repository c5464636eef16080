"""How far the pilot turns the gradient: the angle to the gradient of the exact objective, on the demo.

Along the path of an attack on each image, at every point that needs a gradient: the angle between the gradient
linearised at the first --pilot samples and the one linearised at all of them; beside it, as a yardstick, the angle
between two exact gradients on different noise. Prints JSON, in degrees.
"""

from __future__ import annotations

import argparse
import json

import torch
from setup import demo

from caa_cli.smoothing.gradient_source import PILOT
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio


def angle(one: torch.Tensor, other: torch.Tensor) -> float:
    one, other = one.flatten().double(), other.flatten().double()
    return float(torch.rad2deg(torch.acos(torch.clamp(one @ other / (one.norm() * other.norm()), -1.0, 1.0))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10)
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--pilot", type=int, default=PILOT)
    arguments = parser.parse_args()
    classifier, images = demo()
    found: dict[str, list[float]] = {"pilot": [], "noise": []}
    for index in range(arguments.images):
        clean, label = images.image(index)[None], torch.tensor([images.label(index)])
        x = clean.clone()
        for step in range(8):  # 0.25 a step: from the clean image to beyond most boundaries

            def gradient(iteration: int, pilot: int, x: torch.Tensor = x) -> torch.Tensor:
                keys = [Key(0, index, Purpose.SEARCH, iteration)]  # noqa: B023
                return classifier.surrogate(x, label, keys, arguments.samples, LogRatio(), pilot).gradient  # noqa: B023

            exact = gradient(step, arguments.samples)
            found["pilot"].append(angle(gradient(step, arguments.pilot), exact))
            found["noise"].append(angle(gradient(step + 100, arguments.samples), exact))
            x = (x - 0.25 * exact / exact.norm()).clamp(0.0, 1.0)
    report = {}
    for name, values in found.items():
        ordered = sorted(values)
        report[name] = {
            "median": ordered[len(ordered) // 2],
            "p95": ordered[int(0.95 * len(ordered))],
            "max": ordered[-1],
        }
    print(json.dumps({"pilot_samples": arguments.pilot, "samples": arguments.samples, "degrees": report}, indent=2))


if __name__ == "__main__":
    main()

"""What it costs in radius to stop an image that no longer gains, and what it saves. Prints JSON.

Runs the attack to its full number of steps on the demo, and reads off the same run where each `patience` would have
stopped it. Also, for each image, how far the verified radius lies beyond the place where the ray crosses the true
boundary (found by bisection at 40,000 samples a point).
"""

from __future__ import annotations

import argparse
import json
from statistics import mean, median

from setup import demo

from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.common.loop import Batch, Example, Search
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.verification.verifier import Verifier


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--tolerance", type=float, default=0.005)
    arguments = parser.parse_args()
    classifier, images = demo()
    paths: dict[int, list[tuple[float, int, int]]] = {}

    def note(state: Batch) -> None:
        for row, index in enumerate(state.indices.tolist()):
            entry = float(state.near_distance[row, 0]), int(state.forward[row]), int(state.backward[row])
            paths.setdefault(index, []).append(entry)

    attack = CertificationAware(iterations=arguments.iterations, patience=0, sample_schedule="fixed")
    examples = []
    for index in range(arguments.images):
        votes = classifier.keyed_votes(images.image(index)[None], [Key(0, index, Purpose.SELECTION)], 1500)
        if int(leader(votes.numpy())[0]) == images.label(index):
            examples.append(Example(index, images.image(index), images.label(index)))
    findings = list(Search(attack, classifier, 1, note).run(examples))

    report = {}
    for patience in (0, 20, 15, 12, 10, 8, 6, 4, 3):
        stops = {index: stop(path, patience, arguments.tolerance) for index, path in paths.items()}
        ends = [paths[index][at] for index, at in stops.items()]
        report[f"patience {patience}"] = {
            "steps": mean(at + 1 for at in stops.values()),
            "median_search_radius": median(distance for distance, _, _ in ends),
            "mean_search_radius": mean(distance for distance, _, _ in ends),
            "forward_evaluations": mean(forward for _, forward, _ in ends),
            "backward_evaluations": mean(backward for _, _, backward in ends),
        }

    verifier, excess = Verifier(), []
    for finding in findings:
        proved = verifier.verify(finding, classifier)
        if proved.image is None or proved.radius is None:
            continue
        clean, label = finding.example.image, finding.example.label
        low, high = 0.5, 1.0
        for step in range(8):
            middle = 0.5 * (low + high)
            point = clean + middle * (proved.image - clean)
            key = Key(1, finding.example.index, Purpose.EVALUATION, step)
            votes = classifier.keyed_votes(point[None], [key], 40_000)[0].numpy()
            low, high = (middle, high) if int(leader(votes)) == label else (low, middle)
        excess.append((1.0 - high) * proved.radius)
    print(
        json.dumps(
            {
                "images": len(examples),
                "stopping": report,
                "verified_beyond_the_ray's_crossing": {"mean": mean(excess), "most": max(excess)},
            },
            indent=2,
        )
    )


def stop(path: list[tuple[float, int, int]], patience: int, tolerance: float) -> int:
    """The step at which the attack's own rule would have ended this path."""
    mark, stale = float("inf"), 0
    for at, (distance, _, _) in enumerate(path):
        if distance < (1.0 - tolerance) * mark:
            mark, stale = distance, 0
        elif distance < float("inf"):
            stale += 1
        if patience and stale >= patience:
            return at
    return len(path) - 1


if __name__ == "__main__":
    main()

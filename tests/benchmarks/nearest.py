"""How close `caa-newton` comes to the nearest boundary of all classes. Prints JSON.

For each image the reference is the best of all results and of runs after every other class, of which only those far
behind are ever given up, with more steps and samples. Distances are where the ray of a result has the margin of a
proof (0.03 σ), by votes of many samples that are the same for all results: so no luck of proofs is in them. Images
are of the training split, so that settings can be tuned by it.

    python tests/benchmarks/nearest.py --data-dir data --images 40 --rivals 4 --samples 375 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from statistics import mean, median
from unittest.mock import patch

import torch
from setup import smoothed
from torch import Tensor

from caa_cli.attacks.common.loop import Example, Finding, Search
from caa_cli.attacks.newton.attack import Newton
from caa_cli.data.datasets import ImageSet, open_dataset
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.models.load import build_model
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.verification.line_search import Crossing, margin

_MARGIN = 0.03


def _all_race(alive: Tensor, size: Tensor, rivals: Tensor, iteration: Tensor, steps: int) -> Tensor:
    """No run is given up before it is a third further away than the nearest, at 40% of the steps."""
    if int(iteration[0]) != round(0.4 * steps):
        return alive
    return alive & (size <= 1.35 * size.amin(dim=1, keepdim=True))


def chosen(classifier: SmoothedClassifier, images: ImageSet, count: int) -> list[Example]:
    """Images spread over the split that the smoothed classifier gets right."""
    examples: list[Example] = []
    for index in range(7, len(images), len(images) // (2 * count)):
        votes = classifier.keyed_votes(images.image(index)[None], [Key(0, index, Purpose.SELECTION)], 1000)
        if int(leader(votes.numpy())[0]) == images.label(index):
            examples.append(Example(index, images.image(index), images.label(index)))
    return examples[:count]


def distance(classifier: SmoothedClassifier, example: Example, point: Tensor, samples: int) -> float:
    """Where the ray through `point` (dimensions,) has the margin."""
    delta = point - example.image.flatten()
    length = float(delta.norm())
    crossing, at = Crossing(), length
    for probe in range(4):
        x = (example.image.flatten() + at / length * delta).clamp(0.0, 1.0).view_as(example.image)
        at = float((x - example.image).norm())
        if probe < 3:
            votes = classifier.keyed_votes(x[None], [Key(99, example.index, Purpose.PROBE)], samples)[0].numpy()
            sides = int(leader(votes, excluding=example.label)), example.label
            crossing.add(at, margin(votes, samples, sides, classifier.sigma))
            at = crossing.solve(0.0, _MARGIN * classifier.sigma)
    return at


def reference(classifier: SmoothedClassifier, example: Example, samples: int) -> dict[int, float]:
    """The distance to each class that came near, by class."""
    attack = Newton(samples=3000, steps=30, rivals=classifier.num_classes - 1, memory=0.8)
    state = attack.start([example], classifier)
    with patch("caa_cli.attacks.common.race.still_racing", _all_race):
        for _ in range(attack.steps):
            attack.step(state, classifier)
            state.iteration += 1
    return {
        int(state.rivals[0, run]): distance(classifier, example, state.point[0, run], samples)
        for run in state.alive[0].nonzero()[:, 0].tolist()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, default=DEMO_CHECKPOINT)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--judge-samples", type=int, default=15_000)
    parser.add_argument("--rivals", type=int, nargs="+", default=[2, 3, 4, 9], help="settings to try")
    parser.add_argument("--samples", type=int, default=1500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    weights = read_weights(arguments.checkpoint)
    assert weights.card is not None
    classifier = smoothed(build_model(weights, weights.card), weights.card, "cpu")
    classifier.votes_chunk, classifier.gradient_chunk = 256, 128
    examples = chosen(classifier, open_dataset(arguments.dataset, arguments.data_dir, "train"), arguments.images)
    best = {e.index: min(reference(classifier, e, arguments.judge_samples).values()) for e in examples}
    tried: dict[tuple[int, int], list[tuple[Finding, float]]] = {}
    for rivals, seed in itertools.product(arguments.rivals, arguments.seeds):
        attack = Newton(rivals=rivals, samples=arguments.samples, seed=seed)
        tried[rivals, seed] = [
            (f, distance(classifier, f.example, f.candidates[0].image.flatten(), arguments.judge_samples))
            for f in Search(attack, classifier).run(examples)
            if f.candidates
        ]
        for finding, reached in tried[rivals, seed]:
            best[finding.example.index] = min(best[finding.example.index], reached)
    rows = []
    for (rivals, seed), results in tried.items():
        excess = [reached / best[finding.example.index] - 1.0 for finding, reached in results]
        rows.append(
            {
                "rivals": rivals,
                "seed": seed,
                "found": len(results),
                "mean_excess_percent": round(100 * mean(excess), 3),
                "median_excess_percent": round(100 * median(excess), 3),
                "beyond_1_percent": sum(value > 0.01 for value in excess),
                "forward_evaluations": round(mean(finding.forward_evaluations for finding, _ in results)),
                "backward_evaluations": round(mean(finding.backward_evaluations for finding, _ in results)),
            }
        )
    print(json.dumps({"images": len(examples), "sigma": classifier.sigma, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()

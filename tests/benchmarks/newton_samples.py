"""Samples and steps of `caa-newton` by what they cost and how near they get, on training images. Prints JSON.

Of a setting: the mean verified radius, and the mean evaluations of search (forward and backward), line search and
verification together; certificates, the same for all, are left out. Every image is attacked with every setting in
turn. The default is the cheapest setting whose mean radius is within 0.5% of `1500 × 30` (docs/method/caa-newton.md).

    python tests/benchmarks/newton_samples.py --images 40
    python tests/benchmarks/newton_samples.py --checkpoint lenet.safetensors --dataset mnist --data-dir data
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from setup import demo, trained

from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.loop import Search
from caa_cli.attacks.common.state import Example
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.tuning.cache import tuned
from caa_cli.verification.verifier import Verifier

GRID = "1500x30 1500x20 750x30 750x20 375x40 375x30 375x20 375x15 250x30 250x20 200x40 200x30 200x20 150x30 150x20"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--grid", default=GRID, help="SAMPLESxSTEPS …; the first is what the others are held against")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--split", default="train")
    parser.add_argument("--checkpoint", type=Path, help="one that caa train made, with --data-dir; else the demo")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dataset", default="mnist")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    where = (arguments.checkpoint, arguments.dataset, arguments.data_dir)
    classifier, images = trained(*where, split=arguments.split) if where[0] else demo(split=arguments.split)
    attacks = {text: attack_of(*map(int, text.split("x")), arguments.seed) for text in arguments.grid.split()}
    rows: dict[str, list[tuple[float, int, int]]] = {text: [] for text in attacks}
    verifier = Verifier(seed=arguments.seed)
    tuned(classifier, classifier.arch, "float32", gradients=True, anew=False)
    for index in range(0, len(images), len(images) // arguments.images)[: arguments.images]:
        image, label = images.image(index), images.label(index)
        votes = classifier.keyed_votes(image[None], [Key(0, index, Purpose.SELECTION)], 1500)
        if int(leader(votes.numpy())[0]) != label:
            continue
        for text, attack in attacks.items():
            (finding,) = Search(attack, classifier).run([Example(index, image, label)])
            proved = verifier.verify(finding, classifier)
            radius = float("nan") if proved.radius is None else proved.radius
            searched = finding.forward_evaluations + finding.backward_evaluations
            rows[text].append((radius, searched, proved.forward_evaluations))
    reference = [radius for radius, *_ in next(iter(rows.values()))]
    print(json.dumps({text: summary(found, reference) for text, found in rows.items()}, indent=1))


def attack_of(samples: int, steps: int, seed: int) -> Attack[Any]:
    settings = {"attack": "caa-newton", "samples": samples, "newton_steps": steps, "seed": seed}
    return build_attack(AttackPlan.of(checkpoint="demo", **settings))


def summary(found: list[tuple[float, int, int]], reference: list[float]) -> dict[str, float]:
    ratios = [radius / other for (radius, *_), other in zip(found, reference, strict=True) if radius and other]
    ratios = [ratio for ratio in ratios if ratio == ratio]
    searched, verified = mean(row[1] for row in found), mean(row[2] for row in found)
    return {
        "images": len(found),
        "broken": len([row for row in found if row[0] == row[0]]),
        "mean_radius": round(mean(row[0] for row in found if row[0] == row[0]), 4),
        "percent_further": round(100.0 * (mean(ratios) - 1.0), 2),
        "standard_error": round(100.0 * stdev(ratios) / len(ratios) ** 0.5, 2),
        "search": round(searched),
        "verification": round(verified),
        "together": round(searched + verified),
    }


if __name__ == "__main__":
    main()

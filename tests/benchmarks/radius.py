"""Time and model evaluations to a verified radius, attack by attack. Prints JSON.

Every image is attacked by all of them in turn, on one thread and by that thread's own time, so that a busy machine
does not show. Certificates of the clean images, the same for all, are left out.

    python tests/benchmarks/radius.py --images 20 --attacks "caa caa:sample_schedule=fixed caa-newton pgd ddn"
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, median

import torch
from setup import demo, trained

from caa_cli.attacks.common.loop import Example, Search
from caa_cli.config.compare_plan import NamedAttack
from caa_cli.config.plan import AttackPlan
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.verification.verifier import Verifier


def plan_of(text: str) -> AttackPlan:
    """`NAME:KEY=VALUE`, with values as Python would read them."""
    named = NamedAttack.parse(text)
    values = {key: value if value.isalpha() else float(value) for key, value in named.settings.items()}
    whole = {key: int(v) if isinstance(v, float) and v.is_integer() else v for key, v in values.items()}
    return AttackPlan.of(checkpoint="demo", attack=named.attack, **whole)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--attacks", default="caa caa:sample_schedule=fixed caa-newton pgd ddn")
    parser.add_argument("--checkpoint", type=Path, help="one that caa train made, with --data-dir; else the demo")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dataset", default="mnist")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.checkpoint:
        classifier, images = trained(arguments.checkpoint, arguments.dataset, arguments.data_dir)
    else:
        classifier, images = demo()
    plans = {text: plan_of(text) for text in arguments.attacks.split()}
    rows: dict[str, list[dict[str, float | None]]] = {text: [] for text in plans}
    for index in range(arguments.images):
        image, label = images.image(index), images.label(index)
        votes = classifier.votes(image[None], [Key(0, index, Purpose.SELECTION)], 1500)
        if int(leader(votes.numpy())[0]) != label:
            continue
        for text, plan in plans.items():
            began = time.thread_time()
            (finding,) = Search(build_attack(plan), classifier).run([Example(index, image, label)])
            searched = time.thread_time()
            proved = Verifier().verify(finding, classifier)
            rows[text].append(
                {
                    "radius": proved.radius,
                    "search_forward": finding.forward_evaluations,
                    "search_backward": finding.backward_evaluations,
                    "verification": proved.forward_evaluations,
                    "search_seconds": searched - began,
                    "seconds": time.thread_time() - began,
                }
            )
    print(json.dumps({text: summary(found) for text, found in rows.items()}, indent=2))


def summary(rows: list[dict[str, float | None]]) -> dict[str, float]:
    radii = [row["radius"] for row in rows if row["radius"] is not None]
    found = {"images": len(rows), "broken": len(radii), "median_radius": median(radii), "mean_radius": mean(radii)}
    names = ("search_forward", "search_backward", "verification", "search_seconds", "seconds")
    return found | {name: mean(row[name] or 0.0 for row in rows) for name in names}


if __name__ == "__main__":
    main()

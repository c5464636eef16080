"""Time and model evaluations to a verified radius, attack by attack. Prints JSON.

Every image is attacked by all of them in turn, on one thread and by that thread's own time, so that a busy machine
does not show. Certificates of the clean images, the same for all, are left out. What a search found is verified by
each of --rules, on the same noise of the search.

    python tests/benchmarks/radius.py --images 20 --attacks "caa caa:sample_schedule=fixed caa-newton pgd ddn"
    python tests/benchmarks/radius.py --attacks "caa-newton caa-newton:search_dtype=bfloat16" --rules exact
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import mean, median

import torch
from setup import demo, trained

from caa_cli.attacks.common.loop import Example, Search
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.named_attacks import NamedAttack
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.tuning.cache import tuned
from caa_cli.verification.verifier import Verifier


def plan_of(text: str) -> AttackPlan:
    """`NAME:KEY=VALUE`, with values as Python would read them."""
    named = NamedAttack.parse(text)
    return AttackPlan.of(checkpoint="demo", attack=named.attack, **{k: value(v) for k, v in named.settings.items()})


def verifier_of(text: str) -> Verifier:
    rule, _, samples = text.partition(":")
    return Verifier(rule=rule, samples=int(samples or 15_000))


def value(text: str) -> str | int | float:
    try:
        number = float(text)
    except ValueError:
        return text
    return int(number) if number.is_integer() else number


def tuned_for(classifier: SmoothedClassifier, dtypes: Iterable[str]) -> dict[str, SmoothedClassifier]:
    """By the precision of the search, each with its own fastest chunk sizes and layout."""
    of_search = {"float32": classifier}
    tuned(classifier, classifier.arch, "float32", gradients=True, anew=False)
    for name in dtypes:
        if name not in of_search:
            of_search[name] = classifier.searched_in(getattr(torch, name))
            tuned(of_search[name].search, classifier.arch, name, gradients=True, anew=False)
    return of_search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--attacks", default="caa caa:sample_schedule=fixed caa-newton pgd ddn")
    parser.add_argument("--checkpoint", type=Path, help="one that caa train made, with --data-dir; else the demo")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--rules", default="exact intervals", help="RULE or RULE:SAMPLES …; without, 15,000")
    parser.add_argument("--every", type=int, default=1, help="take every so many images")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.checkpoint:
        classifier, images = trained(arguments.checkpoint, arguments.dataset, arguments.data_dir)
    else:
        classifier, images = demo()
    plans = {text: plan_of(text) for text in arguments.attacks.split()}
    of_search = tuned_for(classifier, [plan.search_dtype for plan in plans.values()])
    verifiers = {text: verifier_of(text) for text in arguments.rules.split()}
    rows: dict[str, list[dict[str, float | None]]] = {f"{text} {rule}": [] for text in plans for rule in verifiers}
    for index in range(0, arguments.every * arguments.images, arguments.every):
        image, label = images.image(index), images.label(index)
        votes = classifier.keyed_votes(image[None], [Key(0, index, Purpose.SELECTION)], 1500)
        if int(leader(votes.numpy())[0]) != label:
            continue
        for text, plan in plans.items():
            began = time.thread_time()
            search = Search(build_attack(plan), of_search[plan.search_dtype].search)
            (finding,) = search.run([Example(index, image, label)])
            search_seconds = time.thread_time() - began
            for rule, verifier in verifiers.items():
                began = time.thread_time()
                proved = verifier.verify(finding, classifier)
                rows[f"{text} {rule}"].append(
                    {
                        "radius": proved.radius,
                        "search_forward": finding.forward_evaluations,
                        "search_backward": finding.backward_evaluations,
                        "verification": proved.forward_evaluations,
                        "search_seconds": search_seconds,
                        "seconds": search_seconds + time.thread_time() - began,
                    }
                )
        print(f"{index}", file=sys.stderr)
    print(json.dumps({text: summary(found) for text, found in rows.items()}, indent=2))


def summary(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    radii = [row["radius"] for row in rows if row["radius"] is not None]
    found: dict[str, float | None] = {"images": len(rows), "broken": len(radii)}
    found |= {"median_radius": median(radii) if radii else None, "mean_radius": mean(radii) if radii else None}
    names = ("search_forward", "search_backward", "verification", "search_seconds", "seconds")
    return found | {name: mean(row[name] or 0.0 for row in rows) for name in names}


if __name__ == "__main__":
    main()

"""What a step of each attack asks of a GPU: kernels, waits of the host, and copies from it, on a pretended one.

The first demo images are searched together; the counts are means over the steps `--first` to `--last`, the loop
around the attack included. An image that is finished leaves, as in a run, and none joins.
`tests/helpers/pretended_device.py` says what counts as what. Prints JSON, {attack: {kernels, syncs, uploads, steps}};
with --where, after it, the operations of one kind a step, with the lines of the package that ask for them.

    python tests/benchmarks/device_counts.py
    python tests/benchmarks/device_counts.py --attack caa --where sync
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from pretended_device import PretendedDevice
from setup import demo

from caa_cli.attacks.common.loop import Example, Search
from caa_cli.config.attacks import ATTACKS
from caa_cli.config.plan import AttackPlan
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.certify import Certifier


def counts(
    attack: str, images: int = 8, samples: int = 300, first: int = 8, last: int = 24, chunk: int = 4096
) -> tuple[int, Counter[tuple[str, str, str]]]:
    """How many of the steps the search took, and what they asked for together, as `PretendedDevice.operations`."""
    with PretendedDevice() as device:
        classifier, data = demo("cuda:0")
        classifier.votes_chunk = classifier.gradient_chunk = chunk
        pictures = [data.image(index).to("cuda:0") for index in range(images)]
        labels = [data.label(index) for index in range(images)]
        search = Search(
            build_attack(AttackPlan(checkpoint="demo", attack=attack, samples=samples)), classifier, images
        )
        radius = Certifier().best(classifier.num_classes).radius(classifier.sigma).item() / 4
        search.join([Example(i, x, y, radius) for i, (x, y) in enumerate(zip(pictures, labels, strict=True))])
        steps = 0
        for step in range(1, last + 1):
            if step == first:
                device.operations.clear()
            if search.busy:
                search.advance()
                steps += step >= first
        return steps, device.operations.copy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--first", type=int, default=8)
    parser.add_argument("--last", type=int, default=24)
    parser.add_argument("--chunk", type=int, default=4096)
    parser.add_argument("--where", choices=("kernel", "sync", "upload"))
    options = vars(parser.parse_args())
    attacks, where = options.pop("attack"), options.pop("where")
    report, lines = {}, []
    for attack in attacks:
        steps, operations = counts(attack, **options)
        totals: Counter[str] = Counter()
        for (kind, operation, line), count in operations.most_common():
            totals[kind] += count
            if kind == where:
                lines.append(f"{count / steps:7.2f}  {attack:10}  {operation:30}  {line}")
        report[attack] = {f"{kind}s": round(totals[kind] / steps, 1) for kind in ("kernel", "sync", "upload")}
        report[attack]["steps"] = steps
    print(json.dumps(report, indent=2))
    print("\n".join(lines), end="\n" * bool(lines))


if __name__ == "__main__":
    main()

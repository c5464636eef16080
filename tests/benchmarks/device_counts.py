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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from step_counts import count_steps, totals

from caa_cli.config.attacks import ATTACKS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--attack", nargs="+", default=list(ATTACKS), choices=ATTACKS)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--first", type=int, default=8)
    parser.add_argument("--last", type=int, default=24)
    parser.add_argument("--chunk", type=int, default=4096, help="noise samples in a pass")
    parser.add_argument("--where", choices=("kernel", "sync", "upload"))
    options = vars(parser.parse_args())
    attacks, where = options.pop("attack"), options.pop("where")
    report, lines = {}, []
    for attack in attacks:
        steps, operations = count_steps(attack, **options)
        report[attack] = {**totals(steps, operations), "steps": steps}
        for (kind, operation, line), count in operations.most_common():
            if kind == where:
                lines.append(f"{count / steps:7.2f}  {attack:10}  {operation:30}  {line}")
    print(json.dumps(report, indent=2), *lines, sep="\n")


if __name__ == "__main__":
    main()

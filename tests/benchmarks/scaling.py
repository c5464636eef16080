"""Two processes on two cores against one on one: the same images, by `caa attack`, with one thread each. Prints JSON.

Each time is that of whole processes, from their start to their result, so two also pay for loading twice. The runs
take turns, so that a slow spell of the machine falls on all of them alike. `merged_equals_whole` says that the two
shards, joined by `caa merge`, hold the examples and the summary of the run in one process, but for times.

`cpu` is the processor time of each process: where others keep the machine busy the clock says little, and the larger
of the two shards' over that of the whole is what the ratio would be on cores of their own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from setup import machine, median

COMMAND = "import sys; sys.argv[0] = 'caa'; from caa_cli.cli.app import main; main()"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--chunk-size", type=int, default=512, help="one for all, for sums in one order")
    arguments = parser.parse_args()
    settings = ["attack", "--checkpoint", "demo", "--device", "cpu", "--limit", str(arguments.images)]
    settings += ["--chunk-size", str(arguments.chunk_size), "--overwrite", "--quiet", "--output"]
    times: dict[str, list[float]] = {"one": [], "two": []}
    cpu: dict[str, list[float]] = {"one": [], "two": []}
    loads = []
    with tempfile.TemporaryDirectory() as folder:
        whole, merged = Path(folder, "whole.json"), Path(folder, "merged.json")
        shards = [Path(folder, f"{k}.json") for k in range(2)]
        for _ in range(arguments.rounds):
            loads.append(os.getloadavg()[0])
            alone = seconds([[*settings, str(whole)]])
            commands = [[*settings, str(path), "--shard", f"{k}/2"] for k, path in enumerate(shards)]
            for name, (clock, spent) in {"one": alone, "two": seconds(commands)}.items():
                times[name].append(clock)
                cpu[name].append(spent)
        seconds([["merge", *map(str, shards), "--output", str(merged), "--quiet"]])
        equal = timeless(whole) == timeless(merged)
        evaluations = json.loads(whole.read_text())["summary"]["forward_evaluations"]
    print(
        json.dumps(
            {
                "machine": {**machine(torch.device("cpu")), "cores": os.cpu_count(), "load_before_each_round": loads},
                "images": arguments.images,
                "forward_evaluations": evaluations,
                "seconds": times,
                "median_ratio": ratio(times),
                "cpu": cpu,
                "cpu_ratio": ratio(cpu),
                "merged_equals_whole": equal,
            },
            indent=2,
        )
    )


def ratio(found: dict[str, list[float]]) -> float:
    return median([two / one for one, two in zip(found["one"], found["two"], strict=True)])


def seconds(commands: list[list[str]]) -> tuple[float, float]:
    """Of these processes side by side, with one thread each: by the clock, and the processor time of the longest."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    began = time.perf_counter()
    running = [subprocess.Popen([sys.executable, "-c", COMMAND, *words], env=environment) for words in commands]
    longest = 0.0
    for process in running:
        before = spent_by_children()
        if process.wait():
            raise SystemExit(f"a run failed: {process.args}")
        longest = max(longest, spent_by_children() - before)
    return time.perf_counter() - began, longest


def spent_by_children() -> float:
    """Processor time of the children that have been waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timeless(path: Path) -> dict[str, Any]:
    found = json.loads(path.read_text())
    examples = [{name: value for name, value in e.items() if name != "seconds"} for e in found["examples"]]
    return {
        "examples": examples,
        **{name: value for name, value in found["summary"].items() if "seconds" not in name},
    }


if __name__ == "__main__":
    main()

"""Seconds of a smoke run, `caa attack --checkpoint demo --limit 4`: its first run on a machine against later ones.

    python tests/benchmarks/smoke.py [--rounds 3]

Each round runs with an empty cache of chunk sizes, then again with the one that the first left. Prints JSON: medians,
the ratio, and how long importing torch and torchvision takes, which no run can do without.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median


def seconds(*arguments: str, **variables: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, env={**os.environ, **variables}, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    first, later, imports = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        command = ("-m", "caa_cli", "attack", "--checkpoint", "demo", "--limit", "4", "--quiet", "--overwrite")
        output = ("--output", str(Path(folder, "smoke.json")))
        for number in range(rounds):
            cache = str(Path(folder, f"cache{number}"))
            first.append(seconds(*command, *output, CAA_CACHE_DIR=cache))
            later.append(seconds(*command, *output, CAA_CACHE_DIR=cache))
            imports.append(seconds("-c", "import torch, torchvision"))
    figures = {
        "first_run_seconds": median(first),
        "later_run_seconds": median(later),
        "first_over_later": median(a / b for a, b in zip(first, later, strict=True)),
        "importing_torch_seconds": median(imports),
    }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=1))


if __name__ == "__main__":
    main()

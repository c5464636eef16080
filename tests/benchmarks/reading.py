"""What it costs to read an honest checkpoint in a child process, against `torch.load` in this one.

    python tests/benchmarks/reading.py [--repeats 7]

Prints JSON: for each file its bytes, and the median seconds of both ways, which take turns; by the clock, and of the
processor, the child's included, which a busy machine hardly changes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch

from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import read_weights

ARCHITECTURES = {"small-cnn": (1, 28), "resnet110": (3, 32), "resnet18": (3, 224), "resnet50": (3, 224)}


def here(path: Path) -> None:
    """What has to be done in any case: the digest, the tensors, and whether they are finite."""
    content = path.read_bytes()
    hashlib.sha256(content).hexdigest()
    state = torch.load(BytesIO(content), map_location="cpu", weights_only=True)["state_dict"]
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values() if tensor.is_floating_point())


def seconds(read: Callable[[Path], object], path: Path) -> tuple[float, float]:
    """(by the clock, of the processor)."""
    began, busy = time.perf_counter(), sum(os.times()[:4])
    read(path)
    return time.perf_counter() - began, sum(os.times()[:4]) - busy


def compared(pairs: list[tuple[float, float]]) -> dict[str, float]:
    before, now = (statistics.median(column) for column in zip(*pairs, strict=True))
    return {"here": round(before, 4), "in a child": round(now, 4), "more": round(now - before, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for arch, (channels, size) in ARCHITECTURES.items():
            network = build(ModelCard(arch, 10, (channels, size, size), sigma=0.5)).network
            for legacy in (False, True):
                path = Path(folder) / "x"
                torch.save({"state_dict": network.state_dict()}, path, _use_new_zipfile_serialization=not legacy)
                times = [(seconds(here, path), seconds(read_weights, path)) for _ in range(repeats + 1)][1:]
                found[f"{arch}, {'legacy' if legacy else 'zip'}"] = {"bytes": path.stat().st_size} | {
                    kind: compared([(before[at], now[at]) for before, now in times])
                    for at, kind in enumerate(("clock", "processor"))
                }
    print(json.dumps({"torch": torch.__version__, "repeats": repeats, "files": found}, indent=2))


if __name__ == "__main__":
    main()

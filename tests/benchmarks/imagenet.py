"""The way of an ImageNet image through `caa`: time and peak memory with untrained networks at 224×224. Prints JSON.

    python tests/benchmarks/imagenet.py --data-dir data --arch resnet50 --samples 1000

Loading, labels, memory and speed don't depend on what a network has learnt. An untrained one gives every image the
same class; here its last bias is set so that this is the first image's, which is then attacked (in vain). Each run is
a process of its own, with --limit images; seconds are the medians of the examples' records.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from setup import machine

from caa_cli.config.choices import NORMALISATIONS
from caa_cli.data.datasets import open_dataset
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import checkpoint_bytes

RUN = (
    "import resource, sys; sys.argv[0] = 'caa'\nfrom caa_cli.cli.app import main\n"
    "try:\n    main()\nfinally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
)


def untrained(arch: str, label: int) -> bytes:
    """A checkpoint whose every prediction is `label`."""
    torch.manual_seed(0)
    card = ModelCard(arch, 1000, (3, 224, 224), *NORMALISATIONS["imagenet"], dataset="imagenet", sigma=0.5)
    model = build(card)
    with torch.no_grad():
        model.network.get_parameter("fc.weight").mul_(0.01)
        model.network.get_parameter("fc.bias")[label] += 10.0
    return checkpoint_bytes(model, card)


def measured(command: str, checkpoint: Path, data_dir: str, words: list[str]) -> dict[str, Any]:
    output = checkpoint.with_name(f"{command}.json")
    arguments = [command, "--checkpoint", str(checkpoint), "--data-dir", data_dir, "--output", str(output), "--quiet"]
    began = time.perf_counter()
    found = subprocess.run(
        [sys.executable, "-c", RUN, *arguments, *words], capture_output=True, text=True, check=True
    )
    document = json.loads(output.read_text(encoding="utf-8"))
    examples = document["examples"]
    return {
        "images": len(examples),
        "outcomes": sorted({example["outcome"] for example in examples}),
        "labels": [example["label"] for example in examples],
        "seconds_an_image": round(statistics.median(example["seconds"] for example in examples), 2),
        "seconds_in_all": round(time.perf_counter() - began, 1),
        "peak_megabytes": round(int(found.stdout.split()[-1]) / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--arch", default="resnet18,resnet50")
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--limit", type=int, default=2)
    arguments = parser.parse_args()
    images = open_dataset("imagenet", Path(arguments.data_dir), "test")
    began = time.perf_counter()
    for index in range(min(50, len(images))):
        images.image(index)
    decoding = (time.perf_counter() - began) / min(50, len(images))
    report: dict[str, Any] = {
        "machine": machine(torch.device("cpu")),
        "samples": arguments.samples,
        "milliseconds_to_decode": round(1000 * decoding, 2),
    }
    samples = ["--samples", str(arguments.samples)]
    for arch in arguments.arch.split(","):
        with tempfile.TemporaryDirectory() as folder:
            checkpoint = Path(folder) / "model.safetensors"
            checkpoint.write_bytes(untrained(arch, images.label(0)))
            attack = [*samples, "--iterations", str(arguments.iterations), "--limit", "1"]
            attack += ["--certify-samples", str(arguments.samples), "--verify-samples", str(arguments.samples)]
            report[arch] = {
                "certify": measured(
                    "certify", checkpoint, arguments.data_dir, [*samples, "--limit", str(arguments.limit)]
                ),
                "attack": measured("attack", checkpoint, arguments.data_dir, attack),
            }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

"""Peak memory: by the number of samples, and under a limit. Prints JSON.

    python tests/benchmarks/memory.py --parts samples,limit --limit-samples 1000

- samples: the peak of a process that takes one votes pass and one gradient pass, of --chunk samples at a
  time, by the number of samples; `over` is the last over the first. The gradient takes as many, unless
  --gradient-samples says how many. Of the demo, or the model that --checkpoint, --denoiser and so on name.
- limit: the peak of a process that takes one gradient pass, by `caa`'s own way of keeping to --max-memory: ResNet-50
  at 224×224, 1,000 classes, untrained. Memory depends on the chunk alone, so fewer samples show the same.

Each is a process of its own, and its peak is the kernel's mark of its resident memory, PyTorch's libraries included.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import torch
from setup import add_model_options, chosen_model, machine, smoothed

from caa_cli.config.choices import NORMALISATIONS
from caa_cli.config.sizes import parse_size
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.runtime.memory import limit_device, peak_resident
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio
from caa_cli.tuning.memory_fit import largest_chunk


def passes(classifier: SmoothedClassifier, votes: int, gradient: int) -> None:
    """A pass for votes and one for a gradient, of so many samples each; without any, no votes."""
    x = torch.rand(1, *classifier.input_shape)
    keys = [Key(0, 0, Purpose.SEARCH)]
    if votes:
        classifier.keyed_votes(x, keys, votes)
    classifier.surrogate(x, torch.zeros(1, dtype=torch.int64), keys, gradient, LogRatio())


def of_samples(samples: int, arguments: argparse.Namespace) -> dict[str, object]:
    classifier = chosen_model(arguments)
    classifier.votes_chunk = classifier.gradient_chunk = arguments.chunk
    passes(classifier, samples, arguments.gradient_samples or samples)
    return {"samples": samples, "peak_megabytes": round(peak_resident() / 1e6, 1)}


def of_limit(limit: str, samples: int) -> dict[str, object]:
    mean, std = NORMALISATIONS["imagenet"]
    card = ModelCard("resnet50", 1000, (3, 224, 224), mean, std, sigma=0.5)
    classifier = smoothed(build(card), card, "cpu")
    limit_device(classifier.device, parse_size(limit, "--limit"))
    began = time.perf_counter()
    classifier.gradient_chunk = largest_chunk(classifier, parse_size(limit, "--limit"), gradients=True)
    measured = time.perf_counter()
    passes(classifier, 0, samples)
    return {
        "limit": limit,
        "samples": samples,
        "chunk": classifier.gradient_chunk,
        "peak_megabytes": round(peak_resident() / 1e6, 1),
        "share_of_limit": round(peak_resident() / parse_size(limit, "--limit"), 3),
        "seconds_to_choose": round(measured - began, 1),
        "seconds": round(time.perf_counter() - measured, 1),
    }


def alone(*words: object) -> dict[str, object]:
    """A part in a process of its own."""
    command = [sys.executable, *sys.argv, "--one", *map(str, words)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="samples,limit")
    parser.add_argument("--samples", default="1500,100000")
    parser.add_argument("--gradient-samples", type=int)
    parser.add_argument("--limits", default="2GiB")
    parser.add_argument("--limit-samples", type=int, default=1000)
    parser.add_argument("--chunk", type=int, default=256, help="samples at a time")
    add_model_options(parser)
    parser.add_argument("--one", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        part, *words = arguments.one
        found = of_samples(int(words[0]), arguments) if part == "samples" else of_limit(words[0], int(words[1]))
        print(json.dumps(found))
        return
    report: dict[str, object] = {"machine": machine(torch.device("cpu"))}
    if "samples" in arguments.parts:
        rows = [alone("samples", samples) for samples in arguments.samples.split(",")]
        over = float(str(rows[-1]["peak_megabytes"])) / float(str(rows[0]["peak_megabytes"]))
        report["samples"] = {"passes": rows, "over": round(over, 3)}
    if "limit" in arguments.parts:
        report["limit"] = [alone("limit", limit, arguments.limit_samples) for limit in arguments.limits.split(",")]
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

"""Do verified successes hold up? Votes on each adversarial image again, on independent noise. Prints JSON.

    caa attack --checkpoint demo --limit 100 --save-adversarial a.safetensors
    python tests/benchmarks/recheck.py a.safetensors

A success fails the recheck if the original class has more votes than every other; at most alpha of them should. With
--targeted it fails if any other class has more votes than the target that was reached.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from setup import smoothed

from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.models.load import build_model
from caa_cli.smoothing.noise import Key, Purpose


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", help="what --save-adversarial wrote")
    parser.add_argument(
        "--checkpoint", type=Path, default=DEMO_CHECKPOINT, help="made by caa train; default: the demo"
    )
    parser.add_argument("--dtype", default="float32", help="as the attack had it")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--targeted", action="store_true", help="the attacks had a --target")
    arguments = parser.parse_args()
    weights = read_weights(arguments.checkpoint)
    assert weights.card is not None
    model = build_model(weights, weights.card)
    classifier = smoothed(model, weights.card, "cpu", getattr(torch, arguments.dtype))
    classifier.votes_chunk = 256  # what is quickest for small networks on a CPU
    failed, leads = [], []
    for number, found in enumerate(map(load_file, arguments.images)):
        reached = found["adversarial_classes"].tolist()
        for image, index, label, target in zip(
            found["images"], found["indices"].tolist(), found["labels"].tolist(), reached, strict=True
        ):
            key = Key(arguments.seed, index, Purpose.EVALUATION, number)
            votes = classifier.votes(image[None], [key], arguments.samples)[0]
            chosen, others = target if arguments.targeted else label, votes.clone()
            others[chosen] = -1
            lead = int(others.max() - votes[chosen]) * (-1 if arguments.targeted else 1)
            leads.append(lead / arguments.samples)
            if lead < 0:
                failed.append(index)
    report = {
        "successes": len(leads),
        "failed": failed,
        "share_failed": len(failed) / len(leads),
        "samples": arguments.samples,
        "smallest_lead": min(leads),
        "median_lead": float(torch.tensor(leads).median()),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

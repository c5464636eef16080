"""Do verified successes hold up? Votes on each adversarial image again, on independent noise. Prints JSON.

    caa attack --checkpoint demo --limit 100 --save-adversarial a.safetensors
    python tests/benchmarks/recheck.py a.safetensors

A success fails the recheck if the original class has more votes than every other; at most alpha of them should. With
--targeted it fails if any other class has more votes than the target that was reached. A slow model's 100,000 samples
an image may end early, once the lead is beyond doubt: --surely 6.
"""

from __future__ import annotations

import argparse
import json
import sys

import torch
from safetensors.torch import load_file
from setup import add_model_options, chosen_model

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.tuning.sweep import tune_chunks

_PORTION = 1000


def recount(
    classifier: SmoothedClassifier, image: torch.Tensor, key: Key, samples: int, surely: float | None
) -> tuple[torch.Tensor, int]:
    """(votes, their number): of all samples, or until the first class leads the second by `surely` standard errors.

    The difference of two counts a and b has the variance a + b − (a − b)²/n, at most a + b.
    """
    votes = classifier.no_counts(1)[0, :-1]
    for start in range(0, samples, _PORTION):
        portion = min(_PORTION, samples - start)
        votes = votes + classifier.keyed_votes(image, [key], portion, start)[0]
        first, second = votes.topk(2).values.tolist()
        if surely is not None and first - second > surely * (first + second) ** 0.5:
            return votes, start + portion
    return votes, samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="+", help="what --save-adversarial wrote")
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--surely", type=float, help="end at a lead of so many standard errors, before --samples")
    parser.add_argument("--seed", type=int, default=12345)
    parser.add_argument("--targeted", action="store_true", help="the attacks had a --target")
    add_model_options(parser)
    arguments = parser.parse_args()
    classifier = chosen_model(arguments)
    tune_chunks(classifier, gradients=False)
    failed, leads, samples = [], [], []
    for number, found in enumerate(map(load_file, arguments.images)):
        reached = found["adversarial_classes"].tolist()
        for image, index, label, target in zip(
            found["images"], found["indices"].tolist(), found["labels"].tolist(), reached, strict=True
        ):
            key = Key(arguments.seed, index, Purpose.EVALUATION, number)
            votes, taken = recount(classifier, image[None], key, arguments.samples, arguments.surely)
            chosen, others = target if arguments.targeted else label, votes.clone()
            others[chosen] = -1
            lead = int(others.max() - votes[chosen]) * (-1 if arguments.targeted else 1)
            leads.append(lead / taken)
            samples.append(taken)
            if lead < 0:
                failed.append(index)
            print(f"image {index}: lead {lead / taken:.4f} of {taken} votes", file=sys.stderr)
    report = {
        "successes": len(leads),
        "failed": failed,
        "share_failed": len(failed) / len(leads),
        "samples": {"fewest": min(samples), "most": max(samples)},
        "smallest_lead": min(leads),
        "median_lead": float(torch.tensor(leads).median()),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

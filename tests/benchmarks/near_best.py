"""How often each attack ends near the nearest point of all attacks, with and without luck of proofs. Prints JSON.

    caa compare --checkpoint demo --limit 20 --attacks caa-newton,fmn:samples=300 --output c.json \\
      --save-adversarial c.safetensors
    python tests/benchmarks/near_best.py c.*.json

A verified radius lies beyond the boundary by a margin that depends on the noise of its verification. Without that
luck a result counts by where its ray has a fixed margin (0.03 σ) in many votes, on noise that is the same for all.
Results of several models are judged model by model. --reference: further results, which may be the nearest but get no
row. "beyond" lists the images that are not near, with the excess in % and the class reached.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from nearest import distance
from safetensors.torch import load_file

from caa_cli.attacks.common.state import Example
from caa_cli.data.datasets import ImageSet, open_dataset
from caa_cli.data.files import ImageFiles
from caa_cli.python.model import load
from caa_cli.smoothing.classifier import SmoothedClassifier

_NEAR = 1.01
# What a result's settings say of its model.
_MODEL = [
    "ensemble",
    "denoiser",
    "denoiser_arch",
    "classifier_size",
    "sigma",
    "dataset",
    "mean",
    "std",
    "trust_checkpoint",
]


@dataclass
class Result:
    """What one attack found for one image: the distance by each measure, and the class."""

    verified: float
    without_luck: float
    reached: int


def opened(config: dict[str, Any], dtype: str) -> tuple[SmoothedClassifier, ImageSet | ImageFiles]:
    """The model and the images of a run with these settings."""
    settings = {name: config[name] for name in _MODEL}
    classifier = load([config["checkpoint"], *config["members"]], device="cpu", dtype=dtype, **settings)
    classifier.votes_chunk = 512
    folder = config["data_dir"] and Path(config["data_dir"])
    return classifier, open_dataset(config["dataset"], folder, config["split"])


def judged(
    document: dict[str, Any], classifier: SmoothedClassifier, images: ImageSet | ImageFiles, samples: int
) -> dict[int, Result]:
    """The attacked images of a result, by index."""
    found = load_file(document["config"]["save_adversarial"])
    points = dict(zip(found["indices"].tolist(), found["images"], strict=True))
    results = {}
    for entry in document["examples"]:
        if entry["outcome"] == "attacked":
            index = entry["index"]
            example = Example(index, images.image(index), images.label(index))
            at = distance(classifier, example, points[index].flatten(), samples)
            results[index] = Result(entry["radius"], at, entry["adversarial_class"])
    return results


def summary(own: dict[int, Result], everyone: list[dict[int, Result]], measure: str) -> dict[str, object]:
    """One attack on one model by a measure, a field of Result."""
    ratios = {
        index: getattr(result, measure) / min(getattr(other[index], measure) for other in everyone if index in other)
        for index, result in own.items()
    }
    far = {index: ratio for index, ratio in ratios.items() if ratio > _NEAR}
    return {
        "near_percent": round(100 * (1 - len(far) / len(own)), 1),
        "mean_excess_percent": round(100 * (mean(ratios.values()) - 1), 3),
        "beyond": {index: [round(100 * (ratio - 1), 1), own[index].reached] for index, ratio in far.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="+", type=Path, help="of caa attack, or of caa compare for each attack")
    parser.add_argument("--reference", nargs="*", default=[], type=Path)
    parser.add_argument("--judge-samples", type=int, default=15_000)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    documents: dict[str, dict[Path, dict[str, Any]]] = defaultdict(dict)
    for path in [*arguments.results, *arguments.reference]:
        document = json.loads(path.read_text())
        documents[document["config"]["checkpoint"]][path] = document
    report = {}
    for checkpoint, files in documents.items():
        model, images = opened(next(iter(files.values()))["config"], arguments.dtype)
        found = {path: judged(document, model, images, arguments.judge_samples) for path, document in files.items()}
        everyone = list(found.values())
        report[checkpoint] = {
            path.stem: {
                "images": len(own),
                **{measure: summary(own, everyone, measure) for measure in ("verified", "without_luck")},
            }
            for path, own in found.items()
            if path in arguments.results
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

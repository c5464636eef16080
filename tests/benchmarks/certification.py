"""Where `caa certify` spends its time, what memory it takes, and what `--radius` saves. Prints JSON.

    python tests/benchmarks/certification.py --checkpoint model.safetensors --data-dir data --every 20 --samples 10000

- share_in_model: of the time that certifying images takes in this process, what is spent inside the model's forward
  pass, in drawing noise, and in all the rest.
- peak_megabytes: of a process of its own that certifies one image, by the number of samples.
- radius: the same images decided one by one at each radius and certified in full; how often both agree where both
  decide, and the samples that the decision took.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from setup import machine

from caa_cli.data.datasets import open_dataset
from caa_cli.models.checkpoint import find_checkpoint, read_weights
from caa_cli.models.load import build_model
from caa_cli.smoothing.certify import Certifier
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.sequential import Decider
from caa_cli.tuning.sweep import tune_chunks


class Stopwatch:
    """The time spent inside functions that it wraps."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **settings: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*arguments, **settings)
            finally:
                self.seconds += time.perf_counter() - began

        return timed


def shares(classifier: SmoothedClassifier, x: torch.Tensor, indices: list[int], samples: int) -> dict[str, float]:
    """Of the whole certification of these images: time in the model, in drawing noise, and elsewhere."""
    certifier = Certifier(100, samples, 0.001, "clopper-pearson")
    certifier.certify(classifier, x[:1], indices[:1])
    forward, noise = Stopwatch(), Stopwatch()
    model, source = classifier.model, classifier.noise
    plain_forward, plain_noise = model.forward, source.gaussian
    model.forward, source.gaussian = forward.around(plain_forward), noise.around(plain_noise)  # type: ignore[method-assign]
    began = time.perf_counter()
    certifier.certify(classifier, x, indices)
    total = time.perf_counter() - began
    model.forward, source.gaussian = plain_forward, plain_noise  # type: ignore[method-assign]
    return {
        "model": round(forward.seconds / total, 3),
        "noise": round(noise.seconds / total, 3),
        "rest": round(1 - (forward.seconds + noise.seconds) / total, 3),
        "microseconds_a_sample": round(1e6 * total / len(indices) / samples, 2),
    }


def peak_megabytes(checkpoint: str, data_dir: str | None, samples: int) -> float:
    """The high-water mark of a process that certifies one image."""
    script = (
        "import resource, sys; sys.argv[0] = 'caa'\nfrom caa_cli.cli.app import main\n"
        "try:\n    main()\nfinally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    words = ["certify", "--checkpoint", checkpoint, "--limit", "1", "--samples", str(samples), "--quiet"]
    words += ["--chunk-size", "256", *(["--data-dir", data_dir] if data_dir else [])]
    with tempfile.TemporaryDirectory() as folder:
        found = subprocess.run(
            [sys.executable, "-c", script, *words, "--output", str(Path(folder) / "certify.json")],
            capture_output=True,
            text=True,
            check=True,
        )
    return round(int(found.stdout.split()[-1]) / 1024, 1)


def decisions(
    classifier: SmoothedClassifier, x: torch.Tensor, indices: list[int], samples: int, radii: list[float]
) -> dict[str, Any]:
    """Full certificates against sequential decisions."""
    full = Certifier(100, samples, 0.001, "clopper-pearson").certify(classifier, x, indices)
    report: dict[str, Any] = {}
    for radius in radii:
        decider = Decider(radius, samples, 100, 0.001)
        found = [decider.decide(classifier, image, index) for image, index in zip(x, indices, strict=True)]
        both = [
            (one.certified, other.radius >= radius)
            for one, other in zip(found, full, strict=True)
            if one.certified is not None
        ]
        report[f"{radius:g}"] = {
            "images": len(found),
            "undecided": sum(one.certified is None for one in found),
            # A full certificate that falls short proves nothing, so only this direction can be an error of either.
            "certified_by_the_decision_alone": sum(one and not other for one, other in both),
            "certified_in_full_alone": sum(other and not one for one, other in both),
            "samples_an_image": round(sum(one.samples for one in found) / len(found), 1),
            "saving": round(samples * len(found) / sum(one.samples for one in found), 1),
        }
    return report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--dataset", default="demo")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--radii", default="0.25,0.5,0.75,1.0,1.25")
    parser.add_argument("--memory", default="2000,1000000", help="samples to measure the peak memory at")
    arguments = parser.parse_args()
    weights = read_weights(find_checkpoint(arguments.checkpoint))
    card = weights.card
    assert card is not None
    images = open_dataset(arguments.dataset, Path(arguments.data_dir) if arguments.data_dir else None, "test")
    indices = list(range(0, len(images), arguments.every))[: arguments.limit]
    x = torch.stack([images.image(index) for index in indices])
    classifier = SmoothedClassifier(
        build_model(weights, card),
        sigma=card.sigma or 0.5,
        num_classes=card.num_classes,
        input_shape=card.input_shape,
    )
    tune_chunks(classifier, gradients=False)
    radii = [float(radius) for radius in arguments.radii.split(",")]
    report = {
        "machine": machine(torch.device("cpu")),
        "model": card.arch,
        "sigma": card.sigma,
        "samples": arguments.samples,
        "chunk": classifier.votes_chunk,
        "channels_last": classifier.memory_format == torch.channels_last,
        "share_in_model": shares(classifier, x[:20], indices[:20], arguments.samples),
        "peak_megabytes": {
            samples: peak_megabytes(arguments.checkpoint, arguments.data_dir, int(samples))
            for samples in arguments.memory.split(",")
            if samples
        },
        "radius": decisions(classifier, x, indices, arguments.samples, radii),
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()

"""The accuracy of the smoothed classifier, measured once at the end of a training."""

from __future__ import annotations

from typing import Any

import torch

from caa_cli.data.datasets import ImageSet
from caa_cli.display import Display, number
from caa_cli.models.architectures import NormalisedClassifier
from caa_cli.models.card import ModelCard
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.tune import tune_chunks

_TOGETHER = 50


def smoothed_accuracy(
    model: NormalisedClassifier,
    card: ModelCard,
    images: ImageSet,
    device: torch.device,
    limit: int,
    samples: int,
    seed: int,
    display: Display,
) -> dict[str, Any]:
    """Of `limit` test images at even distances, by the majority of `samples` votes; for the checkpoint's metadata."""
    classifier = SmoothedClassifier(
        model, sigma=card.sigma or 0.0, num_classes=card.num_classes, input_shape=card.input_shape, device=device
    )
    tune_chunks(classifier, seconds=0.5, gradients=False)
    indices = spread(len(images), limit)
    right = 0
    with display.bar("test images", len(indices)) as bar:
        for first in range(0, len(indices), _TOGETHER):
            batch = indices[first : first + _TOGETHER]
            x = torch.stack([images.image(index) for index in batch]).to(device)
            keys = [Key(seed, index, Purpose.EVALUATION) for index in batch]
            winners = leader(classifier.votes(x, keys, samples).cpu().numpy())
            right += sum(int(w) == images.label(i) for w, i in zip(winners, batch, strict=True))
            done = first + len(batch)
            bar.update(done, f"smoothed accuracy {number(100 * right / done, 2)}%")
    return {
        "smoothed_accuracy": right / len(indices),
        "smoothed_accuracy_images": len(indices),
        "smoothed_accuracy_samples": samples,
    }


def spread(total: int, count: int) -> list[int]:
    """`count` positions out of `total` at even distances: data sets that are files are sorted by class."""
    count = min(count, total)
    return [position * total // count for position in range(count)]

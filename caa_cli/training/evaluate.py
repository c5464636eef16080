"""The accuracy of the smoothed classifier, measured once at the end of a training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.images import Images, readable, spread
from caa_cli.display import Display, number
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.tuning.sweep import tune_chunks

_TOGETHER = 50


def smoothed_accuracy(
    model: nn.Module,
    num_classes: int,
    images: Images,
    device: torch.device,
    plan: TrainPlan,
    display: Display,
) -> dict[str, Any]:
    """The smoothed accuracy on evenly spaced test images, by the majority of their votes.

    Returned with its numbers of images and samples, for the checkpoint's metadata; None if no image is readable.
    """
    classifier = SmoothedClassifier(
        model, sigma=plan.sigma, num_classes=num_classes, input_shape=images.input_shape, device=device
    )
    tune_chunks(classifier, seconds=1.0, gradients=False)
    indices, samples = spread(len(images), plan.evaluate_limit), plan.evaluate_samples
    right = seen = 0
    with display.bar("test images", len(indices)) as bar:
        for first in range(0, len(indices), _TOGETHER):
            batch = list(readable(images, indices[first : first + _TOGETHER]))
            if batch:
                x = torch.stack([image for _, image in batch]).to(device)
                keys = [Key(plan.seed, index, Purpose.EVALUATION) for index, _ in batch]
                winners = leader(classifier.keyed_votes(x, keys, samples).cpu().numpy())
                right += sum(int(w) == images.label(index) for w, (index, _) in zip(winners, batch, strict=True))
                seen += len(batch)
            bar.update(
                min(first + _TOGETHER, len(indices)), f"smoothed accuracy {number(100 * right / max(seen, 1), 2)}%"
            )
    return {
        "smoothed_accuracy": right / seen if seen else None,
        "smoothed_accuracy_images": seen,
        "smoothed_accuracy_samples": samples,
    }

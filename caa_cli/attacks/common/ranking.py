"""Which other classes are the most likely ones at the clean image: attacks after several rivals begin with these."""

from __future__ import annotations

import torch
from torch import Tensor

from caa_cli.attacks.common.state import Example, clean_images
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Purpose
from caa_cli.smoothing.objective import likeliest_rivals

# The most samples that rank the classes. By 128 the nearest was now and then not among the first.
_MOST_SAMPLES = 375


def ranking_samples(samples: int) -> int:
    """How many samples `top_classes` takes of an image, all forward, where a step takes `samples`."""
    return min(samples, _MOST_SAMPLES)


def top_classes(
    examples: list[Example], classifier: SmoothedClassifier, count: int, seed: int, samples: int
) -> Tensor:
    """The `count` most likely classes but the label, most likely first, by a short evaluation of the mean softmax at
    the clean images: (examples, count) int64, or (examples, classes − 1) where there are no more."""
    clean = clean_images(examples)
    labels = torch.tensor([example.label for example in examples], device=clean.device)
    keys = [example.key(seed, Purpose.START) for example in examples]
    log_mean = classifier.log_mean(clean, keys, ranking_samples(samples))
    return likeliest_rivals(log_mean, labels, min(count, classifier.num_classes - 1))

"""Which other classes an attack follows, where it follows given ones."""

from __future__ import annotations

import torch
from torch import Tensor

from caa_cli.attacks.loop import Example
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose


def look_at(samples: int) -> int:
    """How many samples `likeliest` takes of an image, all forward, where a step takes `samples`."""
    return min(samples, SmoothedClassifier.PILOT)


def likeliest(examples: list[Example], classifier: SmoothedClassifier, count: int, seed: int, samples: int) -> Tensor:
    """The `count` likeliest classes but the label, likeliest first, by the mean softmax of a short look at the clean
    images: (examples, count) int64, or (examples, classes − 1) where there are no more."""
    clean = torch.stack([example.image for example in examples])
    labels = torch.tensor([example.label for example in examples], device=clean.device)
    keys = [Key(seed, example.index, Purpose.START) for example in examples]
    log_mean = classifier.log_mean(clean, keys, look_at(samples))
    others = log_mean.scatter(1, labels[:, None], -torch.inf)
    return others.topk(min(count, classifier.num_classes - 1), dim=1).indices

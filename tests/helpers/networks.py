"""Models whose answers are known: a linear one whose boundary is known exactly, and a small random network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from caa_cli.smoothing.classifier import SmoothedClassifier


@dataclass
class Linear:
    """A smoothed two-class linear model: class 1 where weight · x > offset, and so is the smoothed classifier.

    At x the class probability is Φ(distance / σ), and the certified radius for n → ∞ is the distance to the plane,
    as is that of the nearest adversarial point where the box does not bind.
    """

    classifier: SmoothedClassifier
    weight: Tensor
    offset: float

    def distance(self, x: Tensor) -> float:
        """Signed, positive on the side of class 1."""
        return float((self.weight.double() * x.double().flatten()).sum() - self.offset) / float(
            self.weight.double().norm()
        )

    def at(self, distance: float) -> Tensor:
        """A mid-grey image at this signed distance from the plane."""
        grey = torch.full(self.classifier.input_shape, 0.5)
        normal = (self.weight / self.weight.norm()).view(self.classifier.input_shape)
        return grey + (distance - self.distance(grey)) * normal


def make_linear(sigma: float = 0.5, seed: int = 0, scale: float = 4.0, **settings: Any) -> Linear:
    shape = (1, 20, 20)
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(400, generator=generator)
    weight *= scale / weight.norm()
    offset = float(0.5 * weight.sum())
    layer = nn.Linear(400, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(400), weight]))
        layer.bias.copy_(torch.tensor([0.0, -offset]))
    classifier = SmoothedClassifier(
        nn.Sequential(nn.Flatten(), layer), sigma=sigma, num_classes=2, input_shape=shape, **settings
    )
    return Linear(classifier, weight, offset)


class SmallNet(nn.Module):
    """A random convolutional network with three classes, for properties that hold whatever the weights."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layers = nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 3))

    def forward(self, x: Tensor) -> Tensor:
        return 3.0 * self.layers(x)


def make_small(sigma: float = 0.5, **settings: Any) -> SmoothedClassifier:
    return SmoothedClassifier(SmallNet(), sigma=sigma, num_classes=3, input_shape=(1, 8, 8), **settings)

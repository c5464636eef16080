"""Models whose answers are known: a linear one whose boundary is known exactly, and a small random network."""

from __future__ import annotations

import math
from collections.abc import Mapping
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


@dataclass
class Sectors:
    """A smoothed linear model of three classes, whose regions are sectors of 120° in a plane through grey.

    By symmetry two classes are even on the line between their sectors, so the smoothed regions are the same sectors:
    class c is the likeliest within 60° of its axis, at c · 120°.
    """

    classifier: SmoothedClassifier
    plane: Tensor  # (2, dimensions), orthonormal

    def at(self, length: float, degrees: float) -> Tensor:
        """The image at these polar coordinates in the plane; the corner of the sectors is mid-grey."""
        angle = math.radians(degrees)
        offset = length * (math.cos(angle) * self.plane[0] + math.sin(angle) * self.plane[1])
        return (0.5 + offset).view(self.classifier.input_shape)

    @staticmethod
    def distance(length: float, degrees: float, target: int) -> float:
        """From the point at these coordinates to the nearest one in the sector of the target: on its side, or at the
        corner."""
        off_axis = abs((degrees - 120 * target + 180) % 360 - 180)
        if off_axis <= 60:
            return 0.0
        return length * math.sin(math.radians(off_axis - 60)) if off_axis <= 150 else length


def make_sectors(sigma: float = 0.5, scale: float = 8.0, **settings: Any) -> Sectors:
    generator = torch.Generator().manual_seed(0)
    plane = torch.linalg.qr(torch.randn(400, 2, generator=generator))[0].T
    axes = [math.radians(120 * c) for c in range(3)]
    layer = nn.Linear(400, 3)
    with torch.no_grad():
        weight = scale * torch.stack([math.cos(a) * plane[0] + math.sin(a) * plane[1] for a in axes])
        layer.weight.copy_(weight)
        layer.bias.copy_(-0.5 * weight.sum(dim=1))
    classifier = SmoothedClassifier(
        nn.Sequential(nn.Flatten(), layer), sigma=sigma, num_classes=3, input_shape=(1, 20, 20), **settings
    )
    return Sectors(classifier, plane)


def quantised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights as integers without their scale, counters as they are."""
    return {
        name: tensor.mul(100).round().to(torch.int8) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }

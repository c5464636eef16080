"""What a training method does with a batch: its loss."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Method(Protocol):
    """A training method for a classifier that will be smoothed with N(0, σ²)."""

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, sigma: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """images: (batch, *input_shape) in [0, 1]. Returns (scalar loss, logits of the noisy batch)."""
        ...


class Gaussian:
    """Gaussian augmentation (Lecuyer et al., 2019; Cohen et al., 2019): cross-entropy, one noise draw an image.

    The noise is added in pixel units, before normalisation, and never clipped.
    """

    def loss(
        self, model: nn.Module, images: Tensor, labels: Tensor, sigma: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        noise = torch.empty_like(images).normal_(0.0, sigma, generator=generator)
        logits = model(images + noise)
        return F.cross_entropy(logits, labels), logits


METHODS: dict[str, Method] = {"gaussian": Gaussian()}

"""The interface of training methods: a batch with noise, and the resulting loss."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Forward = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Step:
    """One batch of a training method.

    forward: noisy images (batch, *input_shape) → logits (batch, classes) float32, in training mode.
    frozen: a context, for attacks, with the same weights in evaluation mode and without gradients.
    classify: of a denoiser that is trained for a classifier: images → that one's logits, float32, whose weights never
    change. forward then gives images (batch, *input_shape) in place of logits.
    images: (batch, *input_shape) float32 in [0, 1].  labels: (batch,) int64.
    sigma: of the noise, pixel units.  epoch: from 0.
    """

    forward: Forward
    frozen: Callable[[], AbstractContextManager[Forward]]
    images: Tensor
    labels: Tensor
    sigma: float
    generator: torch.Generator
    epoch: int
    classify: Forward | None = None

    def noise(self, draws: int) -> Tensor:
        """Noise (batch · draws, *input_shape): `draws` draws per image, adjacent to each other."""
        count, *shape = self.images.shape
        return self.images.new_empty((count * draws, *shape)).normal_(0.0, self.sigma, generator=self.generator)

    def repeated(self, draws: int) -> Tensor:
        """The images, each repeated `draws` times: (batch · draws, *input_shape)."""
        return self.images.repeat_interleave(draws, dim=0)


@dataclass(frozen=True)
class Outcome:
    """loss: scalar.  logits: (batch · draws, classes) of the noisy images, for the accuracy; None: not computed."""

    loss: Tensor
    logits: Tensor | None

    def correct(self, labels: Tensor) -> Tensor:
        """The expected number of correct predictions in the batch, averaged over draws; a scalar, NaN if unknown."""
        if self.logits is None:
            return torch.full((), torch.nan, device=labels.device)
        draws = len(self.logits) // len(labels)
        right = self.logits.detach().argmax(dim=1) == labels.repeat_interleave(draws)
        return right.sum() / draws


class Method(Protocol):
    """A training method for a classifier that will be smoothed with N(0, σ²)."""

    def loss(self, step: Step) -> Outcome:
        """The loss of a batch, and its logits."""
        ...

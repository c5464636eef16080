"""The object of a training: a classifier, or a denoiser in front of a classifier that is not trained."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import nn

from caa_cli.display import Rows


class Trainee(ABC):
    """A network to train, and what a run makes of it.

    network: the one whose weights change; noisy images → logits, or of a denoiser images of the same shape.
    frozen: the classifier behind a denoiser, which never changes; None where there is none.
    num_classes: of the smoothed classifier's votes.  notes: for the user.
    """

    network: nn.Module
    frozen: nn.Module | None = None
    denoises: bool = False
    num_classes: int
    notes: tuple[str, ...] = ()

    @property
    @abstractmethod
    def base_classifier(self) -> nn.Module | None:
        """The base classifier with the network's current weights; None for a denoiser without a classifier."""

    @abstractmethod
    def describe(self) -> Rows:
        """Rows of the plan, before training."""

    @abstractmethod
    def content(self, training: dict[str, Any]) -> bytes:
        """The file of the network's present weights; training: facts for its metadata."""

    def identity(self) -> dict[str, Any]:
        """Identification of what stays as it is, as JSON; a resumed run must have the same."""
        return {"classifier_sha256": None}


def count_parameters(network: nn.Module) -> int:
    """The number of weights, biases among them."""
    return sum(parameter.numel() for parameter in network.parameters())

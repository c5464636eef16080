"""Smooth stand-ins for the hard votes, so that there is a gradient to follow.

Each noise sample i is given soft class probabilities q_i; their mean over the noise is p̄, and an objective J is
a smooth function of log p̄. The gradient reaches the model through one cotangent a sample, at its logits:

    ∂J/∂logits_i = 1/(nτ) · (b_i − q_i Σ_k b_ik),   b_ik = ∂J/∂p̄_k · q_ik,   τ the temperature of q

Only ∂J/∂p̄ ties the samples together. It is taken at the p̄ of a pilot, the first samples of the same draw
(see `SmoothedClassifier.surrogate`), which is why one forward and one backward pass are enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Objective(Protocol):
    """What an attack follows the gradient of."""

    @property
    def temperature(self) -> float:
        """Of the soft predictions."""
        ...

    @property
    def gumbel(self) -> bool:
        """Whether the soft predictions are Gumbel–softmax draws."""
        ...

    def slopes(self, log_mean: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(log |∂J/∂p̄|, its sign), each (examples, classes), at log p̄ = `log_mean`."""
        ...


def strongest_rival(log_mean: Tensor, labels: Tensor) -> Tensor:
    """The likeliest class other than the label, (examples,) int64."""
    return log_mean.scatter(1, labels[:, None], -torch.inf).argmax(dim=1)


@dataclass(frozen=True)
class LogRatio:
    """log p̄_label − log p̄_rival with q the softmax: useful however confident the model is.

    The rival is the likeliest other class of the pilot.
    """

    temperature: float = 1.0
    gumbel: bool = False

    def slopes(self, log_mean: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        sign = _label_against_rival(log_mean, labels)
        return -log_mean, sign


@dataclass(frozen=True)
class GumbelGap:
    """The paper's objective: p̄_label − p̄_rival with q a Gumbel–softmax draw (Eq. gumbel).

    At the published temperature of 1/100 it is all but saturated on well-classified images. The published code
    takes the straight-through form, hard draws forward and soft ones backward. The objective is linear in the
    draws, so both forms have the same gradient, and the votes are hard in either case.
    """

    temperature: float = 0.01
    gumbel: bool = True

    def slopes(self, log_mean: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros_like(log_mean), _label_against_rival(log_mean, labels)


def _label_against_rival(log_mean: Tensor, labels: Tensor) -> Tensor:
    sign = torch.zeros_like(log_mean)
    sign.scatter_(1, labels[:, None], 1.0)
    return sign.scatter_(1, strongest_rival(log_mean, labels)[:, None], -1.0)


def log_mean_probability(log_probabilities: Tensor) -> Tensor:
    """log of the mean probability over the samples: (examples, samples, classes) → (examples, classes)."""
    return torch.logsumexp(log_probabilities, dim=1) - math.log(log_probabilities.shape[1])


def cotangent(log_probabilities: Tensor, slopes: tuple[Tensor, Tensor], scale: float) -> Tensor:
    """∂J/∂logits, (examples, samples, classes), for J's `slopes` at p̄; `scale` is 1/(n · temperature)."""
    log_slope, sign = slopes
    # A sample whose probability exceeds the pilot's mean by e⁸⁰ outweighs all others with or without the clamp.
    b = sign[:, None] * torch.exp(torch.clamp(log_probabilities + log_slope[:, None], max=80.0))
    b *= scale
    return b - log_probabilities.exp() * b.sum(dim=2, keepdim=True)

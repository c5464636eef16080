"""Smooth surrogates of the hard votes, which have a gradient.

Each noise sample i is given soft class probabilities q_i; their mean over the noise is p̄, and an objective J is
a smooth function of log p̄. The gradient reaches the model through one cotangent a sample, at its logits:

    ∂J/∂logits_i = 1/(nτ) · (b_i − q_i Σ_k b_ik),   b_ik = ∂J/∂p̄_k · q_ik,   τ the temperature of q

Only ∂J/∂p̄ depends on all samples. It is taken at the p̄ of a pilot, the first samples of the same draw
(see `SmoothedClassifier.surrogate`), so that one forward and one backward pass are enough.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

# In the place of a rival: no class in particular.
ANY_CLASS = -1
# (log |∂J/∂p̄|, its sign), each (examples, classes); of several functions J, (functions, examples, classes). In logs,
# as 1/p̄ of an unlikely class exceeds float32, although its product with q, which is all that is used, does not.
Slopes = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Objective(ABC):
    """A smooth function J of the class probabilities, whose gradient an attack follows.

    temperature: of the soft predictions.  gumbel: whether they are Gumbel–softmax draws.
    """

    temperature: float = 1.0
    gumbel: bool = False

    @abstractmethod
    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        """(log |∂J/∂p̄|, its sign), each (examples, classes), at log p̄ = `log_mean`."""

    def of(self, rows: slice) -> Objective:
        """The objective of these examples, where it depends on the example."""
        return self

    def to_reach(self) -> Objective:
        """The objective that goes the same way for a class that is to be reached as this one for a class to be left,
        which takes the label's place."""
        return Reversed(self, temperature=self.temperature, gumbel=self.gumbel)

    def on_draws(self, temperature: float) -> Objective:
        """The objective with the mean Gumbel–softmax draw in place of the logits z = log p̄: how the paper attacks by
        methods that were made for logits. It vanishes with the draws' gradient where the model is certain."""
        return OnDraws(self, temperature=temperature, gumbel=True)


def without_label(log_mean: Tensor, labels: Tensor) -> Tensor:
    """log p̄ with −inf for the label, so that what is the most likely class, or the sum, is of the others."""
    return log_mean.scatter(1, labels[:, None], -torch.inf)


def strongest_rival(log_mean: Tensor, labels: Tensor) -> Tensor:
    """The most likely class other than the label, (examples,) int64."""
    return without_label(log_mean, labels).argmax(dim=1)


def likeliest_rivals(log_mean: Tensor, labels: Tensor, count: int) -> Tensor:
    """The `count` most likely classes other than the label, most likely first: (examples, count) int64."""
    # An impossible class still comes before the label.
    possible = log_mean.clamp(min=torch.finfo(log_mean.dtype).min)
    return without_label(possible, labels).topk(count, dim=1).indices


def log_of_others(log_mean: Tensor, labels: Tensor) -> Tensor:
    """log (1 − p̄_label), (examples,)."""
    return torch.logsumexp(without_label(log_mean, labels), dim=1)


@dataclass(frozen=True)
class LogRatio(Objective):
    """log p̄_label − log p̄_rival with q the softmax: it has a gradient however confident the model is.

    The rival is the most likely other class of the pilot.
    """

    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        sign = label_against_rival(log_mean, labels)
        return -log_mean, sign


@dataclass(frozen=True)
class GumbelGap(Objective):
    """The paper's objective: p̄_label − p̄_rival with q a Gumbel–softmax draw (Eq. gumbel).

    At the published temperature of 1/100 it is all but saturated on well-classified images. The published code
    takes the straight-through form, hard draws forward and soft ones backward. The objective is linear in the
    draws, so both forms have the same gradient, and the votes are hard in either case.
    """

    temperature: float = 0.01
    gumbel: bool = True

    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        return torch.zeros_like(log_mean), label_against_rival(log_mean, labels)


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """The direction of the cross-entropy −log p̄_label, for attacks that use only its direction.

    J = log(1 − p̄_label), which grows in the same direction and, unlike the cross-entropy itself, does not vanish
    where the model is certain. Its slopes are the same for every class but the label.
    """

    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        sign = torch.ones_like(log_mean).scatter_(1, labels[:, None], 0.0)
        return -log_of_others(log_mean, labels)[:, None].expand_as(log_mean), sign

    def to_reach(self) -> Objective:
        return LogOdds()

    def on_draws(self, temperature: float) -> Objective:
        # Draws in the logits' place do not sum to one as e^z.
        return Reversed(LogOdds()).on_draws(temperature)


@dataclass(frozen=True)
class LogOdds(Objective):
    """log p̄_c/(1 − p̄_c) of a class, which grows in the direction in which its cross-entropy falls, and vanishes
    neither where the class is all but impossible nor where it is all but certain."""

    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        is_label = torch.zeros_like(log_mean, dtype=torch.bool).scatter_(1, labels[:, None], True)
        log_slope = torch.where(is_label, -log_mean, -log_of_others(log_mean, labels)[:, None])
        return log_slope, torch.where(is_label, torch.ones_like(log_mean), -1.0)


@dataclass(frozen=True)
class Reversed(Objective):
    """The negative of an objective."""

    objective: Objective

    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        log_slope, sign = self.objective.slopes(log_mean, labels)
        return log_slope, -sign

    def of(self, rows: slice) -> Objective:
        return replace(self, objective=self.objective.of(rows))


@dataclass(frozen=True)
class OnDraws(Objective):
    """An objective J(z) at z = p̄, the mean Gumbel–softmax draw (see `Objective.on_draws`)."""

    objective: Objective

    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        z = log_mean.exp()
        log_slope, sign = self.objective.slopes(z, labels)
        return log_slope + z, sign  # ∂J/∂z: of an objective of p̄ = e^z, `slopes` has it divided by e^z

    def of(self, rows: slice) -> Objective:
        return replace(self, objective=self.objective.of(rows))


@dataclass(frozen=True)
class OneOfTwo(Objective):
    """`second` for the examples where `chosen`, (examples,) bool, and `first` for the others; both of the same soft
    predictions."""

    first: Objective
    second: Objective
    chosen: Tensor

    def slopes(self, log_mean: Tensor, labels: Tensor) -> Slopes:
        first, second = self.first.slopes(log_mean, labels), self.second.slopes(log_mean, labels)
        chosen = self.chosen[:, None]
        return torch.where(chosen, second[0], first[0]), torch.where(chosen, second[1], first[1])

    def of(self, rows: slice) -> Objective:
        return replace(self, first=self.first.of(rows), second=self.second.of(rows), chosen=self.chosen[rows])

    def on_draws(self, temperature: float) -> Objective:
        first, second = self.first.on_draws(temperature), self.second.on_draws(temperature)
        return OneOfTwo(first, second, self.chosen, temperature=temperature, gumbel=True)


def logit_margin(log_mean: Tensor, labels: Tensor) -> Tensor:
    """m = z_label − max of the other z, (examples,): negative where the label has lost."""
    return log_mean.gather(1, labels[:, None])[:, 0] - without_label(log_mean, labels).amax(dim=1)


def odds_against(log_mean: Tensor, labels: Tensor) -> Tensor:
    """log (1 − p̄_label)/p̄_label, (examples,): increases with the cross-entropy, and stays precise where that is
    almost zero."""
    return log_of_others(log_mean, labels) - log_mean.gather(1, labels[:, None])[:, 0]


def rivals_over_label(log_mean: Tensor, labels: Tensor, rivals: Tensor, on_draws: bool = False) -> Slopes:
    """The slopes of log p̄_rival − log p̄_label for each of the given rivals, (examples, R): log |∂J/∂p̄|, the same for
    all, (1, examples, classes), and the signs (R, examples, classes). on_draws: of p̄_rival − p̄_label."""
    sign = torch.zeros_like(log_mean).scatter_(1, labels[:, None], -1.0)
    log_slope = torch.zeros_like(log_mean) if on_draws else -log_mean
    return log_slope[None], sign.expand(rivals.shape[1], -1, -1).scatter(2, rivals.T[:, :, None], 1.0)


def rival_over_label(log_mean: Tensor, labels: Tensor, rivals: Tensor) -> Slopes:
    """The slopes of log p̄_rival − log p̄_label for one rival each, (examples,), or of log (1 − p̄_label) where that is
    ANY_CLASS; each part (1, examples, classes)."""
    any_class = (rivals == ANY_CLASS)[:, None]
    log_slope = -torch.where(any_class, log_of_others(log_mean, labels)[:, None], log_mean)
    sign = any_class.to(log_mean.dtype).repeat(1, log_mean.shape[1])
    of_label = sign[:, :1] - 1.0
    sign.scatter_(1, rivals.clamp(min=0)[:, None], 1.0).scatter_(1, labels[:, None], of_label)
    return log_slope[None], sign[None]


def label_against_rival(log_mean: Tensor, labels: Tensor) -> Tensor:
    """1 for the label, −1 for the most likely other class and 0 for the others, (examples, classes)."""
    sign = torch.zeros_like(log_mean)
    sign.scatter_(1, labels[:, None], 1.0)
    return sign.scatter_(1, strongest_rival(log_mean, labels)[:, None], -1.0)


def log_mean_probability(log_probabilities: Tensor) -> Tensor:
    """log of the mean probability over the samples: (examples, samples, classes) → (examples, classes)."""
    return torch.logsumexp(log_probabilities, dim=1) - math.log(log_probabilities.shape[1])


def cotangent(log_probabilities: Tensor, slopes: Slopes, scale: float) -> Tensor:
    """∂J/∂logits, (functions, examples, samples, classes), for the `slopes` of functions J at p̄; `scale` is
    1/(n · temperature)."""
    log_slope, sign = (part[:, :, None] for part in slopes)
    # A sample whose probability exceeds the pilot's mean by e³⁰ outweighs all others with or without the clamp, which
    # keeps the square of the gradient's length within float32. An impossible class, of −∞ + ∞, has no say.
    b = sign * torch.exp(torch.clamp(log_probabilities + log_slope, max=30.0)).nan_to_num_(nan=0.0)
    b *= scale
    return b - log_probabilities.exp() * b.sum(dim=3, keepdim=True)

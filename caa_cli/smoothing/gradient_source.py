"""What a gradient source is: how the classifier asks for gradients, what it gets back, and what that costs.

The classifier owns votes and noise. A gradient source owns how a pass with gradients is made and what it costs;
`SmoothedClassifier(model, gradients=…)` takes one (see `smoothing.gradients` and `smoothing.stein`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from caa_cli.smoothing.noise import Key
from caa_cli.smoothing.objective import Objective, Slopes
from caa_cli.smoothing.sampling import NoisyModel

# The samples whose mean prediction linearises the objective. On smoothed MNIST models the gradient is within a
# fraction of a degree of the one that takes all 1,500 (docs/method/engine.md).
PILOT = 128


@dataclass(frozen=True)
class GradientRequest:
    """What a pass with gradients has to compute: the gradients of `count` functions J of the class probabilities.

    soft: how logits become soft predictions q, whose mean over the samples is p̄.
    slopes: (log p̄ (rows, classes) of a range of the examples, that range) → ∂J/∂p̄ of every J there; each part
    (count, rows, classes), or (1, rows, classes) where it is the same for all of them.
    pilot: how many samples the p̄ is the mean of at which the slopes are taken.
    along: (examples, dimensions) the directions of `GradientPass.moments`; None: there are no moments.
    log_mean: whether `GradientPass.log_mean` is wanted.
    denoise: whether an estimator filters its noise out of the gradient. A caller that averages several gradients
    filters the average instead.
    """

    soft: Objective
    slopes: Callable[[Tensor, slice], Slopes]
    count: int = 1
    pilot: int = PILOT
    along: Tensor | None = None
    log_mean: bool = True
    denoise: bool = False


@dataclass
class GradientPass:
    """Gradients over n noise samples of each example, with the votes of the same samples.

    votes: (examples, classes) int64, of the classifier that is attacked.
    gradient: (examples, count, *input_shape) float32, ∂J/∂x of each function; `SmoothedClassifier.surrogate` and
    `towards` drop the second axis.
    forward_evaluations: (examples,) int64 model evaluations, on the CPU; a pilot's samples that memory did not allow
    to keep are evaluated twice, and count twice. backward_evaluations: the same number for every example.
    log_mean: (examples, classes) float32, log p̄: the log of the mean soft prediction over all n samples, the
    smoothed logits. −inf for every class where all samples abstained, or where it was not asked for.
    moments: (examples, classes + 1) float32, the mean over the samples of 1{vote = c} ⟨noise, direction⟩ where a
    direction was given, else 0. Divided by σ² it estimates the derivative of p_c along it (Stein's lemma). The last
    is of samples that abstain, so that the sum is the mean of ⟨noise, direction⟩.
    variance: (examples, count) float32, of the noise in every pixel of an estimated gradient; None of an exact one.
    """

    votes: Tensor
    gradient: Tensor
    forward_evaluations: Tensor
    backward_evaluations: int
    log_mean: Tensor
    moments: Tensor
    variance: Tensor | None = None

    def single(self) -> GradientPass:
        """The same pass with one gradient an example, without the axis of the functions."""
        variance = None if self.variance is None else self.variance[:, 0]
        return replace(self, gradient=self.gradient[:, 0], variance=variance)


@dataclass(frozen=True)
class GradientCost:
    """What gradients cost. forward, backward: model evaluations of a noise sample, `backward` for each gradient.

    vectors: of an image's size that a pass keeps for each of its points, beyond a chunk and the gradients themselves.
    """

    forward: int
    backward: int
    vectors: int = 0

    @property
    def differentiates(self) -> bool:
        """Whether there are backward passes."""
        return self.backward > 0

    def evaluations(self, samples: int, gradients: int = 1) -> tuple[int, int]:
        """(forward, backward) evaluations of so many samples with this number of gradients each."""
        return samples * self.forward, samples * gradients * self.backward


class GradientSource(ABC):
    """How a pass with gradients is made. The classifier passes itself in: its noise, its chunks and its votes."""

    cost: ClassVar[GradientCost]

    def move_to(self, device: torch.device, dtype: torch.dtype) -> None:  # noqa: B027
        """Moves the source's weights, if it has any, to where the classifier works."""

    def lay_out(self, memory_format: torch.memory_format) -> None:  # noqa: B027
        """Puts the source's weights, if it has any, in this layout, as `SmoothedClassifier.lay_out` does."""

    @abstractmethod
    def differentiated(self, classifier: NoisyModel) -> nn.Module | None:
        """The model that is differentiated; None where gradients come from votes."""

    @abstractmethod
    def gradients(
        self, classifier: NoisyModel, x: Tensor, keys: Sequence[Key], samples: int, request: GradientRequest
    ) -> GradientPass:
        """The gradients that `request` asks for at x (examples, *input_shape)."""

    @abstractmethod
    def log_mean(self, classifier: NoisyModel, x: Tensor, keys: Sequence[Key], samples: int) -> Tensor:
        """The smoothed logits log p̄ of the softmax: (examples, classes) float32."""

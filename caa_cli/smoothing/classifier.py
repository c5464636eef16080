"""The smoothed classifier: votes over noise, and gradients of smooth functions of its mean prediction."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from caa_cli.runtime.defaults import usual_defaults
from caa_cli.runtime.words import counted, sizes
from caa_cli.smoothing.arguments import checked_sigma
from caa_cli.smoothing.frozen import frozen
from caa_cli.smoothing.gradient_source import PILOT, GradientPass, GradientRequest, GradientSource
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.noise import Key
from caa_cli.smoothing.objective import GumbelGap, LogRatio, Objective, Slopes, rival_over_label, rivals_over_label
from caa_cli.smoothing.recompute import graph_bytes
from caa_cli.smoothing.sampling import NoisyModel


class SmoothedClassifier(NoisyModel):
    """f smoothed with N(0, σ²): g(x) = the class that f(x + noise) takes most often.

    Votes are those of `model`; `gradients` says where gradients come from: the model itself (`WhiteBox`), another
    one (`SurrogateModel`), or the votes (`SteinEstimator`).
    """

    @usual_defaults()
    def __init__(
        self,
        model: nn.Module,
        *,
        sigma: float,
        num_classes: int,
        input_shape: Sequence[int],
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
        gradients: GradientSource | None = None,
        **chunks: int,
    ) -> None:
        """input_shape: (channels, height, width) of an image. device: None: where the model is. gradients: None: the
        model's own.

        The model is moved to the device and put into evaluation mode, and its parameters take no gradients any more.
        chunks: votes_chunk and gradient_chunk, as `NoisyModel` takes them.
        """
        super().__init__(
            model, sigma=sigma, num_classes=num_classes, input_shape=input_shape, device=device, dtype=dtype, **chunks
        )
        self.gradients: GradientSource = WhiteBox() if gradients is None else gradients
        self.gradients.move_to(self.device, self.dtype)
        self._search: SmoothedClassifier | None = None
        # The name under which measured chunk sizes are kept.
        self.arch = type(model).__name__
        # By number; empty where they are not known.
        self.class_names: tuple[str, ...] = ()
        # Where the chunk sizes come from, for the record.
        self.chosen = "set"

    def __repr__(self) -> str:
        shape, dtype = sizes(self.input_shape), str(self.dtype).removeprefix("torch.")
        name = f"{type(self).__name__}: {self.arch}, σ = {self.sigma:g}"
        return f"<{name}, {counted(self.num_classes, 'class')} of {shape} images, {dtype} on {self.device}>"

    @property
    def search(self) -> SmoothedClassifier:
        """What a search evaluates: this classifier, or the copy of another precision that `searched_in` made."""
        return self._search or self

    def searched_in(self, dtype: torch.dtype) -> SmoothedClassifier:
        """The same classifier with a `search` of its own: a second copy of the weights, in another precision, on the
        same noise. The source of gradients goes with the copy."""
        other, search = copy.copy(self), copy.copy(self)
        search.model, search.dtype = frozen(copy.deepcopy(self.model), self.device, dtype), dtype
        search.gradients = other.gradients = copy.deepcopy(self.gradients)
        search.gradients.move_to(self.device, dtype)
        other._search, search._search = search, None
        return other

    def with_sigma(self, sigma: float) -> SmoothedClassifier:
        """The same classifier smoothed with another σ; the model is shared, the chunk sizes are not."""
        if sigma == self.sigma:
            return self
        other = copy.copy(self)
        other.sigma = checked_sigma(sigma)
        other._search = None if self._search is None else self._search.with_sigma(sigma)
        return other

    def lay_out(self, memory_format: torch.memory_format) -> None:
        """Puts weights and inputs in this layout: contiguous or channels-last, whichever is faster for the model. The
        noise stays the same; logits may change in their last bits."""
        self.model.to(memory_format=memory_format)
        self.memory_format = memory_format
        self.gradients.lay_out(memory_format)

    def describe(self) -> dict[str, object]:
        """Chunk sizes and layout, for the record; they change no result beyond its last bits."""
        return {
            "votes_chunk": self.votes_chunk,
            "gradient_chunk": self.gradient_chunk,
            "memory_format": "channels_last" if self.memory_format == torch.channels_last else "contiguous",
            "chosen": self.chosen,
            **({"activations": "recomputed"} if self.recomputes else {}),
            **({"search": self._search.describe()} if self._search is not None else {}),
        }

    @property
    def differentiates(self) -> bool:
        """Whether gradients take backward passes; else they come from votes."""
        return self.gradients.cost.differentiates

    @property
    def differentiated(self) -> nn.Module:
        return self.gradients.differentiated(self) or self.model

    @property
    def search_chunk(self) -> int:
        """The most noise samples at a time in a pass with gradients; those from votes obey the votes' limit."""
        return self.gradient_chunk if self.differentiates else self.votes_chunk

    def waiting_bytes(self, samples: int) -> int:
        """About the memory that a pass with gradients takes beyond a chunk's, for the graphs of its pilot."""
        pilot = min(samples, PILOT)
        if not self.differentiates or pilot <= self.gradient_chunk:
            return 0
        beyond = min(pilot, self.limit_graphs()) - self.gradient_chunk
        return max(0, beyond) * graph_bytes(self.differentiated, self.grey())

    def surrogate(
        self,
        x: Tensor,
        labels: Tensor,
        keys: Sequence[Key],
        samples: int,
        objective: Objective,
        pilot: int = PILOT,
    ) -> GradientPass:
        """The gradient of `objective` at x, with the votes of the same samples; `gradient` is like x.

        The objective's slopes ∂J/∂p̄ are taken at the mean prediction of the first `pilot` samples, whatever the
        chunk size; with pilot = samples the result is the gradient of J itself.
        """

        def slopes(log_mean: Tensor, rows: slice) -> Slopes:
            log_slope, sign = objective.of(rows).slopes(log_mean, labels[rows])
            return log_slope[None], sign[None]

        request = GradientRequest(objective, slopes, pilot=pilot, denoise=True)
        return self.gradients.gradients(self, x, keys, samples, request).single()

    @usual_defaults()
    def votes(self, x: Tensor, samples: int = 1000, seed: int = 0) -> Tensor:
        """How many of `samples` noise draws each class gets: x (examples, *input_shape) → (examples, classes) int64.

        The noise is chosen by `seed` and the example's position, so that the same call gives the same votes. A draw
        whose logits hold a NaN abstains: a row then sums to less than `samples`.
        """
        return self.keyed_votes(x, Key.direct(len(x), seed), samples)

    @usual_defaults()
    def gradient(
        self, x: Tensor, labels: Tensor, samples: int = 1000, objective: Objective | None = None, seed: int = 0
    ) -> Tensor:
        """The gradient of a smooth function of the mean prediction, float32 like x, (examples, *input_shape).

        labels: (examples,) int64. objective: None: log p̄_label − log p̄_rival, which an attack decreases; the rival
        is the most likely other class. The noise is that of `votes` with the same seed.
        """
        x = self.on_device(x)
        labels = self.labels_on_device(labels, len(x))
        self.check_samples(samples)
        passed = self.surrogate(x, labels, Key.direct(len(x), seed), samples, objective or LogRatio(), pilot=samples)
        return passed.gradient

    def rival_gradients(
        self,
        x: Tensor,
        labels: Tensor,
        rivals: Tensor,
        keys: Sequence[Key],
        samples: int,
        draws_at: float | None = None,
    ) -> GradientPass:
        """The gradients of log p̄_rival − log p̄_label for several rivals: rivals (examples, R) int64.

        `gradient` is (examples, R, *input_shape); R backward passes go with the one forward pass.
        draws_at: the gradients of p̄_rival − p̄_label instead, of Gumbel–softmax draws at this temperature.
        """

        soft: Objective = LogRatio() if draws_at is None else GumbelGap(temperature=draws_at)

        def slopes(log_mean: Tensor, rows: slice) -> Slopes:
            return rivals_over_label(log_mean, labels[rows], rivals[rows], soft.gumbel)

        request = GradientRequest(soft, slopes, rivals.shape[1])
        return self.gradients.gradients(self, x, keys, samples, request)

    def towards(
        self, x: Tensor, labels: Tensor | None, rivals: Tensor, keys: Sequence[Key], samples: int, along: Tensor
    ) -> GradientPass:
        """The gradient of log p̄_rival − log p̄_label for one rival each, rivals (examples,) int64; `gradient` is like
        x. `log_mean` is not computed. Where the rival is ANY_CLASS it is the gradient of log (1 − p̄_label).

        labels: None: each rival over the most likely other class of the pilot.
        along: (examples, dimensions) the directions that `moments` are wanted for.
        """

        def slopes(log_mean: Tensor, rows: slice) -> Slopes:
            if labels is None:
                log_slope, sign = LogRatio().slopes(log_mean, rivals[rows])
                return log_slope[None], sign[None]
            return rival_over_label(log_mean, labels[rows], rivals[rows])

        request = GradientRequest(LogRatio(), slopes, along=along, log_mean=False)
        return self.gradients.gradients(self, x, keys, samples, request).single()

    def log_mean(self, x: Tensor, keys: Sequence[Key], samples: int) -> Tensor:
        """The smoothed logits log p̄ of the softmax alone, without a gradient: (examples, classes) float32."""
        return self.gradients.log_mean(self, x, keys, samples)

"""The smoothed classifier: votes and surrogate gradients over noise drawn in chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from caa_cli.smoothing.chunks import Piece
from caa_cli.smoothing.noise import Key
from caa_cli.smoothing.noisy import NoisyModel
from caa_cli.smoothing.objective import (
    LogRatio,
    Objective,
    Slopes,
    cotangent,
    log_mean_probability,
    rival_over_label,
)


@dataclass
class SurrogatePass:
    """One forward and backward pass over n noise samples of each example.

    votes: (examples, classes) int64, counted on the very samples that the gradient comes from.
    gradient: like x, ∂J/∂x of the objective, float32.
    forward_evaluations: (examples,) int64: n, and the pilot's where a chunk was too small to hold it.
    log_mean: (examples, classes) float32, log p̄: the log of the mean soft prediction over all n samples, the
    smoothed logits. −inf for every class where all samples abstained.
    moments: (examples, classes) float32, the mean over the samples of 1{vote = c} ⟨noise, direction⟩ where a
    direction was given, else 0. Divided by σ² it estimates the derivative of p_c along it (Stein's lemma).
    """

    votes: Tensor
    gradient: Tensor
    forward_evaluations: Tensor
    log_mean: Tensor
    moments: Tensor
    variance: Tensor | None = None


class SmoothedClassifier(NoisyModel):
    """f smoothed with N(0, σ²): g(x) = the class that f(x + noise) takes most often."""

    # The samples whose mean prediction linearises the objective. On smoothed MNIST models the gradient is within
    # a fraction of a degree of the one that takes all 1,500 (docs/engine.md).
    PILOT = 128
    # Whether gradients take backward passes, to be counted.
    differentiates = True

    @property
    def gradient_model(self) -> nn.Module:
        """The model whose soft predictions and gradients are taken; votes are those of `model`."""
        return self.model

    def votes(self, x: Tensor, keys: Sequence[Key], samples: int, start: int = 0) -> Tensor:
        """Hard votes of `samples` noise draws: x (examples, *input_shape) → (examples, classes) int64.

        start: how many draws of these keys have been counted before. A draw whose logits hold a NaN abstains: a row
        then sums to less than `samples`.
        """
        counts = self._no_counts(len(x))

        def process(piece: Piece) -> None:
            noisy = self.noisy(x, keys, piece)
            with torch.inference_mode():
                winner = winners(self.model(noisy), piece)
            counts[piece.examples].scatter_add_(1, winner, torch.ones_like(winner))

        self.votes_chunk = self.run(process, len(x), samples, self.votes_chunk, start)
        return counts[:, : self.num_classes]

    def surrogate(
        self,
        x: Tensor,
        labels: Tensor,
        keys: Sequence[Key],
        samples: int,
        objective: Objective,
        pilot: int | None = None,
    ) -> SurrogatePass:
        """The gradient of `objective` at x, with the votes of the same samples.

        The objective's slopes ∂J/∂p̄ are taken at the mean prediction of the first `pilot` samples, whatever the
        chunk size; with pilot = samples the result is the gradient of J itself. The pilot costs no model
        evaluation unless a chunk is smaller than it.
        """

        def slopes(log_mean: Tensor, rows: slice) -> list[Slopes]:
            return [objective.slopes(log_mean, labels[rows])]

        passed = self._gradients(x, keys, samples, objective, slopes, 1, pilot)
        return replace(passed, gradient=passed.gradient[:, 0])

    def rival_gradients(
        self,
        x: Tensor,
        labels: Tensor,
        rivals: Tensor,
        keys: Sequence[Key],
        samples: int,
        along: Tensor | None = None,
    ) -> SurrogatePass:
        """The gradients of log p̄_rival − log p̄_label for several rivals: rivals (examples, R) int64.

        As `surrogate`, but `gradient` is (examples, R, *input_shape), and R backward passes go with the forward
        one. A chunk's graph is freed before the next chunk, so memory does not grow with the samples here either.
        along: (examples, dimensions) the directions that `moments` are wanted for.
        """

        def slopes(log_mean: Tensor, rows: slice) -> list[Slopes]:
            return [rival_over_label(log_mean, labels[rows], rival) for rival in rivals[rows].unbind(dim=1)]

        return self._gradients(x, keys, samples, LogRatio(), slopes, rivals.shape[1], None, along)

    def towards(
        self, x: Tensor, labels: Tensor, rivals: Tensor, keys: Sequence[Key], samples: int, along: Tensor
    ) -> SurrogatePass:
        """`rival_gradients` for one rival each, rivals (examples,) int64; `gradient` is like x."""
        passed = self.rival_gradients(x, labels, rivals[:, None], keys, samples, along)
        return replace(passed, gradient=passed.gradient[:, 0])

    def log_mean(self, x: Tensor, keys: Sequence[Key], samples: int) -> Tensor:
        """The smoothed logits log p̄ of the softmax alone, without a gradient: (examples, classes) float32."""
        log_sum = torch.full((len(x), self.num_classes), -torch.inf, dtype=torch.float64, device=self.device)

        def process(piece: Piece) -> None:
            noisy = self.noisy(x, keys, piece)
            with torch.inference_mode():
                log_q = self._log_q(self.gradient_model(noisy), keys, piece, LogRatio())
                log_sum[piece.examples] = torch.logaddexp(
                    log_sum[piece.examples], torch.logsumexp(log_q.double(), dim=1)
                )

        self.votes_chunk = self.run(process, len(x), samples, self.votes_chunk)
        return (log_sum - math.log(samples)).float()

    def _gradients(
        self,
        x: Tensor,
        keys: Sequence[Key],
        samples: int,
        soft: Objective,
        slopes_at: Callable[[Tensor, slice], list[Slopes]],
        count: int,
        pilot: int | None,
        along: Tensor | None = None,
    ) -> SurrogatePass:
        """`count` gradients from one forward pass: `slopes_at` gives the slopes of each for a range of examples, at
        the pilot's log p̄. `soft` says what the soft predictions are."""
        pilot = min(samples, self.PILOT if pilot is None else pilot)
        counts = self._no_counts(len(x))
        gradient = torch.zeros((len(x), count, *self.input_shape), device=self.device)
        log_sum = torch.full((len(x), self.num_classes), -torch.inf, dtype=torch.float64, device=self.device)
        moments = torch.zeros((len(x), self.num_classes + 1), device=self.device)
        evaluations = torch.full((len(x),), samples, dtype=torch.int64, device=self.device)
        slopes: dict[tuple[int, int], list[Slopes]] = {}
        scale = 1.0 / (samples * soft.temperature)

        def process(piece: Piece) -> None:
            rows = piece.examples
            whose = (rows.start, rows.stop)
            if whose not in slopes and not piece.holds_first(pilot):
                slopes[whose] = slopes_at(self._pilot_log_mean(x, keys, piece, pilot, soft), rows)
                evaluations[rows] += pilot
            noisy = self.noisy(x, keys, piece).requires_grad_(True)
            with torch.enable_grad():
                logits = self.gradient_model(noisy)
            log_q = self._log_q(logits.detach(), keys, piece, soft)
            if whose not in slopes:
                slopes[whose] = slopes_at(log_mean_probability(log_q[:, :pilot]), rows)
            total = torch.empty((piece.num_examples, count, *self.input_shape), device=self.device)
            for place, at_mean in enumerate(slopes[whose]):
                at_logits = cotangent(log_q, at_mean, scale).flatten(0, 1).to(logits.dtype)
                (at_inputs,) = torch.autograd.grad(logits, noisy, at_logits, retain_graph=place < count - 1)
                # A sample that abstains has no say in the gradient either.
                at_inputs = torch.nan_to_num(at_inputs, nan=0.0).float()
                total[:, place] = at_inputs.view(piece.num_examples, piece.num_samples, *self.input_shape).sum(dim=1)
            # In float64, so that the order of the pieces leaves no trace.
            log_total = torch.logaddexp(log_sum[rows], torch.logsumexp(log_q.double(), dim=1))
            winner = self._winners_beside(logits.detach(), noisy.detach(), piece)
            one = torch.ones_like(winner)
            lengths = None if along is None else _lengths(noisy.detach(), x, along, piece) / samples
            # From here on nothing is allocated that a lack of memory could refuse.
            counts[rows].scatter_add_(1, winner, one)
            if lengths is not None:
                moments[rows].scatter_add_(1, winner, lengths)
            log_sum[rows] = log_total
            gradient[rows] += total

        self.gradient_chunk = self.run(process, len(x), samples, self.gradient_chunk)
        log_mean = (log_sum - math.log(samples)).float()
        return SurrogatePass(
            counts[:, : self.num_classes], gradient, evaluations, log_mean, moments[:, : self.num_classes]
        )

    def _winners_beside(self, logits: Tensor, noisy: Tensor, piece: Piece) -> Tensor:
        """The target's votes on the samples whose gradients are taken; logits: the gradient model's."""
        return winners(logits, piece)

    def _no_counts(self, examples: int) -> Tensor:
        """One column a class, and a last one for abstentions."""
        return torch.zeros((examples, self.num_classes + 1), dtype=torch.int64, device=self.device)

    def _log_q(self, logits: Tensor, keys: Sequence[Key], piece: Piece, objective: Objective) -> Tensor:
        """Soft predictions of a piece's samples: log q, (examples, samples, classes) float32."""
        shaped = logits.float().view(piece.num_examples, piece.num_samples, self.num_classes)
        if objective.gumbel:
            draws = torch.empty_like(shaped)
            self.noise.gumbel(draws, keys[piece.examples], piece.samples.start)
            shaped = torch.log_softmax(shaped, dim=2) + draws
        log_q = torch.log_softmax(shaped / objective.temperature, dim=2)
        # An abstaining sample has no probability for any class.
        return torch.where(log_q.isnan(), -torch.inf, log_q)

    def _pilot_log_mean(self, x: Tensor, keys: Sequence[Key], piece: Piece, pilot: int, soft: Objective) -> Tensor:
        """log p̄ of the pilot for a piece that does not hold the whole of it: extra forward passes."""
        parts = []
        for part in piece.first(pilot).cut(piece.size, self.noise.block):
            with torch.no_grad():
                logits = self.gradient_model(self.noisy(x, keys, part))
            parts.append(self._log_q(logits, keys, part, soft))
        return log_mean_probability(torch.cat(parts, dim=1))


def winners(logits: Tensor, piece: Piece) -> Tensor:
    """Each sample's vote, (examples, samples) int64; one beyond the last class is an abstention."""
    # The maximum is NaN if any logit is; argmax alone would make that NaN a vote.
    top, winner = logits.max(dim=1)
    winner = torch.where(top.isnan(), logits.shape[1], winner)
    return winner.view(piece.num_examples, piece.num_samples)


def _lengths(noisy: Tensor, x: Tensor, along: Tensor, piece: Piece) -> Tensor:
    """⟨noise, direction⟩ of each sample, (examples, samples) float32."""
    rows = piece.examples
    seen = noisy.float().reshape(piece.num_examples, piece.num_samples, -1) @ along[rows, :, None]
    return seen[..., 0] - (x[rows].flatten(1) * along[rows]).sum(dim=1, keepdim=True)

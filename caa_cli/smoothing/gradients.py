"""Gradients by a backward pass, of the classifier's own model or of a surrogate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from caa_cli.smoothing.chunks import Piece
from caa_cli.smoothing.frozen import frozen
from caa_cli.smoothing.gradient_source import GradientCost, GradientPass, GradientRequest, GradientSource
from caa_cli.smoothing.noise import Key
from caa_cli.smoothing.objective import LogRatio, Slopes, cotangent
from caa_cli.smoothing.pilot import Pilot
from caa_cli.smoothing.sampling import NoisyModel
from caa_cli.smoothing.soft_model import Evaluated, SoftModel
from caa_cli.smoothing.votes import count_votes, votes_of


class WhiteBox(GradientSource):
    """The classifier's own gradients: one forward and one backward pass give votes and gradient."""

    cost = GradientCost(forward=1, backward=1)

    def differentiated(self, classifier: NoisyModel) -> nn.Module:
        return classifier.model

    def gradients(
        self, classifier: NoisyModel, x: Tensor, keys: Sequence[Key], samples: int, request: GradientRequest
    ) -> GradientPass:
        return differentiate(classifier, classifier.model, x, keys, samples, request)

    def log_mean(self, classifier: NoisyModel, x: Tensor, keys: Sequence[Key], samples: int) -> Tensor:
        return mean_softmax(classifier, classifier.model, x, keys, samples)


class SurrogateModel(GradientSource):
    """The gradients of another model of the same images and classes; votes are the classifier's.

    Both see the same noisy samples. Soft predictions are the surrogate's, and with them the class that an objective
    takes for the rival. The smoothed logits that come with a gradient are the classifier's as far as its votes go:
    log (votes + q̄)/(n + 1), with the surrogate's mean prediction q̄ in the weight of one vote, so that classes
    without votes have an order.
    """

    # One evaluation of either model.
    cost = GradientCost(forward=2, backward=1)

    def __init__(self, model: nn.Module) -> None:
        """model: maps inputs to logits as the classifier's model does."""
        self.model = model

    def move_to(self, device: torch.device, dtype: torch.dtype) -> None:
        self.model = frozen(self.model, device, dtype)

    def lay_out(self, memory_format: torch.memory_format) -> None:
        self.model.to(memory_format=memory_format)

    def differentiated(self, classifier: NoisyModel) -> nn.Module:
        return self.model

    def gradients(
        self, classifier: NoisyModel, x: Tensor, keys: Sequence[Key], samples: int, request: GradientRequest
    ) -> GradientPass:
        passed = differentiate(classifier, self.model, x, keys, samples, request)
        return replace(
            passed,
            forward_evaluations=passed.forward_evaluations + samples,
            log_mean=torch.logaddexp(passed.votes.float().log(), passed.log_mean) - math.log(samples + 1),
        )

    def log_mean(self, classifier: NoisyModel, x: Tensor, keys: Sequence[Key], samples: int) -> Tensor:
        return mean_softmax(classifier, self.model, x, keys, samples)


def differentiate(
    classifier: NoisyModel,
    model: nn.Module,
    x: Tensor,
    keys: Sequence[Key],
    samples: int,
    request: GradientRequest,
) -> GradientPass:
    """The gradients of functions of the mean soft prediction of `model`, from one forward pass.

    The slopes are taken at the mean prediction of the pilot, which costs no evaluation unless its graphs don't fit in
    memory. A chunk's graph is freed before the next chunk, so memory does not grow with the samples.
    """
    count, along = request.count, request.along
    pilot = Pilot(SoftModel(classifier, model, x, keys, request.soft), request.pilot, samples)
    counts = classifier.no_counts(len(x))
    gradient = torch.zeros((len(x), count, *classifier.input_shape), device=classifier.device)
    # In float64, so that no order of addition leaves a trace: that of the pieces, or of a GPU's samples.
    log_sum = _no_log_sum(classifier, len(x))
    moments = torch.zeros((len(x), classifier.num_classes + 1), dtype=torch.float64, device=classifier.device)
    evaluations = torch.full((len(x),), samples)
    slopes: dict[tuple[int, int], Slopes] = {}
    scale = 1.0 / (samples * request.soft.temperature)

    def process(piece: Piece) -> None:
        rows = piece.examples
        key = (rows.start, rows.stop)
        if key not in slopes:
            log_mean, again = pilot.log_mean(piece)
            slopes[key] = request.slopes(log_mean, rows)
            evaluations[rows] += again
        evaluated = pilot.evaluate(piece)
        total = _summed_gradients(evaluated, cotangent(evaluated.log_q, slopes[key], scale))
        log_total = torch.logsumexp(evaluated.log_q.double(), dim=1) if request.log_mean else None
        inputs, logits = evaluated.noisy.detach(), evaluated.logits.detach()
        # Before the vote: a model may overwrite what it is given.
        lengths = None if along is None else _lengths(inputs, x, along, piece) / samples
        winner = votes_of(logits, piece) if model is classifier.model else classifier.vote(inputs, piece)
        # No allocation below: retrying after out-of-memory must not count twice.
        count_votes(counts[rows], winner)
        if lengths is not None:
            moments[rows].scatter_add_(1, winner, lengths)
        if log_total is not None:
            torch.logaddexp(log_sum[rows], log_total, out=log_sum[rows])
        gradient[rows].add_(total)

    chunk = classifier.gradient_chunk
    classifier.gradient_chunk = classifier.run(process, len(x), samples, chunk, release=pilot.release)
    log_mean = (log_sum - math.log(samples)).float()
    classes = classifier.num_classes
    return GradientPass(counts[:, :classes], gradient, evaluations, samples * count, log_mean, moments.float())


def _summed_gradients(evaluated: Evaluated, at_logits: Tensor) -> Tensor:
    """The gradients of several functions at the image of each example, summed over a piece's samples: (examples,
    functions, *input_shape) float32, from those at the logits, (functions, examples, samples, classes)."""
    count, examples, samples, _ = at_logits.shape
    shape = evaluated.noisy.shape[1:]
    total = torch.empty((examples, count, *shape), device=at_logits.device)
    for number, of_samples in enumerate(at_logits.flatten(1, 2)):
        at_inputs = _at_inputs(evaluated, of_samples, retain_graph=number < count - 1)
        torch.sum(at_inputs.view(examples, samples, *shape), dim=1, out=total[:, number])
    return total


def _at_inputs(evaluated: Evaluated, at_logits: Tensor, retain_graph: bool) -> Tensor:
    """The gradient at a piece's noisy inputs, float32, from the one at its logits, (piece.size, classes) float32."""
    logits, noisy, half = evaluated.logits, evaluated.noisy, evaluated.noisy.dtype == torch.float16
    if half:  # its numbers end at 6·10⁻⁸ and 65,504, so every sample's backward pass begins with 1
        largest = at_logits.abs().amax(dim=1, keepdim=True).clamp(min=1e-30)
        at_logits = at_logits / largest
    (at_inputs,) = torch.autograd.grad(logits, noisy, at_logits.to(logits.dtype), retain_graph=retain_graph)
    at_inputs = at_inputs.float()
    if half:
        at_inputs *= largest.view(-1, *[1] * (noisy.dim() - 1))
    # A sample that abstains has no say in the gradient either.
    return torch.nan_to_num(at_inputs, nan=0.0)


def mean_softmax(classifier: NoisyModel, model: nn.Module, x: Tensor, keys: Sequence[Key], samples: int) -> Tensor:
    """The smoothed logits log p̄ of `model`'s softmax, without a gradient: (examples, classes) float32."""
    log_sum, soft_model = _no_log_sum(classifier, len(x)), SoftModel(classifier, model, x, keys, LogRatio())

    def process(piece: Piece) -> None:
        log_q = soft_model.evaluate(piece, graph=False).log_q
        rows, log_total = log_sum[piece.examples], torch.logsumexp(log_q.double(), dim=1)
        torch.logaddexp(rows, log_total, out=rows)

    classifier.votes_chunk = classifier.run(process, len(x), samples, classifier.votes_chunk)
    return (log_sum - math.log(samples)).float()


def _no_log_sum(classifier: NoisyModel, examples: int) -> Tensor:
    """log of sums over no samples, (examples, classes) float64."""
    shape = (examples, classifier.num_classes)
    return torch.full(shape, -torch.inf, dtype=torch.float64, device=classifier.device)


def _lengths(noisy: Tensor, x: Tensor, along: Tensor, piece: Piece) -> Tensor:
    """⟨noise, direction⟩ of each sample, (examples, samples) float64."""
    rows = piece.examples
    products = noisy.float().reshape(piece.num_examples, piece.num_samples, -1) @ along[rows, :, None]
    return (products[..., 0] - (x[rows].flatten(1) * along[rows]).sum(dim=1, keepdim=True)).double()

"""Gradients from hard votes alone, without a backward pass, by Stein's lemma."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from caa_cli.smoothing.chunks import Piece
from caa_cli.smoothing.gradient_source import GradientCost, GradientPass, GradientRequest, GradientSource
from caa_cli.smoothing.noise import Key
from caa_cli.smoothing.sampling import NoisyModel
from caa_cli.smoothing.votes import count_votes
from caa_cli.smoothing.wiener import wiener_filter


class SteinEstimator(GradientSource):
    """Stein's lemma, or the score function of the noise.

    With f the base classifier, η ~ N(0, σ²) and p_c = P(f(x + η) = c),

        ∇p_c = E[(1{f(x + η) = c} − p_c) η] / σ²,

    and the gradient of an objective J of the class probabilities is Σ_c ∂J/∂p_c ∇p_c. Subtracting p_c leaves the
    expectation as it is and lowers the variance. Only the sums of η over the votes of each class are kept, so memory
    does not grow with the samples.

    The remaining noise is white: its variance in every pixel, `GradientPass.variance`, is the variance of ∂J/∂p_c
    over the votes, divided by nσ².
    """

    # A sum for each class that has votes: near a boundary a dozen at most.
    cost = GradientCost(forward=1, backward=0, vectors=12)

    def differentiated(self, classifier: NoisyModel) -> None:
        return None

    def log_mean(self, classifier: NoisyModel, x: Tensor, keys: Sequence[Key], samples: int) -> Tensor:
        return log_shares(classifier.keyed_votes(x, keys, samples), samples)

    def gradients(
        self, classifier: NoisyModel, x: Tensor, keys: Sequence[Key], samples: int, request: GradientRequest
    ) -> GradientPass:
        """As `WhiteBox.gradients`, with vote shares in place of soft predictions: `log_mean` is the log of the
        shares, and the slopes are taken at the shares of all samples, so that no pilot is needed."""
        counts, sums = _sums_by_vote(classifier, x, keys, samples)
        votes = counts[:, : classifier.num_classes]
        shares, log_mean = votes / samples, log_shares(votes, samples)
        # (examples, gradients, classes) each; subtracting p_c amounts to subtracting the mean of a row of weights.
        log_slopes, sign = request.slopes(log_mean, slice(0, len(x)))
        weights = (sign * log_slopes.exp()).transpose(0, 1)
        mean = (weights * shares[:, None]).sum(dim=2, keepdim=True)
        flat = torch.zeros((len(x), request.count, x[0].numel()), device=classifier.device)
        moments = torch.zeros(counts.shape, device=classifier.device)
        for c, total in sums.items():
            if request.along is not None:
                moments[:, c] = (total * request.along).sum(dim=1) / samples
            if c < classifier.num_classes:  # a sample that abstains has no say in the gradient either
                flat += (weights - mean)[:, :, c, None] * total[:, None]
        flat = flat / (samples * classifier.sigma**2)
        spread = (weights.square() * shares[:, None]).sum(dim=2) - mean[..., 0].square()
        variance = spread / (samples * classifier.sigma**2)
        if request.denoise:
            flat = wiener_filter(flat.flatten(0, 1), variance.flatten(), classifier.input_shape).view_as(flat)
        gradient = flat.view(len(x), request.count, *classifier.input_shape)
        return GradientPass(votes, gradient, torch.full((len(x),), samples), 0, log_mean, moments, variance)


def _sums_by_vote(
    classifier: NoisyModel, x: Tensor, keys: Sequence[Key], samples: int
) -> tuple[Tensor, dict[int, Tensor]]:
    """(votes (examples, classes + 1), with abstentions last; the sum of the noise over the votes for each class that
    has any, (examples, dimensions) float32)."""
    counts, clean = classifier.no_counts(len(x)), x.flatten(1).float()
    sums: dict[int, Tensor] = {}

    def process(piece: Piece) -> None:
        rows = piece.examples
        noisy = classifier.noisy(x, keys, piece)
        # Before the vote: a model may overwrite what it is given.
        noise = noisy.float().reshape(piece.num_examples, piece.num_samples, -1) - clean[rows, None]
        winner = classifier.vote(noisy, piece)
        classes = winner.unique()
        added = (winner[:, None] == classes[:, None]).float() @ noise
        with_votes = classes.tolist()
        for c in with_votes:
            if c not in sums:
                sums[c] = torch.zeros_like(clean)
        # No allocation below: retrying after out-of-memory must not count twice.
        count_votes(counts[rows], winner)
        for number, c in enumerate(with_votes):
            sums[c][rows] += added[:, number]

    classifier.votes_chunk = classifier.run(process, len(x), samples, classifier.votes_chunk)
    # In the order of the classes, and not in that in which the images of the batch have met them.
    return counts, dict(sorted(sums.items()))


def log_shares(votes: Tensor, samples: int) -> Tensor:
    """log of the vote shares (examples, classes), float32; a class without votes is given half of one."""
    return (votes.clamp(min=0.5) / samples).log().float()

"""What an attacker may see of the target: classifiers whose gradients are not of its own backward pass.

White box is `SmoothedClassifier` itself. The two here show an attack the target's hard votes and nothing else of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Self

import torch
from torch import Tensor, nn

from caa_cli.smoothing.chunks import Piece
from caa_cli.smoothing.classifier import SmoothedClassifier, SurrogatePass, winners
from caa_cli.smoothing.noise import Key
from caa_cli.smoothing.objective import Objective, Slopes
from caa_cli.smoothing.wiener import without_noise


class Transfer(SmoothedClassifier):
    """Votes of the target, gradients of a surrogate: another model of the same images and classes.

    Both see the same noisy samples. Soft predictions are the surrogate's, and with them the class that an objective
    takes for the rival. The smoothed logits that come with a gradient are the target's as far as its votes go:
    log (votes + q̄)/(n + 1), with the surrogate's mean prediction q̄ in the weight of one vote, so that classes
    without votes have an order. Each sample of such a pass is two forward evaluations, one of either model.
    """

    surrogate_model: nn.Module

    @classmethod
    def of(cls, classifier: SmoothedClassifier, surrogate: nn.Module) -> Self:
        """The same classifier with the gradients of `surrogate`, which maps inputs to logits as `model` does."""
        other = cls.__new__(cls)
        other.__dict__.update(vars(classifier))
        other.surrogate_model = surrogate.to(device=other.device, dtype=other.dtype).eval().requires_grad_(False)
        return other

    @property
    def gradient_model(self) -> nn.Module:
        return self.surrogate_model

    def lay_out(self, memory_format: torch.memory_format) -> None:
        super().lay_out(memory_format)
        self.surrogate_model.to(memory_format=memory_format)

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
        passed = super()._gradients(x, keys, samples, soft, slopes_at, count, pilot, along)
        return replace(
            passed,
            forward_evaluations=passed.forward_evaluations + samples,
            log_mean=torch.logaddexp(passed.votes.float().log(), passed.log_mean) - math.log(samples + 1),
        )

    def _winners_beside(self, logits: Tensor, noisy: Tensor, piece: Piece) -> Tensor:
        with torch.inference_mode():
            return winners(self.model(noisy), piece)


class VotesOnly(SmoothedClassifier):
    """Gradients from the votes, without a backward pass: Stein's lemma, or the score function of the noise.

    With f the base classifier, η ~ N(0, σ²) and p_c = P(f(x + η) = c),

        ∇p_c = E[(1{f(x + η) = c} − p_c) η] / σ²,

    and the gradient of an objective J of the class probabilities is Σ_c ∂J/∂p_c ∇p_c. Taking off p_c changes nothing
    in expectation and takes noise away. What is kept is the sum of η over the votes of each class that has any, so
    memory does not grow with the samples.

    What is left of the noise is white: the variance in every pixel, `SurrogatePass.variance`, is that of ∂J/∂p_c over
    the votes, divided by nσ². `surrogate` filters it out as far as can be; the others leave that to those who average
    several gradients first.
    """

    differentiates = False

    @classmethod
    def of(cls, classifier: SmoothedClassifier) -> Self:
        """The same classifier, seen by its votes alone; the model is shared."""
        other = cls.__new__(cls)
        other.__dict__.update(vars(classifier))
        return other

    def surrogate(
        self,
        x: Tensor,
        labels: Tensor,
        keys: Sequence[Key],
        samples: int,
        objective: Objective,
        pilot: int | None = None,
    ) -> SurrogatePass:
        passed = super().surrogate(x, labels, keys, samples, objective, pilot)
        assert passed.variance is not None
        variance = passed.variance[:, 0]
        filtered = without_noise(passed.gradient.flatten(1), variance, self.input_shape)
        return replace(passed, gradient=filtered.view_as(x), variance=variance)

    def log_mean(self, x: Tensor, keys: Sequence[Key], samples: int) -> Tensor:
        return log_shares(self.votes(x, keys, samples), samples)

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
        """As the white box's, with vote shares in place of soft predictions: log_mean are theirs, and the slopes are
        taken at the shares of all samples, so that no pilot is wanted."""
        counts = self._no_counts(len(x))
        sums: dict[int, Tensor] = {}

        def process(piece: Piece) -> None:
            rows = piece.examples
            noisy = self.noisy(x, keys, piece)
            with torch.inference_mode():
                winner = winners(self.model(noisy), piece)
            noise = noisy.float().reshape(piece.num_examples, piece.num_samples, -1) - x[rows].flatten(1)[:, None]
            classes = winner.unique()
            added = (winner[:, None] == classes[:, None]).float() @ noise
            for c in classes.tolist():
                sums.setdefault(c, torch.zeros_like(x).flatten(1))
            one = torch.ones_like(winner)
            # From here on nothing is allocated that a lack of memory could refuse.
            counts[rows].scatter_add_(1, winner, one)
            for place, c in enumerate(classes.tolist()):
                sums[c][rows] += added[:, place]

        self.votes_chunk = self.run(process, len(x), samples, self.votes_chunk)
        sums.pop(self.num_classes, None)  # a sample that abstains has no say in the gradient either
        votes = counts[:, : self.num_classes]
        shares, log_mean = votes / samples, log_shares(votes, samples)
        # (examples, gradients, classes) each; the mean of a row of weights is what taking off p_c comes to.
        weights = torch.stack([sign * log.exp() for log, sign in slopes_at(log_mean, slice(0, len(x)))], dim=1)
        mean = (weights * shares[:, None]).sum(dim=2, keepdim=True)
        gradient = torch.zeros((len(x), count, x[0].numel()), device=self.device)
        moments = torch.zeros_like(shares)
        for c, total in sums.items():
            gradient += (weights - mean)[:, :, c, None] * total[:, None]
            if along is not None:
                moments[:, c] = (total * along).sum(dim=1) / samples
        gradient = (gradient / (samples * self.sigma**2)).view(len(x), count, *self.input_shape)
        spread = (weights.square() * shares[:, None]).sum(dim=2) - mean[..., 0].square()
        forward = torch.full((len(x),), samples, dtype=torch.int64, device=self.device)
        return SurrogatePass(votes, gradient, forward, log_mean, moments, spread / (samples * self.sigma**2))


def log_shares(votes: Tensor, samples: int) -> Tensor:
    """log of the vote shares (examples, classes), float32; a class without votes is given half of one."""
    return (votes.clamp(min=0.5) / samples).log().float()

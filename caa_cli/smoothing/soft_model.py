"""Forward passes over the noisy samples of a piece, with their soft predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from caa_cli.smoothing.chunks import Piece
from caa_cli.smoothing.in_place import differentiating
from caa_cli.smoothing.noise import Key
from caa_cli.smoothing.objective import Objective
from caa_cli.smoothing.sampling import NoisyModel


@dataclass(frozen=True)
class Evaluated:
    """A piece after its forward pass.

    noisy: (piece.size, *input_shape), what the model was given. logits: (piece.size, classes), with their graph if
    one was asked for. log_q: (examples, samples, classes) float32, the soft predictions, without a graph.
    """

    noisy: Tensor
    logits: Tensor
    log_q: Tensor


@dataclass(frozen=True)
class SoftModel:
    """The soft predictions, of an objective, that a model makes on the classifier's noisy samples of x."""

    classifier: NoisyModel
    model: nn.Module
    x: Tensor
    keys: Sequence[Key]
    soft: Objective

    def evaluate(self, piece: Piece, graph: bool, lasting: bool = False) -> Evaluated:
        """lasting: whether the noisy inputs outlive the next piece, which else overwrites them. Raises CaaError where
        a graph is asked for of a model that changes its input."""
        noisy = self.classifier.noisy(self.x, self.keys, piece)
        noisy = (noisy.clone() if lasting else noisy).requires_grad_(graph)
        with torch.set_grad_enabled(graph), differentiating():
            logits = self.model(noisy)
        self.classifier.check_logits(logits, piece)
        return Evaluated(noisy, logits, self._soft_predictions(logits.detach(), piece))

    def _soft_predictions(self, logits: Tensor, piece: Piece) -> Tensor:
        soft, shape = self.soft, (piece.num_examples, piece.num_samples, self.classifier.num_classes)
        shaped = logits.float().view(shape)
        if soft.gumbel:
            draws = torch.empty_like(shaped)
            self.classifier.noise.gumbel(draws, self.keys[piece.examples], piece.samples.start)
            shaped = torch.log_softmax(shaped, dim=2) + draws
        if soft.temperature != 1.0:
            shaped = shaped / soft.temperature
        log_q = torch.log_softmax(shaped, dim=2)
        # An abstaining sample has no probability for any class.
        return log_q.nan_to_num_(nan=-torch.inf, neginf=-torch.inf)

"""The clean image: which class the smoothed classifier gives it, how surely, and within which radius."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from caa_cli.smoothing.bounds import GOODMAN, Separation, leader, separation
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose


@dataclass(frozen=True)
class Certificate:
    """prediction: the class chosen on the selection draw.  confident: that choice holds at level alpha.

    radius: certified L2 radius around the image, pixel units; 0 without confidence.  votes: (classes,) int64 of
    the draw that decided.  abstentions: samples of it with NaN logits.  evaluations: model evaluations spent.
    """

    prediction: int
    confident: bool
    radius: float
    votes: Tensor
    abstentions: int
    evaluations: int


@dataclass(frozen=True)
class Certifier:
    """Prediction and radius, each on noise of its own, as in Cohen et al. (2019), with any of the bounds."""

    selection_samples: int = 1500
    samples: int = 15000
    alpha: float = 0.005
    bound: str = GOODMAN
    seed: int = 0

    def certify(
        self, classifier: SmoothedClassifier, image: Tensor, index: int, wanted: int | None = None
    ) -> Certificate:
        """image: (*input_shape) in [0, 1]. If the selection draw is sure of another class than `wanted`, the
        radius is left at 0 and its samples are saved."""
        votes = self._draw(classifier, image, index, Purpose.SELECTION, self.selection_samples)
        prediction = int(leader(votes.numpy()))
        if wanted is not None and prediction != wanted:
            confident = self._separation(votes, self.selection_samples, prediction).confident
            return Certificate(
                prediction,
                bool(confident),
                0.0,
                votes,
                self.selection_samples - int(votes.sum()),
                self.selection_samples,
            )
        votes = self._draw(classifier, image, index, Purpose.CERTIFICATION, self.samples)
        separated = self._separation(votes, self.samples, prediction)
        return Certificate(
            prediction,
            bool(separated.confident),
            float(separated.radius(classifier.sigma)),
            votes,
            self.samples - int(votes.sum()),
            self.selection_samples + self.samples,
        )

    def _draw(
        self, classifier: SmoothedClassifier, image: Tensor, index: int, purpose: Purpose, samples: int
    ) -> Tensor:
        return classifier.votes(image[None], [Key(self.seed, index, purpose)], samples)[0].cpu()

    def _separation(self, votes: Tensor, total: int, prediction: int) -> Separation:
        return separation(votes.numpy(), total, prediction, self.alpha, self.bound)

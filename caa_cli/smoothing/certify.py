"""Prediction and certified radius of a clean image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from caa_cli.config.bounds import BOUNDS, GOODMAN
from caa_cli.config.certificates import COHEN
from caa_cli.smoothing.bounds import Separation, leader, separation
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose


@dataclass(frozen=True)
class Certificate:
    """prediction: the class chosen on the selection draw.  confident: whether that choice holds at level alpha.

    radius: certified L2 radius around the image, pixel units; 0 without confidence.  votes_top: of the prediction,
    in the draw that decided.  votes: (classes,) of that draw.  abstentions: its samples with NaN logits.
    evaluations: of the model.
    """

    prediction: int
    confident: bool
    radius: float
    votes_top: int
    abstentions: int
    evaluations: int
    votes: NDArray[np.int64] = field(compare=False)


@dataclass(frozen=True)
class Certifier:
    """Prediction and radius, each on independent noise, as in Cohen et al. (2019), with any bound and certificate."""

    selection_samples: int = 1500
    samples: int = 15000
    alpha: float = 0.005
    bound: str = GOODMAN
    seed: int = 0
    certificate: str = COHEN

    def certify(
        self,
        classifier: SmoothedClassifier,
        images: Tensor,
        indices: Sequence[int],
        wanted: Sequence[int] | None = None,
    ) -> list[Certificate]:
        """The certificates of images (examples, *input_shape) in [0, 1].

        Where the selection draw favours another class than `wanted`, no samples are spent on certification: the
        radius is 0 and the selection's votes decide.
        """
        selected = self._draw(classifier, images, indices, Purpose.SELECTION, self.selection_samples)
        predictions = leader(selected)
        going_on = np.ones(len(indices), bool) if wanted is None else predictions == np.asarray(wanted)
        votes, totals = selected.copy(), np.where(going_on, self.samples, self.selection_samples)
        rows = np.flatnonzero(going_on).tolist()
        if rows:
            votes[rows] = self._draw(
                classifier, images[rows], [indices[row] for row in rows], Purpose.CERTIFICATION, self.samples
            )
        separated = separation(votes, totals, predictions, self.alpha, self.bound)
        # A one-sided bound holds for a class chosen on other samples; chosen on the same ones, it may be any of K.
        chosen_here = separation(votes, totals, predictions, self.alpha / classifier.num_classes, self.bound)
        one_sided = BOUNDS[self.bound].one_sided
        confident = np.where(going_on | (not one_sided), separated.confident, chosen_here.confident)
        radii = np.where(going_on, separated.radius(classifier.sigma, self.certificate), 0.0)
        evaluations = self.selection_samples + np.where(going_on, self.samples, 0)
        return [
            Certificate(
                int(predictions[row]),
                bool(confident[row]),
                float(radii[row]),
                int(votes[row, predictions[row]]),
                int(totals[row] - votes[row].sum()),
                int(evaluations[row]),
                votes[row],
            )
            for row in range(len(indices))
        ]

    def best(self, num_classes: int) -> Separation:
        """The bounds of a unanimous vote: the most that these settings can certify."""
        votes = np.zeros(num_classes, dtype=np.int64)
        votes[0] = self.samples
        return separation(votes, self.samples, 0, self.alpha, self.bound)

    def _draw(
        self, classifier: SmoothedClassifier, images: Tensor, indices: Sequence[int], purpose: Purpose, samples: int
    ) -> NDArray[np.int64]:
        keys = [Key(self.seed, index, purpose) for index in indices]
        return np.asarray(classifier.keyed_votes(images, keys, samples).cpu().numpy())

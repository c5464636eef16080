"""Whether an image is certified at one given radius, decided sequentially: far cheaper than the radius itself."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pkgutil import resolve_name

from scipy.special import ndtr
from torch import Tensor

from caa_cli.config.certificates import CERTIFICATES, COHEN
from caa_cli.smoothing.bounds import clopper_pearson_lower, clopper_pearson_upper, leader
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose


@dataclass(frozen=True)
class Decision:
    """prediction: the class chosen on the selection draw.  certified: None if undecided after `samples` draws.

    votes_top: of the prediction, out of `samples` draws; evaluations: of the model, with those of the selection.
    """

    prediction: int
    certified: bool | None
    votes_top: int
    samples: int
    evaluations: int


@dataclass(frozen=True)
class Decider:
    """Sequential test of whether p_prediction, if all other classes share the rest, certifies `radius`: by Cohen et
    al.'s certificate, of p_prediction > Φ(radius/σ).

    Samples are drawn in stages, each doubling the total, at most `samples` in all. After each stage exact
    (Clopper–Pearson) bounds on all votes so far decide if they can. With alpha divided equally over the stages,
    "certified" is wrong with probability at most alpha, and so is "not certified", whenever the test stops.
    """

    radius: float
    samples: int = 100_000
    selection_samples: int = 100
    alpha: float = 0.001
    seed: int = 0
    first_stage: int = 100
    certificate: str = COHEN

    def stages(self) -> list[int]:
        """The total number of samples after each stage."""
        totals = [min(self.first_stage, self.samples)]
        while totals[-1] < self.samples:
            totals.append(min(2 * totals[-1], self.samples))
        return totals

    def share(self) -> float:
        """The part of alpha that each stage spends."""
        return self.alpha / len(self.stages())

    def largest_radius(self, sigma: float) -> float:
        """The supremum of radii that a unanimous vote of all samples certifies."""
        return sigma * _radius(
            float(clopper_pearson_lower(self.samples, self.samples, self.share())), self.certificate
        )

    def decide(self, classifier: SmoothedClassifier, image: Tensor, index: int) -> Decision:
        """Decides for one image (*input_shape) in [0, 1]; index: its global index, for the noise."""

        def draw(purpose: Purpose, stage: int, samples: int) -> Tensor:
            return classifier.keyed_votes(image[None], [Key(self.seed, index, purpose, stage)], samples)[0].cpu()

        prediction = int(leader(draw(Purpose.SELECTION, 0, self.selection_samples).numpy()))
        threshold = least_probability(self.radius / classifier.sigma, self.certificate)
        share = self.share()
        votes = total = 0
        for stage, goal in enumerate(self.stages()):
            votes += int(draw(Purpose.DECISION, stage, goal - total)[prediction])
            total = goal
            certified = self.verdict(votes, total, threshold, share)
            if certified is not None:
                break
        return Decision(prediction, certified, votes, total, self.selection_samples + total)

    @staticmethod
    def verdict(votes: int, total: int, threshold: float, alpha: float) -> bool | None:
        """Whether votes/total proves its probability above (True) or below (False) the threshold."""
        if clopper_pearson_lower(votes, total, alpha) > threshold:
            return True
        if clopper_pearson_upper(votes, total, alpha) < threshold:
            return False
        return None


@cache
def least_probability(radius: float, certificate: str) -> float:
    """The probability above which a class is certified at this radius, in units of σ, if all other classes together
    have the rest; 1 where none is. Cohen et al.'s is Φ(radius); for the others by bisection, to the last bit."""
    if certificate == COHEN:
        return float(ndtr(radius))
    low, high = 0.5, 1.0
    while low < (middle := (low + high) / 2.0) < high:
        low, high = (low, middle) if _radius(middle, certificate) > radius else (middle, high)
    return high


def _radius(probability: float, certificate: str) -> float:
    """The radius, in units of σ, of a class with this probability."""
    return float(resolve_name(CERTIFICATES[certificate].radius)(probability, 1.0 - probability))

"""Whether an image is certified at one given radius, decided sequentially: far cheaper than the radius itself."""

from __future__ import annotations

from dataclasses import dataclass

from scipy.special import ndtr, ndtri
from torch import Tensor

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
    """Sequential test of p_prediction > Φ(radius/σ), the condition of Cohen et al.'s certificate at `radius`.

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
        return sigma * float(ndtri(clopper_pearson_lower(self.samples, self.samples, self.share())))

    def decide(self, classifier: SmoothedClassifier, image: Tensor, index: int) -> Decision:
        """Decides for one image (*input_shape) in [0, 1]; index: its global index, for the noise."""

        def draw(purpose: Purpose, stage: int, samples: int) -> Tensor:
            return classifier.votes(image[None], [Key(self.seed, index, purpose, stage)], samples)[0].cpu()

        prediction = int(leader(draw(Purpose.SELECTION, 0, self.selection_samples).numpy()))
        threshold = float(ndtr(self.radius / classifier.sigma))
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

"""Re-proof on fresh noise: the one rule by which any attack's success is judged.

An attack proposes its nearest candidates, found on search noise. Choosing and judging on the same noise would
overstate success, so the search's votes prove nothing here:

1. The finish looks along the ray from the clean image through the nearest candidate for the shortest distance at
   which a proof is likely to succeed, on noise of its own.
2. Up to `tries` points are tried, each on noise drawn for that one try and at level alpha / tries, and the first
   that passes is the result. A try passes if the lower bound of another class exceeds the upper bound of the
   original class (the paper's Eq. attack_criteria).

So an image for which the original class is in truth the likelier one at every point tried passes with probability
at most alpha, however many tries it takes (as far as the bound itself is sound; see `smoothing.bounds`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from caa_cli.attacks.loop import Finding
from caa_cli.config.bounds import BOUNDS, GOODMAN
from caa_cli.smoothing.boundary import Crossing, Votes, margin, margin_to_pass
from caa_cli.smoothing.bounds import leader, separation
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose


@dataclass(frozen=True)
class Verified:
    """A proved adversarial example, or the failure to prove one (image, radius and class None).

    image: (*input_shape).  radius: L2 distance to the clean image.  tries: proofs attempted.
    forward_evaluations: model evaluations spent here, probes included.
    """

    image: Tensor | None
    radius: float | None
    adversarial_class: int | None
    tries: int
    forward_evaluations: int


@dataclass(frozen=True)
class Verifier:
    """The settings. finish: `ray` searches along the ray first; `none` tries the candidates as they are.

    search_sigma: the σ at which the candidates' votes were drawn (None: the classifier's). They only say where to
    begin; probes and proofs are at the classifier's σ.
    """

    samples: int = 15000
    alpha: float = 0.005
    bound: str = GOODMAN
    seed: int = 0
    finish: str = "ray"
    tries: int = 4
    probes: int = 4
    probe_samples: int = 1500
    search_sigma: float | None = None

    def verify(self, finding: Finding, classifier: SmoothedClassifier) -> Verified:
        """Proves the nearest point that it can."""
        if not finding.candidates:
            return Verified(None, None, None, 0, 0)
        points = (_AlongTheRay if self.finish == "ray" else _AsProposed)(self, finding, classifier)
        points.prepare()
        clean, label = finding.example.image, finding.example.label
        for attempt in range(self.tries):
            image = points.propose(attempt)
            votes = points.draw(image, Purpose.VERIFICATION, attempt, self.samples)
            # A one-sided bound holds for a class named beforehand; the simultaneous ones for any.
            claimed = points.rival if BOUNDS[self.bound].one_sided else int(leader(votes, excluding=label))
            level = self.alpha / self.tries
            if separation(votes, self.samples, claimed, level, self.bound, against=label).confident:
                radius = float((image - clean).double().norm())
                return Verified(image, radius, claimed, attempt + 1, points.evaluations)
            points.failed(image, votes)
        return Verified(None, None, None, self.tries, points.evaluations)


class _AsProposed:
    """The candidates, nearest first, and then points further out on the ray of the last one."""

    def __init__(self, settings: Verifier, finding: Finding, classifier: SmoothedClassifier) -> None:
        self.settings, self.finding, self.classifier = settings, finding, classifier
        self.clean, self.label = finding.example.image, finding.example.label
        self.candidates = finding.candidates
        self.evaluations = 0
        self.rival = int(leader(finding.candidates[0].votes.cpu().numpy(), excluding=self.label))

    def prepare(self) -> None:
        """Whatever has to be known before the first proposal."""

    def propose(self, attempt: int) -> Tensor:
        """The point for this try."""
        if attempt < len(self.candidates):
            return self.candidates[attempt].image
        last = self.candidates[-1]
        return self.on_ray(last.image, 1.0 + 0.02 * (attempt - len(self.candidates) + 1))

    def failed(self, image: Tensor, votes: Votes) -> None:
        """Told of each try that did not pass."""

    def on_ray(self, image: Tensor, scale: float) -> Tensor:
        """The point at `scale` times the image's distance, in the box."""
        return (self.clean + scale * (image - self.clean)).clamp(0.0, 1.0)

    def draw(self, image: Tensor, purpose: Purpose, iteration: int, samples: int) -> Votes:
        key = Key(self.settings.seed, self.finding.example.index, purpose, iteration)
        self.evaluations += samples
        return np.asarray(self.classifier.votes(image[None], [key], samples)[0].cpu().numpy())


class _AlongTheRay(_AsProposed):
    """Points on the nearest candidate's ray, where its line of margins says that a proof will pass."""

    # How many standard errors to spare at each try. About one image in five needs a second proof; to spare more
    # would make the radius of the other four longer (docs/verification.md has the figures).
    SPARE = (0.5, 1.0, 2.0, 3.0)

    def __init__(self, settings: Verifier, finding: Finding, classifier: SmoothedClassifier) -> None:
        super().__init__(settings, finding, classifier)
        self.nearest = self.candidates[0]
        self.crossing = Crossing()
        self.furthest = 0.0

    def prepare(self) -> None:
        """Probes the ray, each time where the line through the probes so far says that a proof would pass."""
        # The search's votes flatter the point that they made the nearest, but say where to begin.
        seen = self.nearest.votes.cpu().numpy()
        opening = Crossing()
        sigma = self.settings.search_sigma or self.classifier.sigma
        opening.add(self.nearest.distance, margin(seen, int(seen.sum()), self.label, sigma))
        distance = opening.solve(spare=0.0, target=0.0)
        for probe in range(self.settings.probes):
            self._probe(distance, probe)
            distance = self.crossing.solve(spare=0.0, target=self._target(self.SPARE[0]))

    def propose(self, attempt: int) -> Tensor:
        spare = self.SPARE[min(attempt, len(self.SPARE) - 1)]
        distance = self.crossing.solve(spare, self._target(spare))
        # Each try goes further out than the last, and the last at least as far as the candidate itself.
        distance = max(distance, 1.003 * self.furthest)
        if attempt == self.settings.tries - 1:
            sure = self.finding.confident
            if sure is not None and sure is not self.nearest:  # the ray was a guess
                return self.on_ray(sure.image, max(1.0, distance / sure.distance))
            distance = max(distance, self.nearest.distance)
        self.furthest = distance
        return self._at(distance)

    def failed(self, image: Tensor, votes: Votes) -> None:
        self._record(self.furthest, votes, self.settings.samples)

    def _probe(self, distance: float, probe: int) -> None:
        samples = self.settings.probe_samples
        self._record(distance, self.draw(self._at(distance), Purpose.PROBE, probe, samples), samples)

    def _record(self, distance: float, votes: Votes, samples: int) -> None:
        self.crossing.add(distance, margin(votes, samples, self.label, self.classifier.sigma))

    def _target(self, spare: float) -> float:
        settings = self.settings
        return margin_to_pass(
            self.crossing.mass,
            settings.samples,
            self.classifier.num_classes,
            settings.alpha / settings.tries,
            settings.bound,
            self.classifier.sigma,
            spare,
        )

    def _at(self, distance: float) -> Tensor:
        distance = max(distance, 0.0)
        return self.on_ray(self.nearest.image, distance / self.nearest.distance)

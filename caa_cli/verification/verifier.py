"""Verification on fresh noise: the one rule by which any attack's success is judged.

An attack proposes its nearest candidates, chosen on search noise. Choosing and judging on the same noise would
overstate success, so the search's votes count for nothing here:

1. The boundary line search estimates, on independent noise, the shortest distance along the ray from the clean image
   through the nearest candidate at which a verification is likely to pass.
2. Up to `tries` points are tried, each on fresh noise and at level alpha / tries, and the first that passes is the
   result. A try passes if the lower bound of another class exceeds the upper bound of the original class (the paper's
   Eq. attack_criteria).

So if the original class is the more likely one at every point tried, an image passes with probability at most alpha,
however many tries it takes (as far as the bound itself is sound; see `smoothing.bounds`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from caa_cli.attacks.common.state import Finding
from caa_cli.config.bounds import BOUNDS, GOODMAN
from caa_cli.smoothing.bounds import leader, separation
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.verification.line_search import Crossing, Votes, margin, margin_to_pass


@dataclass(frozen=True)
class Verified:
    """A verified adversarial example; image, radius and class are None if no try passed.

    image: (*input_shape).  radius: L2 distance to the clean image.  tries: how many were made.
    forward_evaluations: of the model, those of the line search included.
    """

    image: Tensor | None
    radius: float | None
    adversarial_class: int | None
    tries: int
    forward_evaluations: int


@dataclass(frozen=True)
class Verifier:
    """The settings of a verification.

    samples, alpha: of all `tries`. finish: `ray` begins with the boundary line search, of `probes` points with
    `probe_samples` each; `none` tries the candidates as they are. search_sigma: the σ at which the candidates' votes
    were drawn (None: the classifier's); they only determine where the line search begins, which like every try is at
    the classifier's σ.
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
        """The nearest point that passes a try, out of a finding's candidates and their rays."""
        if not finding.candidates:
            return Verified(None, None, None, 0, 0)
        points = (_AlongTheRay if self.finish == "ray" else _AsProposed)(self, finding, classifier)
        points.prepare()
        clean, label = finding.example.image, finding.example.label
        for attempt in range(self.tries):
            image = points.propose(attempt)
            votes = points.draw(image, Purpose.VERIFICATION, attempt, self.samples)
            # A one-sided bound holds for a class chosen on other samples; the simultaneous ones hold for any.
            claimed = points.rival if BOUNDS[self.bound].one_sided else int(leader(votes, excluding=label))
            level = self.alpha / self.tries
            if separation(votes, self.samples, claimed, level, self.bound, against=label).confident:
                radius = float((image - clean).double().norm())
                return Verified(image, radius, claimed, attempt + 1, points.evaluations)
            points.failed(image, votes)
        return Verified(None, None, None, self.tries, points.evaluations)


class _AsProposed:
    """Proposes the candidates, nearest first, and then points further out on the ray of the last one."""

    def __init__(self, settings: Verifier, finding: Finding, classifier: SmoothedClassifier) -> None:
        self.settings, self.finding, self.classifier = settings, finding, classifier
        self.clean, self.label = finding.example.image, finding.example.label
        self.candidates = finding.candidates
        self.evaluations = 0
        self.rival = int(leader(finding.candidates[0].votes.cpu().numpy(), excluding=self.label))

    def prepare(self) -> None:
        """Runs before the first proposal."""

    def propose(self, attempt: int) -> Tensor:
        """The point of this try."""
        if attempt < len(self.candidates):
            return self.candidates[attempt].image
        last = self.candidates[-1]
        return self.on_ray(last.image, 1.0 + 0.02 * (attempt - len(self.candidates) + 1))

    def failed(self, image: Tensor, votes: Votes) -> None:
        """Takes the votes of a try that did not pass."""

    def on_ray(self, image: Tensor, scale: float) -> Tensor:
        """The point at `scale` times the image's distance from the clean image, in the box."""
        return (self.clean + scale * (image - self.clean)).clamp(0.0, 1.0)

    def draw(self, image: Tensor, purpose: Purpose, iteration: int, samples: int) -> Votes:
        """Votes (classes,) on fresh noise; counts the evaluations."""
        key = Key(self.settings.seed, self.finding.example.index, purpose, iteration)
        self.evaluations += samples
        return np.asarray(self.classifier.votes(image[None], [key], samples)[0].cpu().numpy())


class _AlongTheRay(_AsProposed):
    """Proposes points on the nearest candidate's ray, where the line through its margins lets a try pass."""

    # The standard errors to spare at each try. About one image in five needs a second try; to spare more would make
    # the radius of the other four longer (docs/method/verification.md has the figures).
    SPARE = (0.5, 1.0, 2.0, 3.0)

    def __init__(self, settings: Verifier, finding: Finding, classifier: SmoothedClassifier) -> None:
        super().__init__(settings, finding, classifier)
        self.nearest = self.candidates[0]
        self.crossing = Crossing()
        self.furthest = 0.0

    def prepare(self) -> None:
        """Measures margins on the ray, each where the line through the margins so far lets a try pass."""
        # The search's votes are biased at the point that they made the nearest, but good enough to begin with.
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
            if sure is not None and sure is not self.nearest:  # the ray is an unconfirmed candidate's
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

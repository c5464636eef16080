"""Verification on fresh noise: the one rule by which any attack's success is judged.

An attack proposes its nearest candidates, chosen on search noise. Choosing and judging on the same noise would
overstate success, so the search's votes count for nothing here:

1. The boundary line search estimates, on independent noise, the shortest distance along the ray from the clean image
   through the nearest candidate at which a verification is likely to pass.
2. Up to `tries` points are tried, each on fresh noise and at its share of alpha, and the first that passes is the
   result. When a try passes is a rule of its own (`verification.rules`): an exact test of two classes, or the paper's
   Eq. attack_criteria on their intervals. An attack with a target has to make it the likeliest class of all.

So if the original class (or, of a target, any other one) is the likelier one at every point tried, an image passes
with probability at most alpha, however many tries it takes (for intervals as far as the bound itself is sound; see
`smoothing.bounds`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from caa_cli.attacks.common.state import Candidate, Finding
from caa_cli.config.bounds import GOODMAN
from caa_cli.config.choices import EXACT, LINE_SEARCH
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.margin import margin_per_probability
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.verification.claim import Claim
from caa_cli.verification.line_search import Crossing, Votes, margin
from caa_cli.verification.lockstep import Draw, Drawing, draw_together
from caa_cli.verification.rules import RULES, Rule


@dataclass(frozen=True)
class Verified:
    """A verified adversarial example; image, radius and class are None if no try passed.

    image: (*input_shape).  radius: L2 distance to the clean image.  tries: how many were made.  samples: of the last
    one, the one that passed if any did.
    forward_evaluations: of the model, those of the line search included.
    """

    image: Tensor | None
    radius: float | None
    adversarial_class: int | None
    tries: int
    samples: int
    forward_evaluations: int


@dataclass(frozen=True)
class Verifier:
    """The settings of a verification.

    rule: of RULES. samples: the most of a try. alpha: the error probability of all `tries` together. bound: of rules
    that compare intervals. finish: `ray` begins with the boundary line search, of at most `probes` points (None: the
    rule's number), `none` tries the candidates as they are. probe_samples: of each point, where the rule leaves it
    open. search_sigma: the σ at which the candidates' votes were drawn (None: the classifier's); they only determine
    where the line search begins, which like every try is at the classifier's σ.
    """

    rule: str = EXACT
    samples: int = 15000
    alpha: float = 0.005
    bound: str = GOODMAN
    seed: int = 0
    finish: str = LINE_SEARCH
    tries: int = 4
    probes: int | None = None
    probe_samples: int = 1500
    search_sigma: float | None = None

    def verify(self, finding: Finding, classifier: SmoothedClassifier) -> Verified:
        """The nearest point that passes a try, out of a finding's candidates and their rays."""
        ((_, verified, _),) = self.verify_all([finding], classifier)
        return verified

    def verify_all(
        self, findings: Sequence[Finding], classifier: SmoothedClassifier
    ) -> Iterator[tuple[int, Verified, float]]:
        """(position, as `verify` has it, seconds) of each finding, as soon as it is verified; see `draw_together`."""
        return draw_together([self._verification(finding, classifier) for finding in findings], classifier)

    def _verification(self, finding: Finding, classifier: SmoothedClassifier) -> Drawing[Verified]:
        if not finding.candidates:
            return Verified(None, None, None, 0, 0, 0)
        rule = RULES[self.rule](self.samples, self.alpha, self.bound, self.tries)
        points = (_AlongTheRay if self.finish == LINE_SEARCH else _AsProposed)(self, rule, finding, classifier)
        yield from points.prepare()
        clean = finding.example.image
        for number in range(self.tries):
            image = points.propose(number)
            attempt = rule.begin(number, points.claimed, points.claim.opponents)
            votes, drawn, passed = np.zeros(classifier.num_classes, np.int64), 0, None
            for stage in rule.stages():
                votes += yield from points.draw(image, Purpose.VERIFICATION, number, stage - drawn, start=drawn)
                drawn = stage
                passed = attempt.judge(votes, drawn)
                if passed is not None:
                    break
            if passed:
                radius = float((image - clean).double().norm())
                return Verified(image, radius, attempt.claimed, number + 1, drawn, points.evaluations)
            points.failed(image, votes, drawn)
        return Verified(None, None, None, self.tries, drawn, points.evaluations)


class _AsProposed:
    """Proposes the candidates, nearest first, and then points further out on the ray of the last one."""

    def __init__(self, settings: Verifier, rule: Rule, finding: Finding, classifier: SmoothedClassifier) -> None:
        self.settings, self.rule, self.finding, self.classifier = settings, rule, finding, classifier
        self.clean = finding.example.image
        self.claim = Claim(finding.example.label, classifier.num_classes, finding.example.target)
        self.candidates = finding.candidates
        self.evaluations = 0
        self.claimed = self._class_at(self.candidates[0])

    def prepare(self) -> Drawing[None]:
        """Runs before the first proposal."""
        yield from ()

    def propose(self, attempt: int) -> Tensor:
        """The point of this try; each candidate names its own class."""
        if attempt < len(self.candidates):
            self.claimed = self._class_at(self.candidates[attempt])
            return self.candidates[attempt].image
        last = self.candidates[-1]
        return self.on_ray(last.image, 1.0 + 0.02 * (attempt - len(self.candidates) + 1))

    def failed(self, image: Tensor, votes: Votes, drawn: int) -> None:
        """Takes the votes of a try that did not pass, out of `drawn` samples."""

    def on_ray(self, image: Tensor, scale: float) -> Tensor:
        """The point at `scale` times the image's distance from the clean image, in the box."""
        return (self.clean + scale * (image - self.clean)).clamp(0.0, 1.0)

    def _class_at(self, candidate: Candidate) -> int:
        """The class to verify at a candidate, by the search's votes."""
        return self.claim.sides(candidate.votes.cpu().numpy())[0]

    def draw(self, image: Tensor, purpose: Purpose, iteration: int, samples: int, start: int = 0) -> Drawing[Votes]:
        """Votes (classes,) on fresh noise, of which `start` samples are drawn already; counts the evaluations."""
        key = Key(self.settings.seed, self.finding.example.index, purpose, iteration)
        self.evaluations += samples
        return (yield Draw(image, key, samples, start))


class _AlongTheRay(_AsProposed):
    """Proposes points on the nearest candidate's ray, where the line through its margins lets a try pass."""

    def __init__(self, settings: Verifier, rule: Rule, finding: Finding, classifier: SmoothedClassifier) -> None:
        super().__init__(settings, rule, finding, classifier)
        self.nearest = self.candidates[0]
        self.crossing = Crossing()
        # The boundary lies between these; votes that were unanimous have shown it.
        self.inside, self.outside = 0.0, self.nearest.distance
        self.furthest = 0.0

    def prepare(self) -> Drawing[None]:
        """Measures margins on the ray, each where the line through the margins so far lets a try pass."""
        # The search's votes are biased at the point that they made the nearest, but good enough to begin with.
        seen = self.nearest.votes.cpu().numpy()
        opening = Crossing()
        sigma = self.settings.search_sigma or self.classifier.sigma
        total = max(1, int(seen.sum()))  # where all abstained, the classes are even
        opening.add(self.nearest.distance, margin(seen, total, self.claim.sides(seen), sigma))
        distance = opening.solve(spare=0.0, target=0.0)
        for probe in range(self.settings.probes or self.rule.PROBES):
            yield from self._probe(distance, probe)
            line = self.crossing.solve(spare=0.0, target=self._needed_margin(0, self.rule.spare(0)))
            distance = self._halved(line)
            if self.crossing.error <= self.rule.PRECISION * self._error_of_try():
                break

    def propose(self, attempt: int) -> Tensor:
        spare = self.rule.spare(attempt)
        distance = self.crossing.solve(spare, self._needed_margin(attempt, spare))
        # Each try goes further out than the last, and the last at least as far as the candidate itself.
        distance = max(distance, 1.003 * self.furthest)
        if attempt == self.settings.tries - 1:
            sure = self.finding.confident
            if sure is not None and sure is not self.nearest:  # the ray is an unconfirmed candidate's
                self.claimed = self._class_at(sure)
                return self.on_ray(sure.image, max(1.0, distance / sure.distance))
            distance = max(distance, self.nearest.distance)
        self.furthest = distance
        return self._at(distance)

    def failed(self, image: Tensor, votes: Votes, drawn: int) -> None:
        self._record(self.furthest, votes, drawn)

    def _probe(self, distance: float, probe: int) -> Drawing[None]:
        distance = max(distance, 0.0)  # the line may have crossed before the clean image
        samples = self.rule.probe_samples(self.settings.probe_samples)
        votes = yield from self.draw(self._at(distance), Purpose.PROBE, probe, samples)
        self._record(distance, votes, samples)

    def _halved(self, line: float) -> float:
        """Where to measure next: as the line says, or halfway to the other side where that is further.

        A unanimous vote only says which side it is on, so a line through it reaches a few σ and no more.
        """
        last, middle = self.crossing.margins[-1], 0.5 * (self.inside + self.outside)
        if not last.unanimous:
            return line
        return min(line, middle) if last.h > 0 else max(line, middle)

    def _record(self, distance: float, votes: Votes, samples: int) -> None:
        sides = self.claim.sides(votes)
        self.claimed, _ = sides
        measured = margin(votes, samples, sides, self.classifier.sigma)
        if measured.unanimous and measured.h > 0:
            self.outside = distance
        elif measured.unanimous:
            self.inside = distance
        self.crossing.add(distance, measured)

    def _needed_margin(self, attempt: int, spare: float) -> float:
        classifier = self.classifier
        return self.rule.needed_margin(self.crossing.mass, classifier.num_classes, attempt, spare, classifier.sigma)

    def _error_of_try(self) -> float:
        """The standard error of the margin at the boundary, on all samples of a try."""
        p = 0.5 * self.crossing.mass
        per_probability = float(margin_per_probability(p, self.classifier.sigma))
        return per_probability * math.sqrt(2.0 * p / self.settings.samples)

    def _at(self, distance: float) -> Tensor:
        return self.on_ray(self.nearest.image, distance / self.nearest.distance)

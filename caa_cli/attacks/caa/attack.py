"""The certification-aware attack (the paper's Section CAA and its Algorithm CAA).

Every visited point has a certified radius: inside that ball the predicted class can't change. While the original
class is predicted, a step that stays in the union of its balls would be wasted, so the step ends just beyond it.
Once another class is confident, a step towards the clean image is safe as long as it stays within the union of
the balls of that side. Either length is then clipped to fixed limits. Algorithm CAA as printed has its two
branches and the ranges of δ the wrong way round; this follows the equations CAA_iter, epsilon_complex,
step_size_limits and correction.

With a target the two sides are that of the target and that of every other class: a step that stays in balls in which
any of those is certified would be wasted just as well.

Two settings go beyond the paper. `refine` may slide along the boundary (`attacks.caa.tangential`), and with
several `rivals` an example has one run for each of the most likely other classes, one after another, and keeps the
nearest points.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from caa_cli.attacks.caa.state import CaaEvaluation, CaaState, Verdict
from caa_cli.attacks.caa.tangential import MEMORY, SHORTEST, SHRINK, slide
from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.ranking import ranking_samples, top_classes
from caa_cli.attacks.common.starting_points import begin_beyond, crossing_evaluations
from caa_cli.attacks.common.state import Example
from caa_cli.attacks.common.vectors import unit
from caa_cli.config import hyperparameters as settings
from caa_cli.config.choices import FIXED, GUMBEL, TANGENTIAL
from caa_cli.config.settings import Settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import PILOT, GradientCost
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.judge import judge_of, largest_other
from caa_cli.smoothing.objective import GumbelGap, LogRatio, Objective

# A run whose distance is this many times the nearest point's is given up: before it has found anything, or once it
# has refined for as many steps as usually bring it to its boundary.
_GIVE_UP, _AT_BOUNDARY = 1.1, 4


@dataclass(frozen=True)
class CertificationAware(settings.Caa, Attack[CaaState]):
    """Settings, with the paper's values. Lengths are L2 in [0, 1] pixel units.

    overshoot, undershoot: the paper's 1 + δ₁ and 1 − δ₂. patience, tolerance: an example stops once `patience`
    steps in a row have reduced its nearest distance by less than the fraction `tolerance` (patience 0: never).
    step_certificate: of the radii that bound the steps; None: the one of the run.
    rivals: the number of runs, each after another class; 1: one run, after whichever class leads. iterations: of
    all runs together, divided evenly.
    """

    iterations: int = 100

    @classmethod
    def of(cls, settings: Settings, iterations: int, **run: Any) -> Self:
        attack = cls(iterations=iterations, **run, **vars(settings))
        return replace(attack, iterations=iterations * attack.rivals)  # --iterations limits each run

    @property
    def objective(self) -> Objective:
        return GumbelGap(temperature=self.temperature) if self.surrogate == GUMBEL else LogRatio()

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> CaaState:
        if self.rivals > 1:
            rivals = top_classes(examples, classifier, self.rivals, self.seed, self.samples)
            state = CaaState.begin(examples, classifier.num_classes, rivals)
            state.forward += ranking_samples(self.samples)
            return state
        state = CaaState.begin(examples, classifier.num_classes)
        if not classifier.differentiates:  # at the clean image votes show no direction
            # Without a crossing there is nowhere to begin.
            state.done |= ~begin_beyond(state, examples, classifier, 1, self.seed).exists[:, 0]
        return state

    def step(self, state: CaaState, classifier: SmoothedClassifier) -> None:
        evaluation = self._evaluate(state, classifier)
        verdict = evaluation.verdict
        is_original = state.aim.is_original(verdict.top)
        state.balls.add(state.x.flatten(1), verdict.radius, is_original)
        state.remember(verdict.adversarial, evaluation.votes)
        state.succeeded |= torch.tensor(evaluation.succeeds)
        succeeded = state.on_device(state.succeeded)
        if self.refine == TANGENTIAL:
            moved = self._move(state, evaluation, is_original, ~succeeded)
            sliding = self._slide(state, evaluation, is_original, succeeded)
            moved = torch.where(succeeded[:, None], sliding, moved)
        else:
            moved = self._move(state, evaluation, is_original, ~verdict.adversarial)
        state.x = moved.view_as(state.x)
        state.refined += succeeded
        self._stop(state, succeeded)

    def stages(self) -> list[int]:
        """The numbers of samples counted at a point after each stage."""
        if self.sample_schedule == FIXED:
            return [self.samples]
        # The line search finds the boundary along the ray, so a third of the samples is enough for a point here,
        # and far from the boundary a sixth; the gradient needs its pilot in any case.
        first = min(self.samples, max(PILOT, self.samples // 6))
        last = self.samples // 3
        # A stage that adds few samples is not worth its share of alpha.
        return [first] if 2 * last < 3 * first else [first, last]

    def samples_a_step(self) -> tuple[int, int]:
        return self.stages()[0], self.stages()[-1]

    def typical_share(self) -> float:
        """Most of the runs after the first are given up early."""
        return 0.25 if self.rivals == 1 else 0.125

    def extra_vectors(self) -> int:
        """The visited points are kept, in capacity that doubles, and a ray through their balls takes copies."""
        capacity: int = 2 ** math.ceil(math.log2(max(self.iterations // self.rivals, 8)))
        return 4 * capacity

    def budget(self, num_classes: int, cost: GradientCost = WhiteBox.cost) -> tuple[int, int]:
        """A step evaluates its point once with a gradient, on the samples of the first stage. Radial refinement may
        count all votes first; tangential refinement counts the first stage's with the gradient."""
        begin = ranking_samples(self.samples) if self.rivals > 1 else 0
        if not cost.differentiates:
            begin = crossing_evaluations()
        first, last = self.stages()[0], self.stages()[-1]
        votes = last - first if self.refine == TANGENTIAL else last
        forward, backward = cost.evaluations(first)
        steps = self.iterations // self.rivals * min(self.rivals, num_classes - 1)
        return begin + steps * (votes + forward), steps * backward

    def _evaluate(self, state: CaaState, classifier: SmoothedClassifier) -> CaaEvaluation:
        """Evaluates x: votes, and the gradients that are needed.

        Until an adversarial point is found every step but the last needs a gradient, so the votes come with one.
        After that votes are drawn alone, and a gradient only for points that turn out not to be adversarial, on the
        first of the same samples; tangential refinement always needs one. Points that are not decided by the samples
        of one stage get those of the next, with alpha divided over the stages.
        """
        stages, alpha = self.stages(), self.alpha / len(self.stages())
        votes = torch.zeros((len(state), classifier.num_classes), dtype=torch.int64, device=state.x.device)
        gradient = torch.zeros_like(state.x.flatten(1))
        votes_alone, with_gradient = _split(state.succeeded.tolist())
        if self.refine == TANGENTIAL:
            votes_alone, with_gradient = [], list(range(len(state)))
        if with_gradient:
            votes[state.index(with_gradient)] = self._differentiate(gradient, state, classifier, with_gradient)
        if votes_alone:
            self._count(votes, state, classifier, votes_alone, 0, stages[0])
        verdict = self._judge(votes, state, classifier, stages[0], alpha)
        decided, succeeds = verdict.for_the_host()
        for before, total in itertools.pairwise(stages):
            undecided = _split(decided)[1]
            if undecided:
                self._count(votes, state, classifier, undecided, before, total)
                verdict = verdict.or_else(self._judge(votes, state, classifier, total, alpha))
                decided, succeeds = verdict.for_the_host()
        lacking = [row for row in votes_alone if not succeeds[row]]
        if lacking:
            self._differentiate(gradient, state, classifier, lacking)
        return CaaEvaluation(votes, gradient, verdict, succeeds)

    def _count(
        self, votes: Tensor, state: CaaState, classifier: SmoothedClassifier, rows: list[int], before: int, total: int
    ) -> None:
        """Adds the votes of samples number `before` to `total`."""
        index = state.index(rows)
        votes[index] += classifier.keyed_votes(state.x[index], state.keys(self.seed, rows), total - before, before)
        state.forward[rows] += total - before

    def _differentiate(
        self, gradient: Tensor, state: CaaState, classifier: SmoothedClassifier, rows: list[int]
    ) -> Tensor:
        """Fills in the gradient of label over rival of these rows, or of the strongest other class over the target;
        returns its votes, (rows, classes)."""
        samples, index = self.stages()[0], state.index(rows)
        x, labels, keys = state.x[index], state.aim.classes[index], state.keys(self.seed, rows)
        if state.rivals.shape[1]:
            rivals = state.rivals.gather(1, state.run[:, None])[index]
            passed = classifier.rival_gradients(x, labels, rivals, keys, samples)
            gradient[index] = -passed.gradient.flatten(1)
        else:
            passed = classifier.surrogate(x, labels, keys, samples, state.aim.objective(self.objective))
            gradient[index] = passed.gradient.flatten(1)
        state.forward[rows] += passed.forward_evaluations
        state.backward[rows] += passed.backward_evaluations
        return passed.votes

    def _judge(
        self, votes: Tensor, state: CaaState, classifier: SmoothedClassifier, total: int, alpha: float
    ) -> Verdict:
        """The verdict on so many votes of each point."""
        judge = judge_of(total, alpha, self.bound, classifier.num_classes)
        count, top = votes.max(dim=1)
        others = largest_other(votes, top)
        radius = judge.radius(count, others, classifier.sigma, self.step_certificate or self.certificate)
        hits = state.aim.reached(votes, total, alpha, self.bound)
        return Verdict(top, radius, adversarial=hits, decided=judge.ahead(count, others) | hits)

    def _move(self, state: CaaState, evaluation: CaaEvaluation, is_original: Tensor, leaving: Tensor) -> Tensor:
        """The points reached, (examples, dimensions). leaving: the examples that are to leave the original class.

        Those go against the gradient of label over rival, out of the original class's union of balls (Eq. CAA_iter);
        where another class leads without confidence there is no ball to leave, and the step is `step_min`; where the
        gradient is lost they stay. The others go towards the clean image, within the union of the adversarial side's
        balls (Eq. correction).
        """
        points, home = state.x.flatten(1), (state.clean - state.x).flatten(1)
        distance: Tensor = home.norm(dim=1)
        outward, _, lost = unit(-evaluation.gradient)
        lost &= leaving
        state.lost_gradients += lost
        inward = home / distance.clamp(min=1e-12)[:, None]
        direction = torch.where(leaving[:, None], outward, inward)
        share = torch.where(leaving, self.overshoot * is_original, self.undershoot)
        length = (share * state.balls.exit(points, direction, leaving)).clamp(self.step_min, self.step_max)
        length = torch.where(leaving, length, torch.minimum(length, distance))
        return (points + length[:, None] * direction).clamp(0.0, 1.0)

    def _slide(self, state: CaaState, evaluation: CaaEvaluation, is_original: Tensor, sliding: Tensor) -> Tensor:
        """The points reached along the boundary, and across it as far as the certificate of x allows (see
        `attacks.caa.tangential`), (examples, dimensions). sliding: the examples that go there."""
        outward, _, lost = unit(-evaluation.gradient)
        state.lost_gradients += sliding & lost
        state.normal = torch.where(sliding[:, None], MEMORY * state.normal + outward, state.normal)
        normal, _, lost = unit(state.normal)
        shrunk = SHRINK**state.refined
        radius = evaluation.verdict.radius
        across = torch.where(is_original, self.overshoot * radius, -self.undershoot * radius)
        across = torch.where(radius > 0, across, shrunk * self.step_min)
        longest = (shrunk * self.step_max).clamp(min=min(SHORTEST, self.step_max))
        points = state.x.flatten(1)
        moved = slide(state.clean.flatten(1), points, normal, across, longest)
        return torch.where(lost[:, None], points, moved)

    def _stop(self, state: CaaState, succeeded: Tensor) -> None:
        nearest = state.near_distance[:, 0]
        improved = nearest < (1.0 - self.tolerance) * state.mark
        state.mark = torch.where(improved, nearest, state.mark)
        state.stale = torch.where(improved | ~succeeded, 0, state.stale + 1)
        over = state.stale >= self.patience if self.patience else torch.zeros_like(state.done)
        if state.rivals.shape[1]:
            behind = state.distance() > _GIVE_UP * nearest
            over |= behind & (~succeeded | (state.refined >= _AT_BOUNDARY))
            over |= state.on_device(state.iteration) + 1 - state.begun >= self.iterations // self.rivals
            again = over & (state.run < state.rivals.shape[1] - 1)
            state.next_run(again)
            over &= ~again
        state.done |= over


def _split(mask: list[bool]) -> tuple[list[int], list[int]]:
    """The rows where it holds, and the others."""
    return [row for row, holds in enumerate(mask) if holds], [row for row, holds in enumerate(mask) if not holds]

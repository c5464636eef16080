"""The certification-aware attack (the paper's Section CAA and its Algorithm CAA).

Every visited point has a certified radius: inside that ball the predicted class can't change. While the original
class is predicted, a step that stays in the union of its balls would be wasted, so the step ends just beyond it.
Once another class is confident, a step towards the clean image is safe as long as it stays within the union of
the balls of that side. Either length is then clipped to fixed limits. Algorithm CAA as printed has its two
branches and the ranges of δ the wrong way round; this follows the equations CAA_iter, epsilon_complex,
step_size_limits and correction.

Two settings go beyond the paper. `refine` may slide along the boundary (`attacks.slide`), and with several `rivals`
an example has one run for each of the most likely other classes, one after another, and keeps the nearest points.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import every_row, unit
from caa_cli.attacks.caa.state import CaaEvaluation, CaaState
from caa_cli.attacks.caa.tangential import MEMORY, SHORTEST, SHRINK, slide
from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.criterion import adversarial
from caa_cli.attacks.common.race import ranking_samples, top_classes
from caa_cli.attacks.common.starting_points import begin_beyond, crossing_evaluations
from caa_cli.attacks.common.state import Example
from caa_cli.config import attacks as settings
from caa_cli.config.choices import FIXED, GUMBEL, TANGENTIAL
from caa_cli.config.settings import Settings
from caa_cli.smoothing.bounds import leader, separation
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import PILOT, GradientCost
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.objective import GumbelGap, LogRatio, Objective

# A run whose distance is this many times the nearest point's is given up: before it has found anything, or once it
# has refined for as many steps as usually bring it to its boundary.
_GIVE_UP, _AT_BOUNDARY = 1.1, 4


@dataclass(frozen=True)
class CertificationAware(settings.Caa, Attack[CaaState]):
    """Settings, with the paper's values. Lengths are L2 in [0, 1] pixel units.

    overshoot, undershoot: the paper's 1 + δ₁ and 1 − δ₂. patience, tolerance: an example stops once `patience`
    steps in a row have reduced its nearest distance by less than the fraction `tolerance` (patience 0: never).
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
        return GumbelGap(self.temperature) if self.surrogate == GUMBEL else LogRatio()

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
        is_original = evaluation.top == state.labels
        rows = every_row(state)
        points = state.x.flatten(1)
        for side, balls in ((is_original, state.original), (~is_original, state.adversarial)):
            balls.add(rows, points, torch.where(side, evaluation.radius, 0.0))

        hits, misses = rows[evaluation.adversarial], rows[~evaluation.adversarial]
        state.remember(hits, evaluation.votes[hits])
        state.succeeded[hits] = True
        if self.refine == TANGENTIAL:
            self._leave(state, rows[~state.succeeded], evaluation.gradient, is_original)
            self._slide(state, rows[state.succeeded], evaluation, is_original)
        else:
            # Refinement needs no gradient; the other branches do, and take the missing ones now, on the first of the
            # samples that the votes came from.
            lacking = rows[~evaluation.adversarial & ~evaluation.has_gradient]
            if len(lacking):
                evaluation.gradient[lacking] = self._gradient_pass(state, classifier, lacking)[1]
            self._leave(state, misses, evaluation.gradient, is_original)
            self._refine(state, hits)
        state.refined += state.succeeded
        self._stop(state)

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
        """The visited points of either side are kept, in capacity that doubles, and a ray through the balls of one
        side takes two copies of them."""
        capacity: int = 2 ** math.ceil(math.log2(max(self.iterations // self.rivals, 8)))
        return 5 * capacity

    def budget(self, cost: GradientCost = WhiteBox.cost) -> tuple[int, int]:
        """A step evaluates its point once with a gradient, on the samples of the first stage. Radial refinement may
        count all votes first; tangential refinement counts the first stage's with the gradient."""
        begin = ranking_samples(self.samples) if self.rivals > 1 else 0
        if not cost.differentiates:
            begin = crossing_evaluations()
        first, last = self.stages()[0], self.stages()[-1]
        votes = last - first if self.refine == TANGENTIAL else last
        forward, backward = cost.evaluations(first)
        return begin + self.iterations * (votes + forward), self.iterations * backward

    def _evaluate(self, state: CaaState, classifier: SmoothedClassifier) -> CaaEvaluation:
        """Evaluates x: votes, and the gradients that are certain to be needed.

        Until an adversarial point is found every step but the last needs a gradient, so the votes come with
        one. After that votes are drawn alone, unless refinement is tangential. Points that are not decided by the
        samples of one stage get those of the next, with alpha divided over the stages.
        """
        stages = self.stages()
        size, device = len(state), state.x.device
        evaluation = CaaEvaluation(
            votes=torch.zeros((size, classifier.num_classes), dtype=torch.int64, device=device),
            top=torch.zeros_like(state.labels),
            radius=torch.zeros(size, device=device),
            adversarial=torch.zeros(size, dtype=torch.bool, device=device),
            gradient=torch.zeros_like(state.x.flatten(1)),
            has_gradient=torch.ones_like(state.succeeded) if self.refine == TANGENTIAL else ~state.succeeded,
        )
        rows = every_row(state)
        with_gradient, votes_alone = rows[evaluation.has_gradient], rows[~evaluation.has_gradient]
        if len(with_gradient):
            votes, gradient = self._gradient_pass(state, classifier, with_gradient)
            evaluation.votes[with_gradient], evaluation.gradient[with_gradient] = votes, gradient
        if len(votes_alone):
            self._count(evaluation, state, classifier, votes_alone, 0, stages[0])
        undecided = self._judge(evaluation, state, classifier, rows, stages[0], self.alpha / len(stages))
        for before, total in itertools.pairwise(stages):
            if len(undecided) == 0:
                break
            self._count(evaluation, state, classifier, undecided, before, total)
            undecided = self._judge(evaluation, state, classifier, undecided, total, self.alpha / len(stages))
        return evaluation

    def _count(
        self,
        evaluation: CaaEvaluation,
        state: CaaState,
        classifier: SmoothedClassifier,
        rows: Tensor,
        before: int,
        total: int,
    ) -> None:
        """Adds the votes of samples number `before` to `total`."""
        keys = state.keys(self.seed, rows)
        evaluation.votes[rows] += classifier.votes(state.x[rows], keys, total - before, before)
        state.forward[rows] += total - before

    def _gradient_pass(self, state: CaaState, classifier: SmoothedClassifier, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Votes (rows, classes), and the gradient of label over rival (rows, dimensions) on the same samples."""
        samples = self.stages()[0]
        x, labels, keys = state.x[rows], state.labels[rows], state.keys(self.seed, rows)
        if state.rivals.shape[1]:
            rival = state.rivals[rows, state.run[rows]]
            passed = classifier.rival_gradients(x, labels, rival[:, None], keys, samples)
            gradient = -passed.gradient
        else:
            passed = classifier.surrogate(x, labels, keys, samples, self.objective)
            gradient = passed.gradient
        state.forward[rows] += passed.forward_evaluations
        state.backward[rows] += passed.backward_evaluations
        return passed.votes, gradient.flatten(1)

    def _judge(
        self,
        evaluation: CaaEvaluation,
        state: CaaState,
        classifier: SmoothedClassifier,
        rows: Tensor,
        total: int,
        alpha: float,
    ) -> Tensor:
        """Fills in class, radius and criterion by the votes of these rows; returns the rows that are undecided."""
        votes, labels = evaluation.votes[rows], state.labels[rows]
        counts = votes.cpu().numpy()
        top = leader(counts)
        ahead = separation(counts, total, top, alpha, self.bound)
        evaluation.top[rows] = torch.from_numpy(top).to(rows.device)
        evaluation.radius[rows] = torch.from_numpy(ahead.radius(classifier.sigma)).to(rows.device, torch.float32)
        evaluation.adversarial[rows] = adversarial(votes, labels, total, alpha, self.bound)
        decided = evaluation.adversarial[rows] | (torch.from_numpy(ahead.confident).to(rows.device))
        return rows[~decided]

    def _leave(self, state: CaaState, rows: Tensor, gradient: Tensor, is_original: Tensor) -> None:
        """Eq. CAA_iter: moves against the gradient of label over rival, out of the original class's union of balls.

        Where another class leads without confidence there is no ball to leave, and the step is `step_min`.
        """
        slope = gradient[rows]
        norm = slope.norm(dim=1)
        usable = torch.isfinite(norm) & (norm > 0)
        state.lost_gradients[rows[~usable]] += 1
        rows, direction = rows[usable], -slope[usable] / norm[usable, None]
        if len(rows) == 0:
            return
        way_out = state.original.exit(rows, state.x[rows].flatten(1), direction)
        length = torch.where(is_original[rows], self.overshoot * way_out, 0.0)
        self._move(state, rows, direction, length.clamp(self.step_min, self.step_max))

    def _refine(self, state: CaaState, rows: Tensor) -> None:
        """Eq. correction: moves towards the clean image, within the union of the adversarial side's balls."""
        if len(rows) == 0:
            return
        home = (state.clean[rows] - state.x[rows]).flatten(1)
        distance = home.norm(dim=1)
        direction = home / distance.clamp(min=1e-12)[:, None]
        safe = state.adversarial.exit(rows, state.x[rows].flatten(1), direction)
        length = (self.undershoot * safe).clamp(self.step_min, self.step_max)
        self._move(state, rows, direction, torch.minimum(length, distance))

    def _slide(self, state: CaaState, rows: Tensor, evaluation: CaaEvaluation, is_original: Tensor) -> None:
        """Moves along the boundary, and across it as far as the certificate of x allows (see `attacks.slide`)."""
        if len(rows) == 0:
            return
        outward, _, usable = unit(-evaluation.gradient[rows])
        state.lost_gradients[rows[~usable]] += 1
        state.normal[rows] = MEMORY * state.normal[rows] + outward
        normal, _, usable = unit(state.normal[rows])
        shrunk = SHRINK ** state.refined[rows]
        radius = evaluation.radius[rows]
        across = torch.where(is_original[rows], self.overshoot * radius, -self.undershoot * radius)
        across = torch.where(radius > 0, across, shrunk * self.step_min)
        longest = (shrunk * self.step_max).clamp(min=min(SHORTEST, self.step_max))
        point = state.x[rows].flatten(1)
        moved = slide(state.clean[rows].flatten(1), point, normal, across, longest)
        state.x[rows] = torch.where(usable[:, None], moved, point).view_as(state.x[rows])

    def _move(self, state: CaaState, rows: Tensor, direction: Tensor, length: Tensor) -> None:
        moved = state.x[rows].flatten(1) + length[:, None] * direction
        state.x[rows] = moved.clamp(0.0, 1.0).view_as(state.x[rows])

    def _stop(self, state: CaaState) -> None:
        nearest = state.near_distance[:, 0]
        improved = nearest < (1.0 - self.tolerance) * state.mark
        state.mark = torch.where(improved, nearest, state.mark)
        state.stale = torch.where(improved | ~state.succeeded, 0, state.stale + 1)
        over = state.stale >= self.patience if self.patience else torch.zeros_like(state.done)
        if state.rivals.shape[1]:
            rows = every_row(state)
            behind = state.distance(rows) > _GIVE_UP * nearest
            over |= behind & (~state.succeeded | (state.refined >= _AT_BOUNDARY))
            over |= state.iteration + 1 - state.begun >= self.iterations // self.rivals
            again = over & (state.run < state.rivals.shape[1] - 1)
            state.next_run(rows[again])
            over &= ~again
        state.done |= over

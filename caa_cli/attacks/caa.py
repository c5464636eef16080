"""The certification-aware attack (the paper's Section CAA and its Algorithm CAA).

Every visited point has a certified radius: inside that ball the predicted class can't change. While the original
class holds, a step shorter than the way out of the union of its balls would be wasted, so it goes just beyond it.
Once another class is certain, stepping towards the clean image is safe as long as it stays within the union of
the balls of that side. Either length is then clipped to fixed limits. Algorithm CAA as printed has its two
branches and the ranges of δ the wrong way round; this follows the equations CAA_iter, epsilon_complex,
step_size_limits and correction.

Two settings go beyond the paper. `refine` may slide along the boundary (`attacks.slide`), and with several `rivals`
an example has a run for each of the likeliest other classes, one after another, and keeps the nearest point of all.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from caa_cli.attacks.baseline import unit
from caa_cli.attacks.caa_state import CaaState, Look
from caa_cli.attacks.crossing import begin_beyond
from caa_cli.attacks.judge import adversarial
from caa_cli.attacks.loop import Example
from caa_cli.attacks.rivals import likeliest, look_at
from caa_cli.attacks.slide import MEMORY, SHORTEST, SHRINK, slide
from caa_cli.config import attacks as settings
from caa_cli.config.bounds import GOODMAN
from caa_cli.config.settings import Settings
from caa_cli.names import FIXED, GUMBEL, TANGENTIAL
from caa_cli.smoothing.bounds import leader, separation
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.objective import GumbelGap, LogRatio, Objective

# A run this many times as far away as the nearest point of the runs before it is given up: before it has found
# anything, or once it has refined for as many steps as bring it to its boundary.
_GIVE_UP, _AT_BOUNDARY = 1.1, 4


@dataclass(frozen=True)
class CertificationAware(settings.Caa):
    """Settings, with the paper's values. Lengths are L2 in [0, 1] pixel units.

    overshoot, undershoot: the paper's 1 + δ₁ and 1 − δ₂. patience, tolerance: an example stops once `patience`
    steps in a row have brought its nearest point no closer than by the fraction `tolerance` (patience 0: never).
    rivals: how many runs, each after a class of its own; 1: one run, after whichever class leads. iterations: of
    all runs together, shared out evenly.
    """

    samples: int = 1500
    iterations: int = 100
    alpha: float = 0.005
    bound: str = GOODMAN
    seed: int = 0

    @classmethod
    def of(cls, settings: Settings, iterations: int, **run: Any) -> Self:
        """The attack with these settings. iterations: as --iterations says, of each run."""
        attack = cls(iterations=iterations, **run, **vars(settings))
        return replace(attack, iterations=iterations * attack.rivals)

    @property
    def objective(self) -> Objective:
        return GumbelGap(self.temperature) if self.surrogate == GUMBEL else LogRatio()

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> CaaState:
        if self.rivals > 1:
            rivals = likeliest(examples, classifier, self.rivals, self.seed, self.samples)
            state = CaaState.new(examples, classifier.num_classes, rivals)
            state.forward += look_at(self.samples)
            return state
        state = CaaState.new(examples, classifier.num_classes)
        if not classifier.differentiates:  # at the clean image votes show no direction
            # Without a way across there is nothing to follow.
            state.done |= ~begin_beyond(state, examples, classifier, 1, self.seed).found[:, 0]
        return state

    def step(self, state: CaaState, classifier: SmoothedClassifier) -> None:
        seen = self._look(state, classifier)
        is_original = seen.top == state.labels
        rows = torch.arange(len(state), device=state.x.device)
        points = state.x.flatten(1)
        for side, balls in ((is_original, state.original), (~is_original, state.adversarial)):
            balls.add(rows, points, torch.where(side, seen.radius, 0.0))

        hits, uphill = rows[seen.adversarial], rows[~seen.adversarial]
        state.remember(hits, seen.votes[hits])
        state.found[hits] = True
        if self.refine == TANGENTIAL:
            self._leave(state, rows[~state.found], seen.gradient, is_original)
            self._slide(state, rows[state.found], seen, is_original)
        else:
            # Refinement needs no gradient; the other branches do, and those that have none yet draw it now,
            # on the first of the samples that the votes came from.
            lacking = rows[~seen.adversarial & ~seen.has_gradient]
            if len(lacking):
                seen.gradient[lacking] = self._gradient_pass(state, classifier, lacking)[1]
            self._leave(state, uphill, seen.gradient, is_original)
            self._refine(state, hits)
        state.refined += state.found
        self._stop(state)

    def stages(self) -> list[int]:
        """How many samples of a point have been counted after each stage."""
        if self.sample_schedule == FIXED:
            return [self.samples]
        # The finish finds the boundary along the ray, so a third of the samples is enough to decide a point here, and
        # far from the boundary a sixth; the gradient wants its pilot in any case.
        first = min(self.samples, max(SmoothedClassifier.PILOT, self.samples // 6))
        last = self.samples // 3
        # A stage that adds little is not worth its share of alpha.
        return [first] if 2 * last < 3 * first else [first, last]

    def _look(self, state: CaaState, classifier: SmoothedClassifier) -> Look:
        """Votes at x, and the gradients that will surely be wanted.

        Until an adversarial point is known every step but the last needs a gradient, so the votes come with
        one. After that they are drawn alone, unless refinement slides: most points are then refined. Points that
        are not decided by the samples of one stage get those of the next, with alpha shared out over the stages.
        """
        stages = self.stages()
        size, device = len(state), state.x.device
        look = Look(
            votes=torch.zeros((size, classifier.num_classes), dtype=torch.int64, device=device),
            top=torch.zeros_like(state.labels),
            radius=torch.zeros(size, device=device),
            adversarial=torch.zeros(size, dtype=torch.bool, device=device),
            gradient=torch.zeros_like(state.x.flatten(1)),
            has_gradient=torch.ones_like(state.found) if self.refine == TANGENTIAL else ~state.found,
        )
        rows = torch.arange(size, device=device)
        with_gradient, votes_alone = rows[look.has_gradient], rows[~look.has_gradient]
        if len(with_gradient):
            votes, gradient = self._gradient_pass(state, classifier, with_gradient)
            look.votes[with_gradient], look.gradient[with_gradient] = votes, gradient
        if len(votes_alone):
            self._count(look, state, classifier, votes_alone, 0, stages[0])
        undecided = self._judge(look, state, classifier, rows, stages[0], self.alpha / len(stages))
        for before, total in itertools.pairwise(stages):
            if len(undecided) == 0:
                break
            self._count(look, state, classifier, undecided, before, total)
            undecided = self._judge(look, state, classifier, undecided, total, self.alpha / len(stages))
        return look

    def _count(
        self, look: Look, state: CaaState, classifier: SmoothedClassifier, rows: Tensor, before: int, total: int
    ) -> None:
        """Adds the votes of samples `before` to `total`."""
        keys = state.keys(self.seed, rows)
        look.votes[rows] += classifier.votes(state.x[rows], keys, total - before, before)
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
        state.backward[rows] += samples
        return passed.votes, gradient.flatten(1)

    def _judge(
        self, look: Look, state: CaaState, classifier: SmoothedClassifier, rows: Tensor, total: int, alpha: float
    ) -> Tensor:
        """Fills in what the votes of these rows say at this level; returns the rows that they leave open."""
        votes, labels = look.votes[rows], state.labels[rows]
        counts = votes.cpu().numpy()
        top = leader(counts)
        ahead = separation(counts, total, top, alpha, self.bound)
        look.top[rows] = torch.from_numpy(top).to(rows.device)
        look.radius[rows] = torch.from_numpy(ahead.radius(classifier.sigma)).to(rows.device, torch.float32)
        look.adversarial[rows] = adversarial(votes, labels, total, alpha, self.bound)
        decided = look.adversarial[rows] | (torch.from_numpy(ahead.confident).to(rows.device))
        return rows[~decided]

    def _leave(self, state: CaaState, rows: Tensor, gradient: Tensor, is_original: Tensor) -> None:
        """Eq. CAA_iter: against the gradient of label-over-rival, beyond the union of the original class's balls.

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
        """Eq. correction: straight towards the clean image, within the union of the adversarial side's balls."""
        if len(rows) == 0:
            return
        home = (state.clean[rows] - state.x[rows]).flatten(1)
        distance = home.norm(dim=1)
        direction = home / distance.clamp(min=1e-12)[:, None]
        safe = state.adversarial.exit(rows, state.x[rows].flatten(1), direction)
        length = (self.undershoot * safe).clamp(self.step_min, self.step_max)
        self._move(state, rows, direction, torch.minimum(length, distance))

    def _slide(self, state: CaaState, rows: Tensor, seen: Look, is_original: Tensor) -> None:
        """Along the boundary, and across it as far as the certificate of x says (see `attacks.slide`)."""
        if len(rows) == 0:
            return
        outward, _, usable = unit(-seen.gradient[rows])
        state.lost_gradients[rows[~usable]] += 1
        state.normal[rows] = MEMORY * state.normal[rows] + outward
        normal, _, usable = unit(state.normal[rows])
        shrunk = SHRINK ** state.refined[rows]
        radius = seen.radius[rows]
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
        state.stale = torch.where(improved | ~state.found, 0, state.stale + 1)
        over = state.stale >= self.patience if self.patience else torch.zeros_like(state.done)
        if state.rivals.shape[1]:
            rows = torch.arange(len(state), device=state.x.device)
            behind = state.distance(rows) > _GIVE_UP * nearest
            over |= behind & (~state.found | (state.refined >= _AT_BOUNDARY))
            over |= state.iteration + 1 - state.begun >= self.iterations // self.rivals
            again = over & (state.run < state.rivals.shape[1] - 1)
            state.next_run(rows[again])
            over &= ~again
        state.done |= over

"""The certification-aware attack (the paper's Section CAA and its Algorithm CAA).

Every visited point has a certified radius: inside that ball the predicted class can't change. While the original
class holds, a step shorter than the way out of the union of its balls would be wasted, so it goes just beyond it.
Once another class is certain, stepping towards the clean image is safe as long as it stays within the union of
the balls of that side. Either length is then clipped to fixed limits. Algorithm CAA as printed has its two
branches and the ranges of δ the wrong way round; this follows the equations CAA_iter, epsilon_complex,
step_size_limits and correction.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import torch
from torch import Tensor

from caa_cli.attacks.crossing import begin_beyond
from caa_cli.attacks.geometry import Balls
from caa_cli.attacks.judge import adversarial
from caa_cli.attacks.loop import Batch, Example
from caa_cli.names import FIXED, STAGED
from caa_cli.smoothing.bounds import GOODMAN, leader, separation
from caa_cli.smoothing.classifier import SmoothedClassifier, SurrogatePass
from caa_cli.smoothing.objective import LogRatio, Objective


@dataclass
class CaaState(Batch):
    """original, adversarial: the certified balls of either side. found: a confident point is known.

    stale: steps since the nearest distance last fell by more than `tolerance`; mark: that distance.
    """

    original: Balls
    adversarial: Balls
    found: Tensor
    stale: Tensor
    mark: Tensor


@dataclass
class Look:
    """What the samples of one step say of x, one row an example.

    votes: (examples, classes) int64.  top: the class with the most.  radius: certified, of that class.
    adversarial: whether another class is confidently above the label.
    gradient: (examples, dimensions), of those that `has_gradient` names.
    """

    votes: Tensor
    top: Tensor
    radius: Tensor
    adversarial: Tensor
    gradient: Tensor
    has_gradient: Tensor


@dataclass(frozen=True)
class CertificationAware:
    """Settings, with the paper's values. Lengths are L2 in [0, 1] pixel units.

    overshoot, undershoot: the paper's 1 + δ₁ and 1 − δ₂. patience, tolerance: an example stops once `patience`
    steps in a row have brought its nearest point no closer than by the fraction `tolerance` (patience 0: never).
    """

    samples: int = 1500
    iterations: int = 100
    alpha: float = 0.005
    bound: str = GOODMAN
    seed: int = 0
    overshoot: float = 1.05
    undershoot: float = 0.95
    step_min: float = 0.1
    step_max: float = 0.25
    patience: int = 8
    tolerance: float = 0.005
    sample_schedule: str = STAGED
    objective: Objective = field(default_factory=LogRatio)

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> CaaState:
        common = CaaState.common(examples, classifier.num_classes)
        size, device = len(examples), common["clean"].device
        dimensions = common["clean"][0].numel()
        state = CaaState(
            **common,
            original=Balls(size, dimensions, device),
            adversarial=Balls(size, dimensions, device),
            found=torch.zeros(size, dtype=torch.bool, device=device),
            stale=torch.zeros(size, dtype=torch.int64, device=device),
            mark=torch.full((size,), torch.inf, device=device),
        )
        if not classifier.differentiates:  # at the clean image votes show no direction
            begin_beyond(state, examples, classifier, 1, self.seed)
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
        # Refinement needs no gradient; the other branches do, and those that have none yet draw it now,
        # on the first of the samples that the votes came from.
        lacking = rows[~seen.adversarial & ~seen.has_gradient]
        if len(lacking):
            seen.gradient[lacking] = self._gradient_pass(state, classifier, lacking).gradient.flatten(1)
        self._leave(state, uphill, seen.gradient, is_original)
        self._refine(state, hits)
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
        one. After that they are drawn alone: most points are then refined. Points that are not decided by the
        samples of one stage get those of the next, with alpha shared out over the stages.
        """
        stages = self.stages()
        size, device = len(state), state.x.device
        look = Look(
            votes=torch.zeros((size, classifier.num_classes), dtype=torch.int64, device=device),
            top=torch.zeros_like(state.labels),
            radius=torch.zeros(size, device=device),
            adversarial=torch.zeros(size, dtype=torch.bool, device=device),
            gradient=torch.zeros_like(state.x.flatten(1)),
            has_gradient=~state.found,
        )
        rows = torch.arange(size, device=device)
        searching, refining = rows[~state.found], rows[state.found]
        if len(searching):
            passed = self._gradient_pass(state, classifier, searching)
            look.votes[searching] = passed.votes
            look.gradient[searching] = passed.gradient.flatten(1)
        if len(refining):
            self._count(look, state, classifier, refining, 0, stages[0])
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

    def _gradient_pass(self, state: CaaState, classifier: SmoothedClassifier, rows: Tensor) -> SurrogatePass:
        samples = self.stages()[0]
        passed = classifier.surrogate(
            state.x[rows], state.labels[rows], state.keys(self.seed, rows), samples, self.objective
        )
        state.forward[rows] += passed.forward_evaluations
        state.backward[rows] += samples
        return passed

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

    def _move(self, state: CaaState, rows: Tensor, direction: Tensor, length: Tensor) -> None:
        moved = state.x[rows].flatten(1) + length[:, None] * direction
        state.x[rows] = moved.clamp(0.0, 1.0).view_as(state.x[rows])

    def _stop(self, state: CaaState) -> None:
        nearest = state.near_distance[:, 0]
        improved = nearest < (1.0 - self.tolerance) * state.mark
        state.mark = torch.where(improved, nearest, state.mark)
        state.stale = torch.where(improved | ~state.found, 0, state.stale + 1)
        if self.patience:
            state.done |= state.stale >= self.patience

"""The certification-aware attack (the paper's Section CAA and its Algorithm CAA).

Every visited point has a certified radius: inside that ball the predicted class can't change. While the original
class holds, a step shorter than the way out of the union of its balls would be wasted, so it goes just beyond it.
Once another class is certain, stepping towards the clean image is safe as long as it stays within the union of
the balls of that side. Either length is then clipped to fixed limits. Algorithm CAA as printed has its two
branches and the ranges of δ the wrong way round; this follows the equations CAA_iter, epsilon_complex,
step_size_limits and correction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from caa_cli.attacks.geometry import Balls
from caa_cli.attacks.judge import adversarial
from caa_cli.attacks.loop import Batch, Example
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
    objective: Objective = field(default_factory=LogRatio)

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> CaaState:
        common = CaaState.common(examples, classifier.num_classes)
        size, device = len(examples), common["clean"].device
        dimensions = common["clean"][0].numel()
        return CaaState(
            **common,
            original=Balls(size, dimensions, device),
            adversarial=Balls(size, dimensions, device),
            found=torch.zeros(size, dtype=torch.bool, device=device),
            stale=torch.zeros(size, dtype=torch.int64, device=device),
            mark=torch.full((size,), torch.inf, device=device),
        )

    def step(self, state: CaaState, classifier: SmoothedClassifier) -> None:
        votes, gradient, has_gradient = self._evaluate(state, classifier)
        top, confident, radius = self._judge(state, classifier, votes)
        is_original = top == state.labels
        rows = torch.arange(len(state), device=state.x.device)
        points = state.x.flatten(1)
        for side, balls in ((is_original, state.original), (~is_original, state.adversarial)):
            balls.add(rows, points, torch.where(side, radius, 0.0))

        hits = rows[confident]
        state.remember(hits, votes[confident])
        state.found |= confident

        # Refinement needs no gradient; the other branches do, and those that have none yet draw it now,
        # on the very samples that the votes came from.
        lacking = rows[~confident & ~has_gradient]
        if len(lacking):
            passed = self._gradient_pass(state, classifier, lacking)
            gradient[lacking] = passed.gradient.flatten(1)

        uphill = rows[~confident]
        self._leave(state, uphill, gradient, is_original)
        self._refine(state, hits)
        self._stop(state)

    def _evaluate(self, state: CaaState, classifier: SmoothedClassifier) -> tuple[Tensor, Tensor, Tensor]:
        """Votes at x, and the gradients that will surely be wanted.

        Until an adversarial point is known every step but the last needs a gradient, so the votes come with
        one. After that they are drawn alone: most points are then refined.
        """
        rows = torch.arange(len(state), device=state.x.device)
        votes = torch.zeros((len(state), classifier.num_classes), dtype=torch.int64, device=state.x.device)
        gradient = torch.zeros_like(state.x.flatten(1))
        searching, refining = rows[~state.found], rows[state.found]
        if len(searching):
            passed = self._gradient_pass(state, classifier, searching)
            votes[searching] = passed.votes
            gradient[searching] = passed.gradient.flatten(1)
        if len(refining):
            keys = state.keys(self.seed, refining)
            votes[refining] = classifier.votes(state.x[refining], keys, self.samples)
            state.forward[refining] += self.samples
        return votes, gradient, ~state.found

    def _gradient_pass(self, state: CaaState, classifier: SmoothedClassifier, rows: Tensor) -> SurrogatePass:
        passed = classifier.surrogate(
            state.x[rows], state.labels[rows], state.keys(self.seed, rows), self.samples, self.objective
        )
        state.forward[rows] += passed.forward_evaluations
        state.backward[rows] += self.samples
        return passed

    def _judge(self, state: CaaState, classifier: SmoothedClassifier, votes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(top class, whether another class is confidently above the label, certified radius of the top class)."""
        counts = votes.cpu().numpy()
        top = leader(counts)
        radius = separation(counts, self.samples, top, self.alpha, self.bound).radius(classifier.sigma)
        device = state.x.device
        return (
            torch.from_numpy(top).to(device),
            adversarial(votes, state.labels, self.samples, self.alpha, self.bound),
            torch.from_numpy(radius).to(device, torch.float32),
        )

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

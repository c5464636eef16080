"""`caa-newton` by votes alone: a walk along the boundary, from another image's side of it towards the clean image.

Where the label has every vote there is no gradient to be had from votes, so Newton's way from the clean image to the
boundary is closed. The walk begins on the boundary (`crossing`), and stays there: each look at a point x gives the
gradient of h = σ/2 (Φ⁻¹(p_k) − Φ⁻¹(p_y)) by Stein's lemma, its slope along the direction so far, and h(x) itself, all
from the same votes. The next point is the one nearest to the clean image, in the box, at which their plane has the
margin that a proof will ask for, no further away than the longest step.

Stein's gradient is noisy: of d pixels its noise has the length √(d/n)/σ, against a signal of about 0.8/σ. So the
gradients of many looks are averaged, and the noise of the average is filtered out by its spectrum.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baseline import unit
from caa_cli.attacks.crossing import LOOK, LOOKS, begin_beyond
from caa_cli.attacks.geometry import no_longer
from caa_cli.attacks.judge import adversarial
from caa_cli.attacks.loop import Batch, Example
from caa_cli.attacks.newton import margins, shortest
from caa_cli.attacks.race import Race, Runs, still_racing
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.wiener import wiener_filter

# Beyond this many σ from the boundary too few votes differ for a gradient.
_NEAR = 0.6
# The last point counts as one for the finish to begin from unless it is this many σ short of the boundary.
_AT_BOUNDARY = 0.25
# The longest step: at first this share of the way to the clean image; after a look that was near the boundary it
# shrinks by the first factor, after one that was not by the second, down to the shortest, in pixel units.
_FIRST, _SHRINK, _BACK, _SHORTEST = 0.3, 0.85, 0.5, 0.05
# The most of a step that goes to or from the boundary, in pixel units.
_LONGEST = 0.5
# How many samples all votes about a slope may weigh together.
_SLOPE_MOST = 20000.0


@dataclass
class WalkState(Runs):
    """before: the last point near the boundary.

    longest: step.  gradient: the average, weight and spread: the sums of its weights and of their squares, in inverse
    variances.  slope: of `Runs`, along the gradients.  size: of `Runs`, how far the point is that the plane asks for.
    """

    before: Tensor
    longest: Tensor
    gradient: Tensor
    weight: Tensor
    spread: Tensor


@dataclass(frozen=True)
class Walk(Race):
    """See the module. A look takes from a third of `samples` to 8/3 of it."""

    SHARES = (1 / 3, 2 / 3, 4 / 3, 8 / 3)

    def most_evaluations(self, others: int) -> int:
        """Forward model evaluations of an image, with this many others to begin with."""
        taken = self.most_draws()
        return taken + others * LOOK * (LOOKS + 1)

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> WalkState:
        common = Batch.common(examples, classifier.num_classes)
        begun = Batch(**common)
        found = begin_beyond(begun, examples, classifier, self.rivals, self.seed)
        home = (found.point - begun.clean.flatten(1)[:, None]).norm(dim=2)
        return WalkState(
            **vars(begun),
            rivals=found.rival,
            alive=found.found,
            point=found.point,
            before=found.point.clone(),
            longest=_FIRST * home,
            gradient=torch.zeros_like(found.point),
            weight=torch.zeros_like(home),
            spread=torch.zeros_like(home),
            **Runs.nothing_known(home),
        )

    def step(self, state: WalkState, classifier: SmoothedClassifier) -> None:
        state.alive = still_racing(state.alive, state.size, state.iteration, self.steps, self.rivals)
        state.done |= ~state.alive.any(dim=1)
        # Examples that joined at different times are at different steps, with different numbers of samples.
        for iteration in state.iteration.unique().tolist():
            rows, runs = (state.alive & (state.iteration == iteration)[:, None]).nonzero(as_tuple=True)
            if len(rows):
                self._advance(state, classifier, rows, runs, iteration)

    def _advance(
        self, state: WalkState, classifier: SmoothedClassifier, rows: Tensor, runs: Tensor, iteration: int
    ) -> None:
        """One look at the points of these runs, and their next points."""
        samples, sigma, at = self.draws(iteration), classifier.sigma, (rows, runs)
        labels, rivals = state.labels[rows], state.rivals[at]
        passed = classifier.towards(
            state.point[at].view(-1, *classifier.input_shape),
            labels,
            rivals,
            state.keys(self.seed, rows),
            samples,
            self._direction(state, rows, runs, classifier),
        )
        state.forward.index_put_((rows,), passed.forward_evaluations, accumulate=True)
        state.backward.index_put_((rows,), torch.full_like(rows, passed.backward_evaluations), accumulate=True)
        seen = margins(passed.votes, passed.moments, labels, rivals, samples, sigma)
        confident = adversarial(passed.votes, labels, samples, self.alpha, self.bound)
        last = (state.iteration[rows] == self.steps - 1) & (seen.h > -_AT_BOUNDARY * sigma)
        state.offer(rows, runs, passed.votes, confident, last)
        assert passed.variance is not None, "the walk is for a classifier that is seen by its votes"
        gradient, variance = passed.gradient.flatten(1), passed.variance
        usable = unit(gradient)[2]
        state.lost_gradients[rows[~usable].unique()] += 1
        near = usable & (seen.h.abs() < _NEAR * sigma)
        self._learn(state, rows[near], runs[near], gradient[near], variance[near])
        # Along directions that earlier looks gave: along this look's own its noise would make more of it.
        state.learn_slope(rows, runs, seen.slope, samples, near & (seen.slope != 0), _SLOPE_MOST)
        self._move(state, rows, runs, seen.h, near, classifier)

    def _direction(self, state: WalkState, rows: Tensor, runs: Tensor, classifier: SmoothedClassifier) -> Tensor:
        """The averaged gradient without most of its noise, at unit length; zero where there is none yet."""
        variance = state.spread[rows, runs] / state.weight[rows, runs].square().clamp(min=1e-30)
        return unit(wiener_filter(state.gradient[rows, runs], variance, classifier.input_shape))[0]

    def _learn(self, state: WalkState, rows: Tensor, runs: Tensor, gradient: Tensor, variance: Tensor) -> None:
        """Averages this look's gradient into the run's, older ones counting less."""
        weight = 1.0 / variance.clamp(min=1e-12)
        total = self.memory * state.weight[rows, runs] + weight
        state.gradient[rows, runs] = torch.lerp(state.gradient[rows, runs], gradient, (weight / total)[:, None])
        state.weight[rows, runs] = total
        state.spread[rows, runs] = self.memory**2 * state.spread[rows, runs] + weight

    def _move(
        self, state: WalkState, rows: Tensor, runs: Tensor, h: Tensor, near: Tensor, classifier: SmoothedClassifier
    ) -> None:
        """To the nearest point that the plane says has the target's margin, no further than the longest step.

        Far on the rival's side: towards the clean image by h, which is safe, for h is 1-Lipschitz. Far on the
        label's: half of the way back.
        """
        clean, point, longest = state.clean[rows].flatten(1), state.point[rows, runs], state.longest[rows, runs]
        direction = self._direction(state, rows, runs, classifier)
        need = (self.target * classifier.sigma - h) / state.slope[rows, runs]
        nearest = clean + shortest(clean, direction, need + (direction * (point - clean)).sum(dim=1))
        # Back to the boundary in any case, by what h says; how far along it the plane holds is another matter.
        ahead = need.clamp(min=-_LONGEST, max=_LONGEST)[:, None] * direction
        move = ahead + no_longer(nearest - point - ahead, longest)
        home = clean - point
        inward = unit(home)[0] * torch.minimum(h, home.norm(dim=1))[:, None]
        back = 0.5 * (state.before[rows, runs] - point)
        beyond = h > 0
        move = torch.where(near[:, None], move, torch.where(beyond[:, None], inward, back))
        state.before[rows, runs] = torch.where((near | beyond)[:, None], point, state.before[rows, runs])
        state.point[rows, runs] = (point + move).clamp(0.0, 1.0)
        shorter = longest * torch.where(near, _SHRINK, _BACK)
        state.longest[rows, runs] = shorter.clamp(min=_SHORTEST)
        known = (state.before[rows, runs] - clean).norm(dim=1)
        state.size[rows, runs] = torch.where(near, (nearest - clean).norm(dim=1), known)

"""The boundary walk: `caa-newton` by votes alone, along the boundary from another class's image to the clean one.

Where the label has every vote the votes hold no gradient, so Newton's method can't begin at the clean image. The walk
begins on the boundary (see `attacks.common.starting_points`) and stays there. Each evaluation of a point x gives the
gradient of the class probabilities by Stein's lemma, the slope of the margin h along the direction so far, and h(x)
itself, all from the same votes. The next point is the one nearest to the clean image, in the box, at which their
plane has the margin that a verification needs, within the longest step.

Stein's gradient is noisy: of d pixels its noise has the length √(d/n)/σ, against a signal of about 0.8/σ. So the
gradients of many evaluations are averaged, and the average goes through a Wiener filter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.common.projection import step_beyond
from caa_cli.attacks.common.race import Race
from caa_cli.attacks.common.runs import RunEvaluation, Runs, RunStep
from caa_cli.attacks.common.starting_points import begin_beyond, crossing_evaluations
from caa_cli.attacks.common.state import Batch, Example
from caa_cli.attacks.common.vectors import unit
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.wiener import wiener_filter

# Beyond this many σ from the boundary too few votes differ for a gradient.
_NEAR = 0.6
# The longest step: at first this share of the way to the clean image; after an evaluation near the boundary it is
# multiplied by the first factor, else by the second, and never below the shortest, in pixel units.
_FIRST, _SHRINK, _BACK, _SHORTEST = 0.3, 0.85, 0.5, 0.05
# The most of a step that goes to or from the boundary, in pixel units.
_LONGEST = 0.5
# How many samples the estimate of a slope may weigh.
_SLOPE_MOST = 20000.0


@dataclass
class WalkState(Runs):
    """before: the last point near the boundary.  longest: the limit of the next step.

    gradient: the average; gradient_weight, gradient_spread: the sums of its weights and of their squares, in inverse
    variances. Of `Runs`: slope along the gradients; boundary_distance of the nearest point beyond the plane.
    """

    before: Tensor
    longest: Tensor
    gradient: Tensor
    gradient_weight: Tensor
    gradient_spread: Tensor


@dataclass(frozen=True)
class BoundaryWalk(Race[WalkState]):
    """See the module. An evaluation takes from a third of `samples` to 8/3 of it."""

    SHARES = (1 / 3, 2 / 3, 4 / 3, 8 / 3)
    UNCONFIRMED = 0.25

    def notes(self, num_classes: int) -> list[tuple[str, str]]:
        return [("algorithm", "a walk along the boundary: Newton's steps need gradients at the clean image")]

    def budget(self, num_classes: int, cost: GradientCost = WhiteBox.cost) -> tuple[int, int]:
        forward, backward = cost.evaluations(self.most_draws(num_classes - 1))
        return forward + crossing_evaluations(), backward

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> WalkState:
        joined = Batch.new(examples, classifier.num_classes)
        crossings = begin_beyond(joined, examples, classifier, self.rivals, self.seed)
        home = (crossings.point - joined.clean.flatten(1)[:, None]).norm(dim=2)
        return WalkState(
            **vars(joined),
            rivals=crossings.rival,
            alive=crossings.exists.cpu(),
            point=crossings.point,
            before=crossings.point.clone(),
            longest=_FIRST * home,
            gradient=torch.zeros_like(crossings.point),
            gradient_weight=torch.zeros_like(home),
            gradient_spread=torch.zeros_like(home),
            **Runs.no_estimates(home),
        )

    def advance(self, state: WalkState, classifier: SmoothedClassifier, now: RunStep) -> None:
        evaluation = self.evaluate(state, classifier, now, self._direction(state, now, classifier))
        near = ~evaluation.lost & (evaluation.margin.abs() < _NEAR * classifier.sigma)
        self._learn_gradient(state, now, evaluation, near)
        # Along the direction before this evaluation: along this one's, its noise would bias the slope upwards.
        state.learn_slope(now, evaluation.slope, near & (evaluation.slope != 0), _SLOPE_MOST)
        self._move(state, now, evaluation.margin, near, classifier)

    def _direction(self, state: WalkState, now: RunStep, classifier: SmoothedClassifier) -> Tensor:
        """The averaged gradient, filtered and at unit length; zero where there is none yet."""
        variance = now.of(state.gradient_spread) / now.of(state.gradient_weight).square().clamp(min=1e-30)
        return unit(wiener_filter(now.of(state.gradient), variance, classifier.input_shape))[0]

    def _learn_gradient(self, state: WalkState, now: RunStep, evaluation: RunEvaluation, near: Tensor) -> None:
        """Averages the gradients of the runs that are `near` into theirs; older ones weigh less."""
        assert evaluation.variance is not None, "the boundary walk needs gradients from votes, with their variance"
        weight = 1.0 / evaluation.variance.clamp(min=1e-12)
        before, spread = now.of(state.gradient_weight), now.of(state.gradient_spread)
        total = self.memory * before + weight
        share = torch.where(near, weight / total, 0.0)
        now.put(state.gradient, torch.lerp(now.of(state.gradient), evaluation.gradient, share[:, None]))
        now.put(state.gradient_weight, torch.where(near, total, before))
        now.put(state.gradient_spread, torch.where(near, self.memory**2 * spread + weight, spread))

    def _move(
        self, state: WalkState, now: RunStep, margin: Tensor, near: Tensor, classifier: SmoothedClassifier
    ) -> None:
        """Moves to the nearest point at which the plane has the target margin, within the longest step.

        Far on the rival's side: towards the clean image by the margin, which is safe because it is 1-Lipschitz. Far
        on the label's side: half of the way back.
        """
        clean, point, longest = state.clean[now.rows].flatten(1), now.of(state.point), now.of(state.longest)
        before, direction = now.of(state.before), self._direction(state, now, classifier)
        need = (self.target * classifier.sigma - margin) / now.of(state.slope)
        # The correction back to the boundary is not limited; the distance along it over which the plane holds is.
        ahead = need.clamp(min=-_LONGEST, max=_LONGEST)[:, None] * direction
        along_boundary = need + (direction * (point - clean)).sum(dim=1)
        step, nearest = step_beyond(clean, point, direction, along_boundary, longest, ahead)
        home = clean - point
        inward = point + unit(home)[0] * torch.minimum(margin, home.norm(dim=1))[:, None]
        back = point + 0.5 * (before - point)
        beyond = margin > 0
        far = torch.where(beyond[:, None], inward, back).clamp(0.0, 1.0)
        before = torch.where((near | beyond)[:, None], point, before)
        now.put(state.before, before)
        now.put(state.point, torch.where(near[:, None], step, far))
        now.put(state.longest, (longest * torch.where(near, _SHRINK, _BACK)).clamp(min=_SHORTEST))
        known = (before - clean).norm(dim=1)
        now.put(state.boundary_distance, torch.where(near, (nearest - clean).norm(dim=1), known))

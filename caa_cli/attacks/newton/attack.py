"""`caa-newton`: Newton's method on the margin, with the tangent planes of many steps averaged.

The margin h of a rival over the label (see `smoothing.margin`) is linear where the base classifier is, so its tangent
plane predicts the boundary h = 0 over distances at which the gradient of a loss predicts nothing.

Every evaluation of a point x gives such a plane: its normal is the gradient of log p̄_k − log p̄_y at unit length, its
slope comes from the votes alone by Stein's lemma, ∂p_c/∂u = E[1{f(x + η) = c} ⟨η, u⟩] / σ², and its height is h(x).
Evaluations are short and noisy, and their points soon lie close together. So planes are averaged, older ones with
less weight, and the next point is the one nearest to the clean image, in the box, at which the averaged plane has the
margin that a verification needs.

Runs after several rivals race each other on common noise (see `attacks.common.race`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import unit
from caa_cli.attacks.common.projection import step_beyond
from caa_cli.attacks.common.race import Race, ranking_samples
from caa_cli.attacks.common.runs import RunEvaluation, Runs, RunStep
from caa_cli.attacks.common.state import Example
from caa_cli.config.attack_settings import samples_by_default
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.smoothing.gradients import WhiteBox

# Beyond this many σ from the boundary probabilities are all but 0 and 1, and only a plane's direction is informative.
_NEAR = 0.6
# Longest steps: in σ while far, then in pixel units, shrinking by the factor with every step.
_FAR_STEP, _STEP, _SHRINK, _SHORTEST = 3.0, 0.5, 0.9, 0.05
# How many samples the estimate of a slope may weigh.
_SLOPE_MOST = 2000.0


@dataclass
class NewtonState(Runs):
    """near: whether the run has come near its boundary.  near_steps: its steps since then.

    normal, offset: of the averaged plane ⟨normal, x⟩ + offset; plane_weight: the samples behind it.
    Of `Runs`: slope along the normals; boundary_distance of the nearest point beyond the plane.
    """

    near: Tensor
    near_steps: Tensor
    normal: Tensor
    offset: Tensor
    plane_weight: Tensor


@dataclass
class Plane:
    """Averaged planes, one row a run: normal, offset and weight as in `NewtonState`."""

    normal: Tensor
    offset: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Newton(Race[NewtonState]):
    """See the module. An evaluation takes from 2/45 of `samples` to 8/45, or of the default where they are fewer."""

    SHARES = (2 / 45, 1 / 15, 4 / 45, 8 / 45)
    LEAST = samples_by_default("caa-newton")
    UNCONFIRMED = _NEAR

    def budget(self, cost: GradientCost = WhiteBox.cost) -> tuple[int, int]:
        forward, backward = cost.evaluations(self.most_draws())
        return forward + ranking_samples(self.samples), backward

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> NewtonState:
        rivals, evaluations = self.choose_rivals(examples, classifier)
        clean = torch.stack([example.image for example in examples]).flatten(1)
        zeros = torch.zeros(rivals.shape, device=clean.device)
        points = clean[:, None].repeat(1, rivals.shape[1], 1)
        state = NewtonState.new(
            examples,
            classifier.num_classes,
            rivals=rivals,
            alive=torch.ones(rivals.shape, dtype=torch.bool),
            near=torch.zeros_like(zeros, dtype=torch.bool),
            near_steps=zeros.clone(),
            point=points,
            normal=torch.zeros_like(points),
            offset=zeros.clone(),
            plane_weight=zeros.clone(),
            **Runs.no_estimates(zeros),
        )
        state.forward += evaluations
        return state

    def advance(self, state: NewtonState, classifier: SmoothedClassifier, now: RunStep) -> None:
        before = Plane(now.of(state.normal), now.of(state.offset), now.of(state.plane_weight))
        evaluation = self.evaluate(state, classifier, now, unit(before.normal)[0])
        margin, reach = evaluation.margin, _NEAR * classifier.sigma
        was_near = now.of(state.near)
        near = was_near | (margin > -reach)
        now.put(state.near, near)
        # Far away the votes carry no information on the slope, and before the first plane there is no direction.
        informative = (margin.abs() < reach) & (before.weight > 0)
        slope = state.learn_slope(now, evaluation.slope, informative, _SLOPE_MOST)
        # The planes from afar are dropped once the run is near.
        plane = self._average(before, evaluation, slope, was_near, now.samples)
        now.put(state.normal, plane.normal)
        now.put(state.offset, plane.offset)
        now.put(state.plane_weight, plane.weight)
        self._move(state, now, evaluation, plane, near, classifier.sigma)

    def _average(
        self, before: Plane, evaluation: RunEvaluation, slope: Tensor, counts: Tensor, samples: int
    ) -> Plane:
        """The average of the earlier planes and this evaluation's. counts: (runs,) bool, whether the earlier ones
        still count. Without a gradient the plane stays as it is."""
        old = self.memory * before.weight * counts
        total = old + samples
        share = (samples / total).masked_fill_(evaluation.lost, 0.0)
        normal = slope[:, None] * evaluation.direction
        offset = evaluation.margin - (normal * evaluation.point).sum(dim=1)
        return Plane(
            torch.lerp(before.normal, normal, share[:, None]),
            torch.lerp(before.offset, offset, share),
            torch.where(evaluation.lost, before.weight, total),
        )

    def _move(
        self,
        state: NewtonState,
        now: RunStep,
        evaluation: RunEvaluation,
        plane: Plane,
        near: Tensor,
        sigma: float,
    ) -> None:
        """Moves to the nearest point at which the plane has the target margin, within the longest step."""
        clean, point, normal = state.clean[now.rows].flatten(1), evaluation.point, plane.normal
        target = self.target * sigma
        direction, slope, _ = unit(normal)
        slope = slope.clamp(min=1e-12)
        # Far away: straight on, as far as the plane predicts the boundary.
        ahead = ((target - evaluation.margin) / slope).clamp(min=0.1, max=_FAR_STEP * sigma)
        onward = torch.addcmul(point, ahead[:, None], direction).clamp(0.0, 1.0)
        height = (normal * clean).sum(dim=1) + plane.offset
        longest, outwards = torch.full_like(slope, max(_STEP * _SHRINK**now.iteration, _SHORTEST)), None
        if state.aim.targeted:
            lacking = (target - (normal * point).sum(dim=1) - plane.offset) / slope
            longest, outwards = self._limits(state, now, near, lacking, direction)
        step, nearest = step_beyond(clean, point, direction, (target - height) / slope, longest, outwards)
        moved = torch.where(near[:, None], step, onward)
        now.put(state.point, torch.where(evaluation.lost[:, None], point, moved))
        distance = torch.where(near, (nearest - clean).norm(dim=1), torch.inf)
        distance = torch.where(evaluation.lost, now.of(state.boundary_distance), distance)
        now.put(state.boundary_distance, distance)

    def _limits(
        self, state: NewtonState, now: RunStep, near: Tensor, lacking: Tensor, direction: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(the longest step, what is not limited of it) of runs after a target, (runs,) and (runs, dimensions).

        A target may be far, with much of its boundary to follow: steps shorten from where the run comes near, and
        what they lack to the plane is not part of their length.
        """
        steps = now.of(state.near_steps)
        now.put(state.near_steps, steps + near)
        outwards = lacking.clamp(min=0.0, max=_STEP)[:, None] * direction
        return (_STEP * _SHRINK**steps).clamp(min=_SHORTEST), outwards

"""`caa-newton`: Newton's method on the margin, with the tangent planes of many steps averaged.

The margin h of a rival over the label (see `smoothing.margin`) is linear where the base classifier is, so its tangent
plane predicts the boundary h = 0 over distances at which the gradient of a loss predicts nothing.

Every evaluation of a point x measures such a plane: its normal is the gradient of log p̄_k − log p̄_y at unit
length, its height is h(x), and its slope comes from the votes alone by Stein's lemma,
∂p_c/∂u = E[1{f(x + η) = c} ⟨η, u⟩] / σ². Evaluations are short and noisy, so normals, heights and points are
averaged, older ones with less weight, to the plane

    h(z) = height + slope ⟨u, z − anchor⟩,  u = the averaged normal at unit length, anchor = the averaged point,

and the next point is the one nearest to the clean image, in the box, at which it has the margin that a verification
needs. (The average of the planes themselves would take the noise of each normal for a rise of h, since the next point
lies along it: in 150,000 dimensions that point would fall short of the boundary by σ.)

Runs after several rivals race each other on common noise (see `attacks.common.race`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from caa_cli.attacks.common.projection import step_beyond
from caa_cli.attacks.common.race import Race
from caa_cli.attacks.common.ranking import ranking_samples
from caa_cli.attacks.common.runs import RunEvaluation, Runs, RunStep
from caa_cli.attacks.common.state import Example, clean_images
from caa_cli.attacks.common.vectors import unit
from caa_cli.config.attack_settings import samples_by_default
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.smoothing.gradients import WhiteBox

# Beyond this many σ from the boundary probabilities are all but 0 and 1, and only a plane's direction is informative.
_NEAR = 0.6
# The longest step while far, in σ.
_FAR_STEP = 3.0
# The longest step of a run, in pixel units: at first and at most, and at least. It shrinks by the first factor, but
# grows by the second after a move whose cosine with the move before is more than this.
_STEP, _SHORTEST, _SHRINK, _GROW, _STRAIGHT = 0.5, 0.02, 0.85, 1.2, 0.5
# How much of its weight a height keeps per step; a normal keeps less, as the boundary curves.
_HEIGHT_MEMORY = 0.9
# How many samples the estimate of a slope may weigh.
_SLOPE_MOST = 2000.0
# So many normals are averaged that noise is this share of the squared average; the radius grows by half of that.
_NOISE = 0.02
# The smallest estimate of how far two normals agree.
_AGREEMENT_MIN = 0.05


@dataclass
class NewtonState(Runs):
    """near: whether the run has come near its boundary.  longest: its next step, at most.  move: its last one.

    The others: see `Plane`. Of `Runs`: slope along the normals; boundary_distance: of the nearest point beyond the
    plane.
    """

    near: Tensor
    longest: Tensor
    move: Tensor
    normal: Tensor
    anchor: Tensor
    height: Tensor
    normal_weight: Tensor
    height_weight: Tensor
    agreement: Tensor


@dataclass
class Plane:
    """The averaged planes of some runs, one row each, as in the module.

    normal, anchor: (runs, dimensions).  height: (runs,).  normal_weight: (runs,) the samples behind the normal, those
    of earlier evaluations as the memory leaves them; height_weight: behind the height and the anchor.  agreement:
    (runs,) the scalar product of two normals, 1 without noise.
    """

    normal: Tensor
    anchor: Tensor
    height: Tensor
    normal_weight: Tensor
    height_weight: Tensor
    agreement: Tensor

    @classmethod
    def of(cls, state: NewtonState, now: RunStep) -> Plane:
        return cls(**{field.name: now.of(getattr(state, field.name)) for field in fields(cls)})

    def put(self, state: NewtonState, now: RunStep) -> None:
        for field in fields(self):
            now.put(getattr(state, field.name), getattr(self, field.name))

    def averaged(self, evaluation: RunEvaluation, memory: float, was_near: Tensor, samples: int) -> Plane:
        """This plane and an evaluation's. Without a gradient it stays as it is.

        memory: the least weight that earlier evaluations keep. Normals that agree less need more: with agreement a
        and weight μ, noise is (1 − a)/a · (1 − μ)/(1 + μ) of the squared average, where μ is near 1 half of
        (1 − a)/a · (1 − μ). was_near: (runs,) bool; heights from afar, where votes say little, are dropped.
        """
        lost = evaluation.lost
        kept = (1.0 - 2.0 * _NOISE * self.agreement / (1.0 - self.agreement)).clamp(min=memory)
        normal_weight = kept * self.normal_weight + samples
        height_weight = _HEIGHT_MEMORY * self.height_weight * was_near + samples
        normal_share = (samples / normal_weight).masked_fill_(lost, 0.0)
        height_share = (samples / height_weight).masked_fill_(lost, 0.0)
        # An average of earlier normals has the same product with a new one as each of them, in expectation.
        product = (evaluation.direction * self.normal).sum(dim=1).clamp(_AGREEMENT_MIN, 1.0)
        has_product = (self.normal_weight > 0) & ~lost
        return Plane(
            torch.lerp(self.normal, evaluation.direction, normal_share[:, None]),
            torch.lerp(self.anchor, evaluation.point, height_share[:, None]),
            torch.lerp(self.height, evaluation.margin, height_share),
            torch.where(lost, self.normal_weight, normal_weight),
            torch.where(lost, self.height_weight, height_weight),
            torch.where(has_product, 0.5 * (self.agreement + product), self.agreement),
        )


@dataclass(frozen=True)
class Newton(Race[NewtonState]):
    """See the module. An evaluation takes from 2/45 of `samples` to 8/45, or of the default where they are fewer."""

    SHARES = (2 / 45, 1 / 15, 4 / 45, 8 / 45)
    LEAST = samples_by_default("caa-newton")
    UNCONFIRMED = _NEAR

    def budget(self, num_classes: int, cost: GradientCost = WhiteBox.cost) -> tuple[int, int]:
        forward, backward = cost.evaluations(self.most_draws(num_classes - 1))
        return forward + ranking_samples(self.samples), backward

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> NewtonState:
        rivals, evaluations = self.choose_rivals(examples, classifier)
        clean = clean_images(examples).flatten(1)
        zeros = torch.zeros(rivals.shape, device=clean.device)
        points = clean[:, None].repeat(1, rivals.shape[1], 1)
        state = NewtonState.new(
            examples,
            classifier.num_classes,
            rivals=rivals,
            alive=torch.ones(rivals.shape, dtype=torch.bool),
            near=torch.zeros_like(zeros, dtype=torch.bool),
            longest=torch.full_like(zeros, _STEP),
            move=torch.zeros_like(points),
            point=points,
            normal=torch.zeros_like(points),
            anchor=torch.zeros_like(points),
            height=zeros.clone(),
            normal_weight=zeros.clone(),
            height_weight=zeros.clone(),
            agreement=torch.ones_like(zeros),
            **Runs.no_estimates(zeros),
        )
        state.forward += evaluations
        return state

    def advance(self, state: NewtonState, classifier: SmoothedClassifier, now: RunStep) -> None:
        before = Plane.of(state, now)
        evaluation = self.evaluate(state, classifier, now, unit(before.normal)[0])
        margin, reach = evaluation.margin, _NEAR * classifier.sigma
        was_near = now.of(state.near)
        near = was_near | (margin > -reach)
        now.put(state.near, near)
        # Near a boundary a run that had no class has one.
        now.put(state.rivals, torch.where(near, evaluation.rival, now.of(state.rivals)))
        # Far away the votes carry no information on the slope, and before the first normal there is no direction.
        informative = (margin.abs() < reach) & (before.normal_weight > 0)
        slope = state.learn_slope(now, evaluation.slope, informative, _SLOPE_MOST)
        plane = before.averaged(evaluation, self.memory, was_near, now.samples)
        plane.put(state, now)
        self._move(state, now, evaluation, plane, slope, near, classifier.sigma)

    def _move(
        self,
        state: NewtonState,
        now: RunStep,
        evaluation: RunEvaluation,
        plane: Plane,
        slope: Tensor,
        near: Tensor,
        sigma: float,
    ) -> None:
        """Moves to the nearest point at which the plane has the target margin, within the longest step."""
        clean, point = state.clean[now.rows].flatten(1), evaluation.point
        target = self.target * sigma
        direction = unit(plane.normal)[0]
        # Far away: straight on, as far as the plane predicts the boundary.
        ahead = ((target - evaluation.margin) / slope).clamp(min=0.1, max=_FAR_STEP * sigma)
        onward = torch.addcmul(point, ahead[:, None], direction).clamp(0.0, 1.0)
        needed = (target - plane.height) / slope + ((plane.anchor - clean) * direction).sum(dim=1)
        step, nearest = step_beyond(clean, point, direction, needed, now.of(state.longest))
        moved = torch.where(near[:, None], step, onward)
        moved = torch.where(evaluation.lost[:, None], point, moved)
        now.put(state.point, moved)
        self._limit(state, now, moved - point)
        # A boundary that is far from the run is further away than the run: in the race for half of the steps.
        at_least = (moved - clean).norm(dim=1) if now.iteration < self.steps / 2 else torch.inf
        distance = torch.where(near, (nearest - clean).norm(dim=1), at_least)
        distance = torch.where(evaluation.lost, now.of(state.boundary_distance), distance)
        now.put(state.boundary_distance, distance)

    def _limit(self, state: NewtonState, now: RunStep, move: Tensor) -> None:
        """Sets the longest next step of runs that made this move.

        Short steps average the noise of normals, but a run that has far to go along its boundary needs long ones.
        """
        last = now.of(state.move)
        straight = (move * last).sum(dim=1) > _STRAIGHT * move.norm(dim=1) * last.norm(dim=1)
        factor = torch.where(straight, _GROW, _SHRINK)
        now.put(state.longest, (factor * now.of(state.longest)).clamp(min=_SHORTEST, max=_STEP))
        now.put(state.move, move)

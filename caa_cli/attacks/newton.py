"""`caa-newton`: the certificate as Newton's step, with the tangent planes of many steps averaged.

With p_y and p_k the smoothed probabilities of the label and of a rival, h = σ/2 (Φ⁻¹(p_k) − Φ⁻¹(p_y)) is minus the
certified radius (without confidence bounds) on the label's side, and plus it on the rival's. It is 1-Lipschitz
(Salman et al., 2019) and exactly linear where the base classifier is, so its tangent plane foretells the boundary
h = 0 over distances at which gradients of a loss say nothing of the kind.

Every look at a point x gives such a plane: its normal is the gradient of log p̄_k − log p̄_y at unit length, its
slope comes from the votes alone by Stein's lemma, ∂p_c/∂u = E[1{f(x + η) = c} ⟨η, u⟩] / σ², and its height is h(x).
Looks are short and noisy, and the points that they are taken at soon lie close together: so planes are averaged,
older ones counting less, and the next point is the one nearest to the clean image, in the box, at which the
averaged plane has the margin that a proof will ask for.

Which rival is the nearest can't be told from the clean image. The likeliest race each other, one run each on common
noise, and a run whose boundary turns out to be too much further away than the nearest one's is given up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.attacks.baseline import unit
from caa_cli.attacks.geometry import no_longer
from caa_cli.attacks.judge import adversarial
from caa_cli.attacks.loop import Batch, Example
from caa_cli.attacks.race import Race, Runs, likeliest, look_at, still_racing
from caa_cli.smoothing.classifier import SmoothedClassifier

# Beyond this many σ from the boundary probabilities are all but 0 and 1, and a plane says no more than a direction.
_NEAR = 0.6
# Longest steps: in σ while far, then in pixel units, shrinking by the factor with every step.
_FAR_STEP, _STEP, _SHRINK, _SHORTEST = 3.0, 0.5, 0.8, 0.05
# How many samples all votes about a slope may weigh together.
_SLOPE_MOST = 2000.0


@dataclass
class Margins:
    """h, and its slope along the direction that was asked for, (runs,) float32 each."""

    h: Tensor
    slope: Tensor


@dataclass
class NewtonState(Runs):
    """near: whether the run has come near its boundary.

    normal, offset: of the averaged plane ⟨normal, x⟩ + offset; weight: the samples behind it.
    slope: of `Runs`, along the normals.  size: of `Runs`, the distance of the point that the plane asks for.
    """

    near: Tensor
    normal: Tensor
    offset: Tensor
    weight: Tensor


@dataclass(frozen=True)
class Newton(Race):
    """See the module. A look takes from 2/45 of `samples` to 8/45."""

    SHARES = (2 / 45, 1 / 15, 4 / 45, 8 / 45)

    def most_evaluations(self) -> tuple[int, int]:
        """(forward, backward) model evaluations of an image, if no run is given up before it has to be."""
        taken = self.most_draws()
        return taken + look_at(self.samples), taken

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> NewtonState:
        common = Batch.common(examples, classifier.num_classes)
        size = len(examples)
        clean = common["clean"].flatten(1)
        device = clean.device
        followed = likeliest(examples, classifier, self.rivals, self.seed, self.samples)
        common["forward"] += look_at(self.samples)
        runs = followed.shape[1]
        zeros = torch.zeros((size, runs), device=device)
        return NewtonState(
            **common,
            rivals=followed,
            alive=torch.ones((size, runs), dtype=torch.bool, device=device),
            near=torch.zeros((size, runs), dtype=torch.bool, device=device),
            point=clean[:, None].repeat(1, runs, 1),
            normal=torch.zeros((size, runs, clean.shape[1]), device=device),
            offset=zeros.clone(),
            weight=zeros.clone(),
            **Runs.nothing_known(zeros),
        )

    def step(self, state: NewtonState, classifier: SmoothedClassifier) -> None:
        state.alive = still_racing(state.alive, state.size, state.iteration, self.steps, self.rivals)
        # Examples that joined at different times are at different steps, with different numbers of samples.
        for iteration in state.iteration.unique().tolist():
            rows, runs = (state.alive & (state.iteration == iteration)[:, None]).nonzero(as_tuple=True)
            self._advance(state, classifier, rows, runs, iteration)

    def _advance(
        self, state: NewtonState, classifier: SmoothedClassifier, rows: Tensor, runs: Tensor, iteration: int
    ) -> None:
        """One look at the points of these runs, and their next points."""
        samples = self.draws(iteration)
        labels, rivals = state.labels[rows], state.rivals[rows, runs]
        along = unit(state.normal[rows, runs])[0]
        passed = classifier.towards(
            state.point[rows, runs].view(-1, *classifier.input_shape),
            labels,
            rivals,
            state.keys(self.seed, rows),
            samples,
            along,
        )
        state.forward.index_put_((rows,), passed.forward_evaluations, accumulate=True)
        state.backward.index_put_((rows,), torch.full_like(rows, passed.backward_evaluations), accumulate=True)
        direction, _, usable = unit(passed.gradient.flatten(1))
        state.lost_gradients[rows[~usable].unique()] += 1
        seen = margins(passed.votes, passed.moments, labels, rivals, samples, classifier.sigma)
        confident = adversarial(passed.votes, labels, samples, self.alpha, self.bound)
        # The last point of all is a guess for the finish if its h tells much.
        last = (state.iteration[rows] == self.steps - 1) & (seen.h > -_NEAR * classifier.sigma)
        state.offer(rows, runs, passed.votes, confident, last)
        near = state.near[rows, runs] | (seen.h > -_NEAR * classifier.sigma)
        # Far away the votes say nothing about the slope, and before the first plane there is nothing to look along.
        telling = (seen.h.abs() < _NEAR * classifier.sigma) & (state.weight[rows, runs] > 0)
        state.learn_slope(rows, runs, seen.slope, samples, telling, _SLOPE_MOST)
        self._learn_plane(state, rows, runs, direction, seen.h, near, usable, samples)
        self._move(state, rows, runs, seen.h, near, usable, classifier.sigma)
        state.near[rows, runs] = near

    def _learn_plane(
        self,
        state: NewtonState,
        rows: Tensor,
        runs: Tensor,
        direction: Tensor,
        h: Tensor,
        near: Tensor,
        usable: Tensor,
        samples: int,
    ) -> None:
        """Averages this look's plane into the run's. One seen from afar takes no part in what comes later."""
        old = torch.where(near & state.near[rows, runs], self.memory * state.weight[rows, runs], 0.0)
        share = (samples / (old + samples))[:, None]
        normal = state.slope[rows, runs, None] * direction
        offset = h - (normal * state.point[rows, runs]).sum(dim=1)
        averaged = (1.0 - share) * state.normal[rows, runs] + share * normal
        state.normal[rows, runs] = torch.where(usable[:, None], averaged, state.normal[rows, runs])
        averaged = (1.0 - share[:, 0]) * state.offset[rows, runs] + share[:, 0] * offset
        state.offset[rows, runs] = torch.where(usable, averaged, state.offset[rows, runs])
        state.weight[rows, runs] = torch.where(usable, old + samples, state.weight[rows, runs])

    def _move(
        self, state: NewtonState, rows: Tensor, runs: Tensor, h: Tensor, near: Tensor, usable: Tensor, sigma: float
    ) -> None:
        """To the nearest point that the plane says has the target's margin, no further than the longest step."""
        clean, point, normal = state.clean[rows].flatten(1), state.point[rows, runs], state.normal[rows, runs]
        target = self.target * sigma
        direction, slope, _ = unit(normal)
        slope = slope.clamp(min=1e-12)
        # Far away: straight on, by what the plane says is left.
        ahead = ((target - h) / slope).clamp(min=0.1, max=_FAR_STEP * sigma)
        onward = (point + ahead[:, None] * direction).clamp(0.0, 1.0)
        height = (normal * clean).sum(dim=1) + state.offset[rows, runs]
        nearest = clean + shortest(clean, direction, (target - height) / slope)
        move = no_longer(nearest - point, (_STEP * _SHRINK ** state.iteration[rows]).clamp(min=_SHORTEST))
        moved = torch.where(near[:, None], (point + move).clamp(0.0, 1.0), onward)
        state.point[rows, runs] = torch.where(usable[:, None], moved, point)
        size = torch.where(near, (nearest - clean).norm(dim=1), torch.inf)
        state.size[rows, runs] = torch.where(usable, size, state.size[rows, runs])


def margins(votes: Tensor, moments: Tensor, labels: Tensor, rivals: Tensor, samples: int, sigma: float) -> Margins:
    """h = σ/2 (Φ⁻¹(p_k) − Φ⁻¹(p_y)) from votes (runs, classes), and from `moments` (see `SurrogatePass`) its slope
    σ/2 (∂p_k/φ(Φ⁻¹(p_k)) − ∂p_y/φ(Φ⁻¹(p_y))), with ∂p_c = moment/σ² (Stein).

    Probabilities are kept in [1/2n, 1 − 1/2n].
    """
    pair = torch.stack([rivals, labels], dim=1)
    p = (votes.gather(1, pair).double() / samples).clamp(0.5 / samples, 1.0 - 0.5 / samples)
    quantile = torch.special.ndtri(p)
    density = torch.exp(-0.5 * quantile.square()) / math.sqrt(2.0 * math.pi)
    slopes = moments.gather(1, pair).double() / sigma**2 / density
    h, slope = (0.5 * sigma * (both[:, 0] - both[:, 1]) for both in (quantile, slopes))
    return Margins(h.float(), slope.float())


def shortest(clean: Tensor, direction: Tensor, need: Tensor) -> Tensor:
    """The shortest δ with ⟨δ, direction⟩ ≥ need that keeps clean + δ in the box; clean, direction (unit) and the
    result (runs, dimensions), need (runs,). Where the box has no such point, the furthest that it has.

    δ = clip(λ·direction) for one λ ≥ 0, by the conditions of Karush, Kuhn and Tucker. ⟨δ(λ), direction⟩ is concave
    and piecewise linear in λ, so Newton's method climbs to the solution and never beyond it.
    """
    scale = need.clamp(min=0.0)
    for _ in range(10):
        wanted = clean + scale[:, None] * direction
        inside = wanted.clamp(0.0, 1.0)
        missing = need.clamp(min=0.0) - ((inside - clean) * direction).sum(dim=1)
        free = (direction.square() * (inside == wanted)).sum(dim=1)
        scale = torch.where(free > 1e-6, scale + missing / free.clamp(min=1e-6), scale)
    return (clean + scale[:, None] * direction).clamp(0.0, 1.0) - clean

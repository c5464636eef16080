"""Runs that race: which rival classes an attack follows, one run each.

Which class has the nearest boundary can't be seen at the clean image. So runs after several rivals race each other,
and `elimination` says which of them are given up.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.elimination import most_runs, still_racing
from caa_cli.attacks.common.ranking import ranking_samples, top_classes
from caa_cli.attacks.common.runs import RunEvaluation, RunState, RunStep
from caa_cli.attacks.common.state import Example
from caa_cli.attacks.common.vectors import unit
from caa_cli.config import hyperparameters as settings
from caa_cli.config.settings import Settings
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.judge import margins_of, strongest_other
from caa_cli.smoothing.objective import ANY_CLASS

# An evaluation takes a first share of the samples up to the first of these shares of the steps, a second one up to
# the second, and then a growing one, from a third to a fourth.
_SAMPLES_UNTIL = (0.3, 0.5)


@dataclass(frozen=True)
class Race(settings.CaaNewton, Attack[RunState]):
    """The settings and the loop of attacks whose runs race each other.

    steps: of one run. rivals: how many classes race at first. memory: the weight of earlier evaluations after each
    step, against 1. target: the margin to aim at, in pixel units at σ = 1. samples: what other attacks take a step.
    """

    # Samples of an evaluation, as shares of `samples`, or of so many where it is less; see `draws`.
    SHARES: ClassVar[tuple[float, float, float, float]]
    LEAST: ClassVar[int] = 0
    # A run's last point is kept as an unconfirmed candidate unless it is this many σ short of the boundary.
    UNCONFIRMED: ClassVar[float]
    PROPOSES_UNCONFIRMED = True

    target: float = 0.06

    @classmethod
    def of(cls, settings: Settings, iterations: int, **run: Any) -> Self:
        attack = cls(**run, **vars(settings))
        return replace(attack, steps=min(attack.steps, iterations))

    @property
    def iterations(self) -> int:
        return self.steps

    def after_target(self) -> Self:
        return replace(self, rivals=1)

    def draws(self, iteration: int) -> int:
        """The samples of one evaluation at this step, more towards the end.

        Shares of few `samples` would be too few to see a boundary, so they are taken of LEAST, up to `samples`.
        """
        few, more = (round(share * self.steps) for share in _SAMPLES_UNTIL)
        if iteration < more:
            share = self.SHARES[0] if iteration < few else self.SHARES[1]
        else:
            way = (iteration - more) / max(1, self.steps - 1 - more)
            share = self.SHARES[2] * (self.SHARES[3] / self.SHARES[2]) ** way
        return max(1, round(self.samples * share), min(self.samples, round(self.LEAST * share)))

    def most_draws(self, others: int) -> int:
        """The samples of all evaluations of an image that has so many other classes, if no run is given up before it
        has to be."""
        rivals = min(self.rivals, others)
        return sum(most_runs(step, self.steps, rivals) * self.draws(step) for step in range(self.steps))

    def samples_a_step(self) -> tuple[int, int]:
        draws = [self.draws(step) for step in range(self.steps)]
        return min(draws), max(draws)

    def points_a_step(self) -> int:
        return self.rivals

    def extra_vectors(self) -> int:
        return 12 * self.rivals

    def choose_rivals(self, examples: list[Example], classifier: SmoothedClassifier) -> tuple[Tensor, int]:
        """(the classes that are followed, (examples, R) int64; model evaluations that the choice took of each).

        Where there are more classes than runs, one run is left to find its class on the way: among a thousand classes
        the nearest is often not one of the likeliest at the clean image.
        """
        targets = [example.target for example in examples if example.target is not None]
        if targets:
            return torch.tensor(targets, device=classifier.device)[:, None], 0
        rivals = top_classes(examples, classifier, self.rivals, self.seed, self.samples)
        if 1 < rivals.shape[1] < classifier.num_classes - 1:
            rivals = torch.cat([torch.full_like(rivals[:, :1], ANY_CLASS), rivals[:, :-1]], dim=1)
        return rivals, ranking_samples(self.samples)

    def step(self, state: RunState, classifier: SmoothedClassifier) -> None:
        # How many runs go on decides how much is computed, so the host has to know.
        distance, rivals = torch.stack([state.boundary_distance, state.rivals.float()]).cpu()
        state.alive = still_racing(state.alive, distance, rivals, state.iteration, self.steps)
        state.done |= state.on_device(~state.alive.any(dim=1))
        # Examples that joined at different times are at different steps, with different numbers of samples.
        for iteration in state.iteration.unique().tolist():
            rows, runs = (state.alive & (state.iteration == iteration)[:, None]).nonzero(as_tuple=True)
            if len(rows):
                pair = state.on_device(torch.stack([rows, runs]))
                now = RunStep(pair[0], pair[1], rows.tolist(), iteration, self.draws(iteration))
                self.advance(state, classifier, now)

    @abstractmethod
    def advance(self, state: RunState, classifier: SmoothedClassifier, now: RunStep) -> None:
        """Evaluates the points of these runs, and moves them."""

    def evaluate(self, state: RunState, classifier: SmoothedClassifier, now: RunStep, along: Tensor) -> RunEvaluation:
        """Evaluates the points of these runs, counts the cost, and keeps the candidates among them.

        along: (runs, dimensions) the directions in which the slopes are measured.
        """
        rivals, samples, aim = now.of(state.rivals), now.samples, state.aim.of(now.rows)
        # A target has to beat whichever class is strongest.
        labels = None if aim.targeted else aim.classes
        points, keys = now.of(state.point), state.keys(self.seed, now.rows_on_host)
        x = points.view(-1, *classifier.input_shape)
        passed = classifier.towards(x, labels, rivals, keys, samples, along)
        examples = torch.tensor(now.rows_on_host)
        state.forward.index_add_(0, examples, passed.forward_evaluations)
        state.backward.index_add_(0, examples, torch.full_like(examples, passed.backward_evaluations))
        gradient = passed.gradient.flatten(1)
        direction, _, lost = unit(gradient)
        state.lost_gradients += now.spread(lost, state.rivals.shape).any(dim=1)
        votes, sigma = passed.votes, classifier.sigma
        if labels is None:
            opponents = strongest_other(votes, rivals)
        else:
            opponents = labels
            rivals = torch.where(rivals == ANY_CLASS, strongest_other(votes, labels), rivals)
        h, slope = margins(votes, passed.moments, opponents, rivals, samples, sigma)
        # The votes are those of a point that lies further along the direction by the mean of their noise. Without
        # that, which is 0 in expectation, h varies half as much.
        h = torch.addcmul(h, now.of(state.slope), passed.moments.sum(dim=1), value=-1.0)
        confident = aim.reached(votes, samples, self.alpha, self.bound)
        last = now.iteration == self.steps - 1
        state.offer(now, votes, confident, h > -self.UNCONFIRMED * sigma if last else None)
        return RunEvaluation(rivals, points, h, slope, gradient, direction, lost, passed.variance)


def margins(
    votes: Tensor, moments: Tensor, labels: Tensor, rivals: Tensor, samples: int, sigma: float
) -> tuple[Tensor, Tensor]:
    """(h, its slope), (runs,) float32 each, from votes (runs, classes) and `GradientPass.moments`.

    The slope is Σ_c ∂h/∂p_c ∂p_c along the direction of the moments, with ∂p_c = moment/σ² (Stein's lemma).
    """
    pair, table = torch.stack([rivals, labels], dim=1), margins_of(samples, sigma)
    counts = votes.gather(1, pair)
    change = moments.gather(1, pair) * table.per_probability(counts)  # in float64
    return table.margin(counts).float(), ((change[:, 0] - change[:, 1]) / sigma**2).float()

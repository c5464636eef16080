"""The steps of caa-newton one by one, where h is a plane that is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from networks import make_linear
from torch import Tensor

from caa_cli.attacks.common.runs import RunEvaluation, RunStep
from caa_cli.attacks.common.state import Example
from caa_cli.attacks.newton.attack import Newton, NewtonState

SIGMA, TARGET = 0.5, 0.06 * 0.5


@dataclass(frozen=True)
class OnAPlane(Newton):
    """h rises by `rise` per unit along the first pixel, and is 0 at `boundary` from the clean image; without noise.

    lost: there is no gradient.
    """

    rise: float = 0.5
    boundary: float = 0.3
    lost: bool = False

    def evaluate(self, state: NewtonState, classifier: object, now: RunStep, along: Tensor) -> RunEvaluation:
        point, clean = now.of(state.point), state.clean[now.rows].flatten(1)
        normal = torch.zeros_like(point)
        normal[:, 0] = 0.0 if self.lost else 1.0
        height = self.rise * (point[:, 0] - clean[:, 0] - self.boundary)
        slope = self.rise * (along * normal).sum(dim=1)
        return RunEvaluation(
            now.of(state.rivals), point.clone(), height, slope, normal, normal, torch.tensor([self.lost]), None
        )


@pytest.fixture
def walk():
    """Takes a step of a run on such a plane; returns its state, its place along the first pixel and how far it is."""
    classifier = make_linear(sigma=SIGMA).classifier
    clean = torch.full(classifier.input_shape, 0.2)
    state = Newton(rivals=1).start([Example(0, clean, 1)], classifier)

    def step(iteration=0, **plane):
        # So many samples that a measured slope replaces the one assumed.
        now = RunStep(torch.tensor([0]), torch.tensor([0]), [0], iteration, samples=10**9)
        OnAPlane(rivals=1, **plane).advance(state, classifier, now)
        return state, float(state.point[0, 0, 0] - 0.2), float(state.boundary_distance)

    return step


@pytest.mark.parametrize("rise", [0.4, 0.5, 1.0])
def test_steps_go_to_where_the_plane_has_the_margin_of_a_proof(walk, rise):
    """From the second on: the first has no direction yet along which a slope is measured."""
    state, _, _ = walk(rise=rise)
    assert float(state.slope) == 0.75
    assert float(state.agreement) == 1.0, "of one normal"
    for _ in range(4):
        state, place, distance = walk(rise=rise)
        assert rise * (place - 0.3) == pytest.approx(TARGET, abs=1e-5)
        assert distance == pytest.approx(place, abs=1e-5)
        assert float(state.slope) == pytest.approx(rise, rel=1e-4)


def test_from_afar_a_step_is_as_long_as_the_plane_says(walk):
    _, place, _ = walk(rise=1.0, boundary=0.5)
    # h is −0.5, and assumed to rise by 0.75.
    assert place == pytest.approx((0.5 + TARGET) / 0.75, abs=1e-5)


@pytest.mark.parametrize("iteration", [0, 14, 15, 29])
def test_a_boundary_still_far_away_is_not_nearer_than_the_run_and_later_out_of_the_race(walk, iteration):
    _, place, distance = walk(iteration, rise=1.0, boundary=0.7)
    assert place > 0.5
    assert distance == (pytest.approx(place, abs=1e-6) if iteration < 15 else float("inf"))


def test_a_run_that_has_come_near_knows_its_distance_from_then_on(walk):
    walk()
    state, _, distance = walk(rise=2.0, boundary=1.0)
    assert bool(state.near)
    assert distance < float("inf")


def test_a_run_without_a_gradient_stays_where_it_is(walk):
    walk(boundary=0.4)
    state, place, distance = walk()
    before = {name: value.clone() for name, value in vars(state).items() if isinstance(value, Tensor)}
    state, again, still = walk(lost=True)
    assert (again, still) == (place, distance)
    for name in ("normal", "anchor", "height", "normal_weight", "height_weight", "agreement"):
        assert torch.equal(getattr(state, name), before[name]), name


def test_steps_shorten_where_moves_turn(walk):
    # The averaged height follows a boundary that comes and goes by small steps, to and fro.
    lengths = []
    for boundary in (0.4, 0.1) * 4:
        state, _, _ = walk(boundary=boundary)
        lengths.append(float(state.longest))
    assert lengths[-1] < 0.5 * lengths[0]

"""The steps of the boundary walk one by one, where h is a plane that is known exactly."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from networks import make_linear
from torch import Tensor

from caa_cli.attacks.common.runs import RunEvaluation, RunStep
from caa_cli.attacks.common.state import Example
from caa_cli.attacks.newton.boundary_walk import BoundaryWalk, WalkState
from caa_cli.smoothing.stein import SteinEstimator

SIGMA, TARGET = 0.5, 0.06 * 0.5
CLEAN, BOUNDARY, RISE = 0.2, 0.3, 0.5


@dataclass(frozen=True)
class OnAPlane(BoundaryWalk):
    """h rises by RISE per unit along the first pixel, and is 0 at `boundary` from the clean image.

    normal: what is measured for the gradient, at this variance; by default the first pixel, without noise.
    """

    boundary: float = BOUNDARY
    normal: tuple[float, ...] = (1.0, 0.0)
    variance: float = 1e-9

    def evaluate(self, state: WalkState, classifier: object, now: RunStep, along: Tensor) -> RunEvaluation:
        point = now.of(state.point)
        normal = torch.zeros_like(point)
        normal[:, : len(self.normal)] = torch.tensor(self.normal)
        height = RISE * (point[:, 0] - CLEAN - self.boundary)
        lost, variance = ~normal.any(dim=1), torch.tensor([self.variance])
        return RunEvaluation(
            now.of(state.rivals), point.clone(), height, RISE * along[:, 0], normal, normal, lost, variance
        )


@pytest.fixture
def walk():
    """Takes a step of a run on such a plane from a place on the first two pixels, relative to the clean image, and
    returns the state and the place that it leads to."""
    classifier = make_linear(sigma=SIGMA, gradients=SteinEstimator()).classifier
    clean = torch.full(classifier.input_shape, CLEAN)
    state = BoundaryWalk(rivals=1).start([Example(0, clean, 1, starting_points=clean[None] + 0.5)], classifier)
    state.alive[:] = True
    state.point[0, 0] = state.before[0, 0] = clean.flatten()

    def step(x: float, y: float = 0.0, longest: float = 10.0, **measured):
        state.point[0, 0, :2] = CLEAN + torch.tensor([x, y])
        state.longest[:] = longest
        now = RunStep(torch.tensor([0]), torch.tensor([0]), [0], 0, samples=10**9)
        OnAPlane(rivals=1, **measured).advance(state, classifier, now)
        return state, (state.point[0, 0, :2] - CLEAN).tolist()

    return step


def test_near_the_boundary_it_goes_to_the_nearest_point_beyond_it(walk):
    state, _ = walk(0.35, 0.4)
    assert float(state.slope) == 0.75, "there was no direction along which a slope could be measured"
    state, place = walk(0.35, 0.4)
    assert float(state.slope) == pytest.approx(RISE, rel=1e-4)
    assert place == pytest.approx([BOUNDARY + TARGET / RISE, 0.0], abs=1e-5)
    assert float(state.boundary_distance) == pytest.approx(BOUNDARY + TARGET / RISE, abs=1e-5)
    assert float(state.longest) == pytest.approx(8.5)
    assert (state.before[0, 0, :2] - CLEAN).tolist() == pytest.approx([0.35, 0.4])


def test_the_step_along_the_boundary_is_limited_and_the_one_to_it_is_not(walk):
    walk(0.35, 0.4)
    _, place = walk(0.1, 0.4, longest=0.1)
    assert place == pytest.approx([BOUNDARY + TARGET / RISE, 0.3], abs=1e-5)


def test_a_step_to_the_boundary_is_at_most_half_a_unit_beyond_that_limit(walk):
    walk(0.35)
    walk(0.35)
    _, place = walk(-0.2, longest=0.01)
    assert (TARGET + RISE * (0.2 + BOUNDARY)) / RISE > 0.5, "the boundary is further"
    assert place == pytest.approx([-0.2 + 0.5 + 0.01, 0.0], abs=1e-5)


@pytest.mark.parametrize("measured", [{"normal": (0.0,)}, {"boundary": -0.4}], ids=["no gradient", "far"])
def test_beyond_the_boundary_it_goes_home_as_far_as_no_boundary_can_be(walk, measured):
    """By h, as that is 1-Lipschitz. Nothing is learned on the way."""
    state, place = walk(0.8, **measured)
    assert place == pytest.approx([0.8 - RISE * (0.8 - measured.get("boundary", BOUNDARY)), 0.0], abs=1e-6)
    assert not state.gradient.any()
    assert float(state.gradient_weight) == float(state.gradient_spread) == 0.0
    assert (state.before[0, 0, :2] - CLEAN).tolist() == pytest.approx([0.8, 0.0])
    assert float(state.boundary_distance) == pytest.approx(0.8, abs=1e-6)
    assert float(state.longest) == pytest.approx(5.0)


def test_it_never_goes_beyond_the_clean_image(walk):
    _, place = walk(0.3, boundary=-3.0)
    assert place == pytest.approx([0.0, 0.0], abs=1e-6)


def test_from_the_labels_side_it_goes_half_of_the_way_back(walk):
    walk(0.35, 0.4)
    state, place = walk(-0.1, 0.2, boundary=0.9)
    assert place == pytest.approx([(0.35 - 0.1) / 2, 0.3], abs=1e-6)
    assert (state.before[0, 0, :2] - CLEAN).tolist() == pytest.approx([0.35, 0.4]), "the last point beyond"
    assert float(state.boundary_distance) == pytest.approx((0.35**2 + 0.4**2) ** 0.5, rel=1e-6)


def test_gradients_are_averaged_by_their_variance_and_older_ones_count_less(walk):
    memory = BoundaryWalk().memory
    walk(0.3, normal=(1.0, 0.0), variance=0.25)
    state, _ = walk(0.3, normal=(0.0, 1.0), variance=0.5)
    total = memory * 4.0 + 2.0
    assert state.gradient[0, 0, :2].tolist() == pytest.approx([memory * 4.0 / total, 2.0 / total])
    assert float(state.gradient_weight) == pytest.approx(total)
    # So its variance is Σ w² v / (Σ w)², with weights w of 4 · memory and 2, and w² v of 4 · memory² and 2.
    assert float(state.gradient_spread) == pytest.approx(4.0 * memory**2 + 2.0)

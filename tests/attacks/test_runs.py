"""What the runs of a race know of their boundaries, and what they learn of the slope towards them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from caa_cli.attacks.common.runs import Runs, RunStep
from caa_cli.attacks.common.state import Example

CLEAN = torch.full((1, 2, 2), 0.5)


def new_runs(boundaries: list[float], alive: list[bool]) -> Runs:
    """The runs of one image, with their boundaries at these distances."""
    zeros = torch.zeros(1, len(alive))
    state = Runs.new(
        [Example(0, CLEAN, 0)],
        3,
        rivals=torch.ones_like(zeros, dtype=torch.int64),
        alive=torch.tensor([alive]),
        point=torch.zeros(1, len(alive), 4),
        **Runs.no_estimates(zeros),
    )
    state.boundary_distance = torch.tensor([boundaries])
    return state


def keep(state: Runs, distance: float, confident: bool) -> None:
    points = CLEAN.clone().view(1, 1, 1, 2, 2)
    points[..., 0, 0] += distance
    yes, votes = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, 3, dtype=torch.int64)
    state.remember_points(points, yes, votes, yes & confident)


def test_the_boundary_is_that_of_the_nearest_run_that_goes_on():
    state = new_runs([1.0, 3.0, 2.0], [False, True, True])
    assert state.boundary_distances().tolist() == [math.inf], "without a candidate nothing was found"
    keep(state, 0.4, confident=False)
    assert state.boundary_distances().tolist() == [2.0]


def test_an_adversarial_point_is_beyond_the_boundary_and_an_unconfirmed_one_may_not_be():
    state = new_runs([2.0], [True])
    keep(state, 0.1, confident=False)
    keep(state, 0.4, confident=True)
    assert state.boundary_distances().tolist() == [pytest.approx(0.4)]


@pytest.mark.parametrize(
    ("measured", "samples", "most", "slope", "weight"),
    [
        (0.5, 200, 2000.0, 0.625, 400.0),  # the prior, 0.75, weighs as much
        (0.5, 600, 2000.0, 0.5625, 800.0),
        (0.5, 600, 700.0, 0.5625, 700.0),
        (-3.0, 1000, 2000.0, 0.3, 1200.0),
        (8.0, 1000, 2000.0, 1.0, 1200.0),
    ],
)
def test_a_slope_is_an_average_within_what_slopes_can_be(
    measured: float, samples: int, most: float, slope: float, weight: float
):
    state = new_runs([1.0, 1.0], [True, True])
    now = RunStep(torch.tensor([0, 0]), torch.tensor([0, 1]), [0, 0], 0, samples)
    informative = torch.tensor([True, False])
    learned: Tensor = state.learn_slope(now, torch.tensor([measured, measured]), informative, most)
    assert learned.tolist() == state.slope[0].tolist() == [pytest.approx(slope), 0.75]
    assert state.slope_weight.tolist() == [[weight, 200.0]]

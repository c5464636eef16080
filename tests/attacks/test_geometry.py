"""The way out of a union of balls, against walking along the ray in small steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from caa_cli.attacks.caa.balls import Balls, ray_exit
from caa_cli.attacks.common.projection import least_scale, step_beyond
from caa_cli.attacks.common.vectors import limit_length

DIMENSIONS = 3


def walk(origin: np.ndarray, direction: np.ndarray, centres: np.ndarray, radii: np.ndarray, step: float) -> float:
    """How far one gets in steps of `step` before a point lies in no ball."""
    reach = 0.0
    while reach < 50.0:
        point = origin + reach * direction
        if not (np.linalg.norm(centres - point, axis=1) <= radii).any():
            return reach
        reach += step
    raise AssertionError("the ray never left the balls")


@settings(max_examples=200)
@given(seed=st.integers(0, 10_000), balls=st.integers(1, 8), spread=st.floats(0.1, 2.0))
def test_the_exit_is_where_walking_leaves_the_union(seed: int, balls: int, spread: float):
    rng = np.random.default_rng(seed)
    centres = rng.normal(0.0, spread, (balls, DIMENSIONS))
    radii = rng.uniform(0.05, 1.5, balls)
    origin = rng.normal(0.0, 0.3, DIMENSIONS)
    direction = rng.normal(size=DIMENSIONS)
    direction /= np.linalg.norm(direction)
    tensors = [torch.tensor(a, dtype=torch.float64)[None] for a in (origin, direction, centres, radii)]
    exact = float(ray_exit(*tensors))
    step = 1e-3
    walked = walk(origin, direction, centres, radii, step)
    # Walking overlooks gaps thinner than a step, and only those; it never stops before the exact exit.
    assert walked >= exact - 1e-9
    if walked > exact + step:
        gap = origin + (exact + 1e-7) * direction
        assert not (np.linalg.norm(centres - gap, axis=1) < radii - 1e-6).any()


def test_a_chain_of_balls_carries_the_ray_further_than_its_own_ball():
    centres = torch.tensor([[[0.0, 0.0], [1.5, 0.0], [3.0, 0.0], [6.0, 0.0]]])
    radii = torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    out = ray_exit(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), centres, radii)
    assert out.tolist() == [4.0]


def test_a_small_ball_within_a_large_one_does_not_shorten_the_way():
    """In the order of their beginnings: 0 to 4, 1 to 2, and 3 to 5, which begins beyond the end of the second."""
    centres = torch.tensor([[[0.0, 0.0], [1.5, 0.0], [4.0, 0.0]]])
    out = ray_exit(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), centres, torch.tensor([[4.0, 0.5, 1.0]]))
    assert out.tolist() == [5.0]


def test_balls_that_touch_hold_the_ray():
    centres = torch.tensor([[[0.0, 0.0], [2.0, 0.0]]])
    out = ray_exit(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), centres, torch.ones(1, 2))
    assert out.tolist() == [3.0]


def test_a_ball_behind_the_origin_carries_nobody():
    centres, direction = torch.tensor([[[-2.0, 0.0], [0.5, 0.0]]]), torch.tensor([[1.0, 0.0]])
    assert ray_exit(torch.zeros(1, 2), direction, centres, torch.tensor([[1.0, 0.25]])).tolist() == [0.0]


def test_a_ball_behind_the_origin_does_not_hide_the_one_around_it():
    centres, direction = torch.tensor([[[-2.0, 0.0], [0.25, 0.0]]]), torch.tensor([[1.0, 0.0]])
    assert ray_exit(torch.zeros(1, 2), direction, centres, torch.tensor([[1.0, 0.5]])).tolist() == [0.75]


def test_an_origin_outside_every_ball_goes_nowhere():
    centres, radii = torch.tensor([[[2.0, 0.0]]]), torch.tensor([[1.0]])
    assert ray_exit(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]]), centres, radii).tolist() == [0.0]


def give(balls: Balls, example: int, place: float, radius: float) -> None:
    """A ball at this place of the first axis for one example, and none for the others."""
    examples = len(balls.radii)
    chosen = torch.arange(examples) == example
    balls.add(torch.tensor([[place, 0.0]] * examples), radius * chosen, chosen)


def ways_out(balls: Balls) -> list[float]:
    """How far each example is carried from the origin along the first axis."""
    examples = len(balls.radii)
    return balls.exit(
        torch.zeros(examples, 2), torch.tensor([[1.0, 0.0]] * examples), torch.ones(examples, dtype=torch.bool)
    ).tolist()


def test_balls_join_leave_and_grow_without_mixing_examples():
    device = torch.device("cpu")
    balls = Balls(2, 2, device)
    for place in range(10):  # a chain for the first example only
        give(balls, 0, place, 0.6)
    give(balls, 1, 0.0, 0.5)
    assert ways_out(balls) == pytest.approx([9.6, 0.5])
    more = Balls(1, 2, device)
    give(more, 0, 0.0, 0.25)
    balls.extend(more)
    balls.take(torch.tensor([2, 0]))
    assert ways_out(balls) == pytest.approx([0.25, 9.6])


def test_balls_are_found_again_after_batches_have_been_joined_and_cleared():
    """The first example's places are all taken when it is appended to a batch with none."""
    device = torch.device("cpu")

    def chain(balls: Balls, example: int, places: range) -> float:
        """Balls of radius 0.3 at half a unit's distance; how far they carry the example."""
        for place in places:
            give(balls, example, 0.5 * place, 0.3)
        return ways_out(balls)[example]

    full, batch = Balls(1, 2, device), Balls(1, 2, device)
    chain(full, 0, range(8))
    assert full.capacity == 8
    batch.extend(full)
    assert chain(batch, 1, range(8, 9)) == pytest.approx(4.3)

    capacity = batch.capacity
    batch.clear(torch.tensor([False, True]))
    assert chain(batch, 1, range(0)) == 0.0
    assert chain(batch, 1, range(capacity)) == pytest.approx(0.5 * capacity - 0.2)
    assert batch.capacity == capacity, "places that were cleared are used again"


def test_balls_of_radius_0_take_no_place():
    balls = Balls(1, 2, torch.device("cpu"))
    for place in range(8):
        for _ in range(3):
            give(balls, 0, 0.0, 0.0)
        give(balls, 0, place, 0.6)
    assert balls.capacity == 8
    assert ways_out(balls) == pytest.approx([7.6])


def test_the_places_that_growing_adds_are_empty():
    """Beside the nine balls of the one side, the other has none, not even around the origin."""
    balls = Balls(1, 2, torch.device("cpu"))
    for _ in range(9):
        balls.add(torch.zeros(1, 2), torch.ones(1), torch.tensor([True]))
    direction = torch.tensor([[1.0, 0.0]])
    assert balls.exit(torch.zeros(1, 2), direction, torch.tensor([True])).tolist() == [1.0]
    assert balls.exit(torch.zeros(1, 2), direction, torch.tensor([False])).tolist() == [0.0]


def test_balls_of_the_other_side_carry_nobody():
    balls, one = Balls(1, 2, torch.device("cpu")), torch.tensor([1.0])
    balls.add(torch.zeros(1, 2), 0.5 * one, torch.tensor([True]))
    balls.add(torch.tensor([[1.0, 0.0]]), one, torch.tensor([False]))
    ray = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    assert (balls.exit(*ray, torch.tensor([True])).item(), balls.exit(*ray, torch.tensor([False])).item()) == (
        0.5,
        2.0,
    )


def test_moves_that_are_too_long_are_cut_and_others_left():
    moves = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0]])
    torch.testing.assert_close(
        limit_length(moves, torch.tensor([1.0, 1.0, 1.0])), torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0]])
    )


def test_the_part_of_a_step_that_has_no_limit_ends_at_the_edge_of_the_box():
    clean, direction, one = torch.tensor([[0.5, 0.5]]), torch.tensor([[1.0, 0.0]]), torch.ones(1)
    point = torch.tensor([[0.9, 0.6]])
    step, nearest = step_beyond(clean, point, direction, 0.2 * one, 0.0 * one, unlimited=0.3 * direction)
    torch.testing.assert_close(step, torch.tensor([[1.0, 0.6]]))
    torch.testing.assert_close(nearest, torch.tensor([[0.7, 0.5]]))


def test_an_example_without_balls_has_no_way_to_go():
    assert ways_out(Balls(1, 2, torch.device("cpu"))) == [0.0]


@settings(max_examples=100)
@given(seed=st.integers(0, 10_000), need=st.floats(0.0, 3.0))
def test_the_least_scale_is_where_the_limited_sum_reaches_what_is_needed(seed: int, need: float):
    """min(limit, λ·weight) summed over the pixels, some of which have no weight or no room."""
    rng = np.random.default_rng(seed)
    limits, weights = (torch.tensor(rng.uniform(0.0, 0.4, (1, 12)) * (rng.uniform(size=(1, 12)) > 0.2)) for _ in "ab")
    scale = least_scale(limits, weights, torch.tensor([need], dtype=torch.float64))
    most = float(limits[weights > 0].sum())
    if most < need * (1.0 - 1e-9):
        assert scale.item() > 1e9
    elif most > need * (1.0 + 1e-9):
        assert float(torch.minimum(limits, scale * weights).sum()) == pytest.approx(need, abs=1e-9)
        less = 0.999 * scale
        assert need < 1e-300 or float(torch.minimum(limits, less * weights).sum()) < need

"""Which runs of a race go on."""

from __future__ import annotations

import math

import pytest
import torch

from caa_cli.attacks.common.elimination import most_runs, still_racing
from caa_cli.smoothing.objective import ANY_CLASS

FAR = math.inf


@pytest.mark.parametrize(
    ("step", "sizes", "alive", "left"),
    [
        # 25% behind is too far at a fifth of the steps, 4% at seven tenths.
        (4, [1.3, 1.0, 1.2], [True, True, True], [False, True, True]),
        (14, [1.05, 1.0, FAR], [True, True, False], [False, True, False]),
        (14, [1.03, 1.0, FAR], [True, True, False], [True, True, False]),
        # Two go on in the second half, three before it, all at first.
        (1, [1.0, 1.0, 1.0, 9.0], [True, True, True, True], [True, True, True, True]),
        (4, [1.0, 1.0, 1.0, 1.0], [True, True, True, True], [True, True, True, False]),
        (10, [1.002, 1.001, 1.0], [True, True, True], [False, True, True]),
        # Those that are ended rank behind all others, and those that are far from any boundary behind the near.
        (10, [FAR, FAR, FAR], [True, True, True], [True, True, False]),
        (10, [FAR, 1.0, 2.0], [False, True, True], [False, True, False]),
        (10, [1.0, FAR, FAR], [False, True, True], [False, True, True]),
        (10, [FAR, 1.0, FAR], [True, True, True], [False, True, False]),
        # The last tenth of the steps is the nearest one's.
        (17, [1.0, 1.001, 1.0], [True, True, False], [True, True, False]),
        (18, [1.001, 1.0, 1.0], [True, True, False], [False, True, False]),
    ],
)
def test_a_run_is_given_up_when_its_boundary_is_too_far_behind(step, sizes, alive, left):
    assert racing(alive, sizes, list(range(len(alive))), step) == left


def racing(alive: list[bool], sizes: list[float], rivals: list[int], step: int) -> list[bool]:
    rows = (torch.tensor([row]) for row in (alive, sizes, rivals))
    return still_racing(*rows, torch.tensor([step]), 20)[0].tolist()


@pytest.mark.parametrize(
    ("step", "sizes", "rivals", "left"),
    [
        # It has come 1.5 of a way of unknown length, and goes on like the nearest.
        (4, [1.5, 1.1, 1.0, 1.2], [ANY_CLASS, 3, 4, 5], [True, True, True, False]),
        (14, [1.5, 1.02, 1.0], [ANY_CLASS, 3, 4], [True, False, True]),
        # Still far from any boundary in the second half of the steps it is given up.
        (10, [FAR, 1.001, 1.0], [ANY_CLASS, 3, 4], [False, True, True]),
        # Its class is that of another run: the nearer one goes on.
        (1, [1.5, 1.1, 1.0, 1.2], [3, 3, 4, 5], [False, True, True, True]),
        (1, [1.0, 1.1, 1.0, 1.2], [3, 3, 4, 5], [True, False, True, True]),
    ],
)
def test_a_run_without_a_class_counts_as_the_nearest_and_no_class_is_followed_twice(step, sizes, rivals, left):
    assert racing([True] * len(sizes), sizes, rivals, step) == left


def test_a_run_without_a_class_is_not_compared_with_ended_ones():
    alive, sizes = [True, False, True, True, True], [1.5, 0.5, 1.0, 1.2, 1.1]
    assert racing(alive, sizes, [ANY_CLASS, 3, 4, 5, 6], 4) == [True, False, True, False, True]


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_all_runs_are_evaluated_once_however_few_steps_there_are(steps: int):
    start = torch.ones(1, 4, dtype=torch.bool), torch.full((1, 4), FAR), torch.arange(4)[None], torch.tensor([0])
    assert still_racing(*start, steps).all()


def test_a_run_that_follows_the_class_of_an_ended_one_goes_on():
    assert racing([True, False, True], [1.5, 1.1, 1.4], [3, 3, 4], 1) == [True, False, True]


@pytest.mark.parametrize("rivals", [1, 2, 4, 9])
def test_no_more_runs_race_than_are_announced(rivals: int):
    for steps in range(1, 41):
        alive = torch.ones(1, rivals, dtype=torch.bool)
        for step in range(steps):
            classes = torch.arange(rivals)[None]
            alive = still_racing(alive, torch.ones(1, rivals), classes, torch.tensor([step]), steps)
            assert int(alive.sum()) == most_runs(step, steps, rivals)

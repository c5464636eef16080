"""APGD's steps and their schedule, held against one example at a time written out as the paper has it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from caa_cli.attacks.baselines.apgd import ApgdState, advance, begin, checkpoints
from caa_cli.attacks.common.loop import Example

STEPS, RHO = 40, 0.75
# Uphill on a bowl, elongated so that long steps overshoot: one target within the ball, one beyond it.
TARGETS = torch.tensor([[0.55, 0.40, 0.52, 0.50], [0.95, 0.10, 0.70, 0.30]])
SHAPE = torch.tensor([1.0, 30.0, 3.0, 0.1])
# In float64, for the last steps near the top to compare alike in both.
CLEAN, EPSILON = torch.full((4,), 0.5, dtype=torch.float64), 0.3


def loss_and_direction(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    gradient = -2 * SHAPE * (x - target)
    return -(SHAPE * (x - target).square()).sum(-1), gradient / gradient.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def project(x: Tensor) -> Tensor:
    away = x - CLEAN
    return (CLEAN + away * min(1.0, EPSILON / max(float(away.norm()), 1e-12))).clamp(0, 1)


def scalar(start: Tensor, target: Tensor) -> list[tuple[list[float], float]]:
    """Points and step sizes of one example. Croce and Hein (2020), Algorithm 1, in the authors' integer schedule."""
    x, size, log = start, 2 * EPSILON, []
    interval, since, gains = max(int(0.22 * STEPS), 1), 0, 0
    loss, direction = loss_and_direction(x, target)
    best, best_loss, best_direction = x, float(loss), direction
    loss_at_check, halved, previous, last = best_loss, True, x, float(loss)
    for step in range(STEPS):
        log.append((x.tolist(), size))
        if step == 0:
            following = project(x + size * direction)
        else:
            uphill = project(x + size * direction)
            following = project(x + 0.75 * (uphill - x) + 0.25 * (x - previous))
        previous, x = x, following
        loss, direction = loss_and_direction(x, target)
        gains += float(loss) > last
        last = float(loss)
        if last > best_loss:
            best, best_loss, best_direction = x, last, direction
        since += 1
        if since == interval:
            halved_before, halved = halved, False
            if gains < RHO * interval or (not halved_before and loss_at_check >= best_loss):
                size, halved, x, direction = size / 2, True, best, best_direction
            loss_at_check, since, gains = best_loss, 0, 0
            interval = max(interval - max(int(0.03 * STEPS), 1), int(0.06 * STEPS), 1)
    return log


def new_state(rows: int) -> ApgdState:
    examples = [Example(index, CLEAN.view(1, 2, 2), 0) for index in range(rows)]
    flat = torch.zeros(rows, 4, dtype=torch.float64)

    def each(value: float | int | bool) -> Tensor:
        return torch.full((rows,), value, dtype=torch.float64 if isinstance(value, float) else None)

    return ApgdState.new(
        examples,
        3,
        epsilon=each(EPSILON),
        step_size=each(0.0),
        taken=each(0),
        previous=flat,
        best=flat,
        best_direction=flat,
        best_loss=each(0.0),
        last_loss=each(0.0),
        gains=each(0),
        loss_at_check=each(0.0),
        halved_at_check=each(False),
    )


def test_the_checkpoints_are_the_papers():
    ends = [step for step, length in enumerate(checkpoints(100)) if length]
    assert ends == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [length for length in checkpoints(100) if length] == [22, 19, 16, 13, 10, 7, 6, 6]


def test_points_and_step_sizes_are_those_of_one_example_at_a_time():
    state = new_state(2)
    normals = torch.tensor([[1.0, -2.0, 0.5, 3.0], [-1.0, 0.3, 2.0, 1.0]])
    begin(state, torch.tensor([True, True]), normals)
    starts = state.x.flatten(1).clone()
    assert torch.allclose((starts - CLEAN).norm(dim=1), torch.tensor(EPSILON, dtype=torch.float64))
    logs: list[list[tuple[list[float], float]]] = [[], []]
    for _ in range(STEPS):
        x = state.x.flatten(1).clone()
        loss, direction = loss_and_direction(x, TARGETS)
        advance(state, loss, direction, STEPS, RHO)
        for row in range(2):
            logs[row].append((x[row].tolist(), float(state.step_size[row])))
    for row in range(2):
        expected = scalar(starts[row], TARGETS[row])
        sizes = [size for _, size in expected]
        assert [size for _, size in logs[row]] == pytest.approx(sizes)
        assert sizes[-1] < sizes[0], "some step was halved"
        for step, ((ours, _), (theirs, _)) in enumerate(zip(logs[row], expected, strict=True)):
            # At a checkpoint the reference notes the best point, where it may have returned to.
            if not checkpoints(STEPS)[step]:
                assert ours == pytest.approx(theirs, abs=1e-5), (row, step)


def test_a_new_run_leaves_the_other_examples_where_they_are():
    state = new_state(2)
    begin(state, torch.tensor([True, True]), torch.ones(2, 4))
    for _ in range(12):
        loss, direction = loss_and_direction(state.x.flatten(1), TARGETS)
        advance(state, loss, direction, STEPS, RHO)
    before = state.x[1].clone()
    begin(state, torch.tensor([True, False]), torch.ones(2, 4))
    assert torch.equal(state.x[1], before)
    assert state.taken.tolist() == [0, 12]
    assert float(state.step_size[0]) == 2 * float(state.epsilon[0])


# Losses of a run of STEPS points, whose intervals have 8, 7, 6, 5, 4, 3, 2, 2 and 2 steps.
#   8: 7 of 8 steps rise, but none above the first point: at the first checkpoint that halves nothing.
#   7: 6 of 7 rise and the best stays: it is halved.  6: 5 of 6, but it was just halved.  5: 4 of 5, halved again.
#   4: 3 of 4 rise, to a new best.  3: all rise, below that best: halved.  2: they rise above it.
#   2: one of two rises: halved.  2: the same.
FIRST_INTERVALS = [9.0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5]
LOSSES = torch.tensor([*FIRST_INTERVALS, 6, 10, 11, 2, 3, 4, 5, 12, 13, 14, 13, 14, 13])
HALVINGS = [15, 26, 33, 37, 39]
# Of the first interval's 8 steps 5 rise, which are too few.
FEW = torch.cat([torch.tensor([1.0, 2, 3, 2, 3, 2, 3, 2, 3]), LOSSES[9:]])


def halvings(state: ApgdState, losses: Tensor) -> list[list[int]]:
    """The points, by example, after which the step size of a run with these losses, (points, examples), is halved."""
    begin(state, torch.ones(len(state), dtype=torch.bool), torch.ones(len(state), 4))
    found: list[list[int]] = [[] for _ in range(len(state))]
    for point, loss in enumerate(losses):
        before = state.step_size
        advance(state, loss, torch.zeros(len(state), 4), STEPS, RHO)
        for row in (state.step_size < before).nonzero()[:, 0].tolist():
            found[row].append(point)
    return found


def test_a_step_is_halved_where_the_loss_rises_seldom_or_its_best_stays():
    assert halvings(new_state(1), LOSSES[:, None]) == [HALVINGS]
    assert halvings(new_state(1), FEW[:, None])[0][0] == 8


def test_a_run_is_as_the_first_whatever_the_one_before_it_has_left():
    state = new_state(2)
    halvings(state, 20.0 + LOSSES[:13, None].expand(-1, 2))  # ended within an interval
    assert halvings(state, torch.stack([LOSSES, FEW], dim=1)) == halvings(
        new_state(2), torch.stack([LOSSES, FEW], dim=1)
    )


def test_a_point_whose_loss_is_no_number_is_the_worst_of_its_run():
    losses = LOSSES.clone()
    losses[0] = torch.nan
    worst = LOSSES.clone()
    worst[0] = -1000.0
    assert halvings(new_state(1), losses[:, None]) == halvings(new_state(1), worst[:, None])

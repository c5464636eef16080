"""Auto-PGD in L2 (Croce and Hein, 2020): projected gradient steps whose size is halved when the loss stops rising."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from caa_cli.attacks.baselines.baseline import scale_to
from caa_cli.attacks.common.projection import limit_length
from caa_cli.attacks.common.state import Batch


@dataclass
class ApgdState(Batch):
    """One run of APGD an example; vectors are (examples, dimensions), x among them as it is in the batch.

    epsilon: the radius of the ball.  taken: points that this run has evaluated.  previous: the point before x.
    best, best_direction, best_loss: of the best point of the run.  last_loss: of the last point.
    gains: steps since the last checkpoint that raised the loss.  loss_at_check, halved_at_check: at that checkpoint.
    """

    epsilon: Tensor
    step_size: Tensor
    taken: Tensor
    previous: Tensor
    best: Tensor
    best_direction: Tensor
    best_loss: Tensor
    last_loss: Tensor
    gains: Tensor
    loss_at_check: Tensor
    halved_at_check: Tensor


def checkpoints(steps: int) -> list[int]:
    """The length of the interval that ends at each point of a run, 0 to steps; 0 where none ends."""
    interval, least, shorter = (max(int(share * steps), 1) for share in (0.22, 0.06, 0.03))
    lengths = [0] * (steps + 1)
    end = interval
    while end <= steps:
        lengths[end] = interval
        interval = max(interval - shorter, least)
        end += interval
    return lengths


@cache
def _intervals(steps: int, device: torch.device) -> Tensor:
    return torch.tensor(checkpoints(steps), device=device)


def advance(state: ApgdState, loss: Tensor, direction: Tensor, steps: int, rho: float) -> None:
    """Records the loss at x, (examples,), and moves x; direction: uphill, of unit length or zero.

    At a checkpoint the step size is halved, and the run returns to its best point, if fewer than the share `rho` of
    the interval's steps raised the loss, or if the best loss is unchanged and the last checkpoint did not halve.
    """
    loss = torch.where(loss.isnan(), -torch.inf, loss)
    first = state.taken == 0
    x = state.x.flatten(1)
    better = first | (loss > state.best_loss)
    state.best = torch.where(better[:, None], x, state.best)
    state.best_direction = torch.where(better[:, None], direction, state.best_direction)
    state.best_loss = torch.where(better, loss, state.best_loss)
    state.gains = torch.where(first, 0, state.gains + (loss > state.last_loss))
    state.last_loss = loss
    state.loss_at_check = torch.where(first, loss, state.loss_at_check)

    interval = _intervals(steps, x.device)[state.taken]
    check = interval > 0
    halve = check & (
        (state.gains < rho * interval) | (~state.halved_at_check & (state.loss_at_check >= state.best_loss))
    )
    state.step_size = torch.where(halve, state.step_size / 2.0, state.step_size)
    state.halved_at_check = torch.where(check, halve, state.halved_at_check)
    state.loss_at_check = torch.where(check, state.best_loss, state.loss_at_check)
    state.gains = torch.where(check, 0, state.gains)
    x = torch.where(halve[:, None], state.best, x)
    direction = torch.where(halve[:, None], state.best_direction, direction)

    uphill = _project(state, x + state.step_size[:, None] * direction)
    # The first step has no momentum.
    momentum = torch.where(first[:, None], uphill, x + 0.75 * (uphill - x) + 0.25 * (x - state.previous))
    state.previous = x
    state.x = _project(state, momentum).view_as(state.x)
    state.taken = state.taken + 1


def begin(state: ApgdState, rows: Tensor, normals: Tensor) -> None:
    """Begins new runs for the examples of this mask, on the sphere of `epsilon` in the direction of `normals`."""
    chosen = rows[:, None]
    start = (state.clean.flatten(1) + scale_to(normals, state.epsilon)).clamp(0.0, 1.0)
    state.x = torch.where(chosen, start, state.x.flatten(1)).view_as(state.x)
    state.step_size = torch.where(rows, 2.0 * state.epsilon, state.step_size)
    state.taken = torch.where(rows, 0, state.taken)
    state.halved_at_check = state.halved_at_check | rows


def _project(state: ApgdState, points: Tensor) -> Tensor:
    """The points projected onto the ball, then clipped to the box."""
    clean = state.clean.flatten(1)
    return (clean + limit_length(points - clean, state.epsilon)).clamp(0.0, 1.0)

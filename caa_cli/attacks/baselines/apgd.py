"""Auto-PGD in L2 (Croce and Hein, 2020): projected gradient steps whose size is halved when the loss stops rising."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from caa_cli.attacks.common.state import Batch
from caa_cli.attacks.common.vectors import limit_length, scale_to


@dataclass
class ApgdState(Batch):
    """One run of APGD an example; vectors are (examples, dimensions), x among them as it is in the batch.

    epsilon: the radius of the ball, on the CPU.  taken: points that this run has evaluated, on the CPU.
    previous: the point before x.
    best, best_direction, best_loss: of the best point of the run.  last_loss: of the last point.
    gains: steps since the last checkpoint that raised the loss.  loss_at_check: the best one there, of no account
    before it.  halved_at_check: whether it halved the step; True before it.
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


@cache
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


def advance(state: ApgdState, loss: Tensor, direction: Tensor, steps: int, rho: float) -> None:
    """Records the loss at x, (examples,), and moves x; direction: uphill, of unit length or zero.

    At a checkpoint the step size is halved, and the run returns to its best point, if fewer than the share `rho` of
    the interval's steps raised the loss, or if the best loss is unchanged and the last checkpoint did not halve.
    """
    loss = loss.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
    first, interval = state.taken == 0, torch.tensor(checkpoints(steps))[state.taken]
    begins, some_begin = state.on_device(first), bool(first.any())
    if some_begin:
        _record_first(state, loss, direction, begins)
    x = state.x.flatten(1)
    better = loss > state.best_loss
    state.best = torch.where(better[:, None], x, state.best)
    state.best_direction = torch.where(better[:, None], direction, state.best_direction)
    state.best_loss = torch.where(better, loss, state.best_loss)
    state.gains = state.gains + (loss > state.last_loss)
    state.last_loss = loss
    if bool(interval.any()):
        halve = _check(state, state.on_device(interval), rho)[:, None]
        x, direction = torch.where(halve, state.best, x), torch.where(halve, state.best_direction, direction)

    radius = state.on_device(state.epsilon)
    uphill = _project(state, x + state.step_size[:, None] * direction, radius)
    momentum = x + 0.75 * (uphill - x) + 0.25 * (x - state.previous)
    if some_begin:  # the first step has no momentum
        momentum = torch.where(begins[:, None], uphill, momentum)
    state.previous = x
    state.x = _project(state, momentum, radius).view_as(state.x)
    state.taken = state.taken + 1


def _record_first(state: ApgdState, loss: Tensor, direction: Tensor, begins: Tensor) -> None:
    """Makes x the best and the last point of the runs of this mask: it is their first."""
    state.best = torch.where(begins[:, None], state.x.flatten(1), state.best)
    state.best_direction = torch.where(begins[:, None], direction, state.best_direction)
    state.best_loss = torch.where(begins, loss, state.best_loss)
    state.last_loss = torch.where(begins, loss, state.last_loss)
    state.gains = torch.where(begins, 0, state.gains)


def _check(state: ApgdState, interval: Tensor, rho: float) -> Tensor:
    """Judges the intervals that end, of (examples,) steps, 0 where none does; returns which runs halve their step."""
    check = interval > 0
    halve = check & (
        (state.gains < rho * interval) | (~state.halved_at_check & (state.loss_at_check >= state.best_loss))
    )
    state.step_size = torch.where(halve, state.step_size / 2.0, state.step_size)
    state.halved_at_check = torch.where(check, halve, state.halved_at_check)
    state.loss_at_check = torch.where(check, state.best_loss, state.loss_at_check)
    state.gains = torch.where(check, 0, state.gains)
    return halve


def begin(state: ApgdState, rows: Tensor, normals: Tensor) -> None:
    """Begins new runs for the examples of this mask, on the CPU, on the sphere of `epsilon` in the direction of
    `normals`."""
    radius, chosen = state.on_device(state.epsilon), state.on_device(rows)
    start = (state.clean.flatten(1) + scale_to(normals, radius)).clamp(0.0, 1.0)
    state.x = torch.where(chosen[:, None], start, state.x.flatten(1)).view_as(state.x)
    state.step_size = torch.where(chosen, 2.0 * radius, state.step_size)
    state.halved_at_check = state.halved_at_check | chosen
    state.taken = torch.where(rows, 0, state.taken)


def _project(state: ApgdState, points: Tensor, radius: Tensor) -> Tensor:
    """The points projected onto the ball, then clipped to the box."""
    clean = state.clean.flatten(1)
    return (clean + limit_length(points - clean, radius)).clamp(0.0, 1.0)

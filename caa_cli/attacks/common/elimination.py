"""Which runs of a race go on: those whose boundary is not too much further away than the nearest one's, and one for
each class."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from caa_cli.smoothing.objective import ANY_CLASS

# From which share of the steps on at most how many runs may go on, however close their boundaries are to each other.
_FIELD = ((0.2, 3), (0.5, 2), (0.9, 1))
# By how much a run's boundary may seem further than the nearest one before the run is given up: at the first of these
# shares of the steps, and so many times less with every further half of the steps.
_LEAD, _LEAD_SHRINK = 0.25, 6.0


def _first(share: float, steps: int) -> int:
    """The step from which on a rule holds; never the first step, so that all rivals are evaluated once."""
    return max(1, round(share * steps))


def most_runs(step: int, steps: int, rivals: int) -> int:
    """How many of an image's runs may go on at this step."""
    return min([rivals, *(most for share, most in _FIELD if step >= _first(share, steps))])


def still_racing(alive: Tensor, distance: Tensor, rivals: Tensor, iteration: Tensor, steps: int) -> Tensor:
    """Which runs go on, (examples, R) bool: all but those too far behind, those beyond the most that may, and those
    whose class a nearer run follows.

    alive: (examples, R) bool.  distance: (examples, R) of each boundary as estimated, inf where there is no estimate.
    rivals: (examples, R) their classes; a run that has ANY_CLASS and a finite distance counts like the nearest.
    iteration: (examples,) the step that each example is about to take, of `steps`. All on the CPU.
    """
    nearest = torch.where(alive & (rivals != ANY_CLASS), distance, torch.inf).amin(dim=1, keepdim=True)
    distance = torch.where((rivals == ANY_CLASS) & distance.isfinite(), nearest, distance)
    # Of runs without an estimate the first goes on; ended ones rank behind all.
    distance = torch.where(alive, distance.clamp(max=torch.finfo(distance.dtype).max), torch.inf)
    rank = distance.argsort(dim=1, stable=True).argsort(dim=1)
    limits = [(most_runs(step, steps, rivals.shape[1]), _lead(step, steps)) for step in iteration.tolist()]
    most, lead = torch.tensor(limits, dtype=distance.dtype).unbind(dim=1)
    behind = distance > distance.amin(dim=1, keepdim=True) * (1.0 + lead[:, None])
    same_class = rivals[:, :, None] == rivals[:, None, :]
    repeats = (same_class & (rank[:, :, None] > rank[:, None, :])).any(dim=2)
    return alive & (rank < most[:, None]) & ~behind & ~repeats


def _lead(step: int, steps: int) -> float:
    """By how much a boundary may seem further than the nearest one at this step, as a share."""
    if step < _first(_FIELD[0][0], steps):
        return math.inf
    return _LEAD * math.pow(_LEAD_SHRINK, -2.0 * max(0.0, step / steps - _FIELD[0][0]))

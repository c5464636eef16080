"""The runs of a race: their state, a step of some of them, and an evaluation of their points."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from caa_cli.attacks.common.state import Batch

# The prior of the slope of h, the samples that it weighs, and the range of every estimate.
_SLOPE, _SLOPE_WEIGHT = 0.75, 200.0
_SLOPES = (0.3, 1.0)


@dataclass
class Runs(Batch):
    """One run for each of R rivals of each example: tensors (examples, R, …).

    rivals: the classes, ANY_CLASS of a run that has none yet.  alive: whether a run goes on, on the CPU.
    point: flat, where it is evaluated next.  boundary_distance: of its boundary as estimated, inf before that.
    slope, slope_weight: of h along the direction that the run follows, and the samples behind it.
    """

    rivals: Tensor
    alive: Tensor
    point: Tensor
    boundary_distance: Tensor
    slope: Tensor
    slope_weight: Tensor

    @staticmethod
    def no_estimates(like: Tensor) -> dict[str, Any]:
        """`boundary_distance`, `slope` and `slope_weight` of new runs; like: (examples, R)."""
        return {
            "boundary_distance": torch.full_like(like, torch.inf),
            "slope": torch.full_like(like, _SLOPE),
            "slope_weight": torch.full_like(like, _SLOPE_WEIGHT),
        }

    def boundary_distances(self) -> Tensor:
        """As `Batch.boundary_distances`: of a run that was not given up, or of a nearer adversarial point."""
        run = torch.where(self.on_device(self.alive), self.boundary_distance, torch.inf).amin(dim=1)
        point = torch.where(self.near_confident, self.near_distance, torch.inf).amin(dim=1)
        return torch.where(self.near_distance[:, 0].isfinite(), torch.minimum(run, point), torch.inf)

    def offer(self, now: RunStep, votes: Tensor, confident: Tensor, unconfirmed: Tensor | None) -> None:
        """Remembers the points of these runs that are adversarial, or to be kept as unconfirmed candidates."""
        shape = self.rivals.shape
        sure = now.spread(confident, shape)
        offered = sure if unconfirmed is None else sure | now.spread(unconfirmed, shape)
        points = self.point.view(*shape, *self.clean.shape[1:])
        self.remember_points(points, offered, now.spread(votes, shape), sure)

    def learn_slope(self, now: RunStep, measured: Tensor, informative: Tensor, most: float) -> Tensor:
        """Averages newly measured slopes into those of the runs, where they are informative, and returns these; the
        average weighs at most `most` samples."""
        slope, weight = now.of(self.slope), now.of(self.slope_weight)
        total = weight + now.samples
        pooled = torch.lerp(measured, slope, weight / total).clamp(*_SLOPES)
        slope = torch.where(informative, pooled, slope)
        now.put(self.slope, slope)
        now.put(self.slope_weight, torch.where(informative, total.clamp(max=most), weight))
        return slope


@dataclass(frozen=True)
class RunStep:
    """Runs that take a step together, one row a run.

    rows, runs: (runs,) int64, which example and which of its runs, on the device.  rows_on_host: the same rows.
    iteration: the same for all of them.  samples: of each evaluation.
    """

    rows: Tensor
    runs: Tensor
    rows_on_host: list[int]
    iteration: int
    samples: int

    def of(self, values: Tensor) -> Tensor:
        """These runs' values, of (examples, R, …)."""
        return values[self.rows, self.runs]

    def put(self, values: Tensor, chosen: Tensor) -> None:
        """Writes these runs' values, (runs, …), into (examples, R, …)."""
        values[self.rows, self.runs] = chosen

    def spread(self, chosen: Tensor, shape: torch.Size) -> Tensor:
        """These runs' values, (runs, …), among zeros for the others, (examples, R, …); shape: (examples, R)."""
        spread = chosen.new_zeros((*shape, *chosen.shape[1:]))
        self.put(spread, chosen)
        return spread


RunState = TypeVar("RunState", bound=Runs)


@dataclass
class RunEvaluation:
    """One evaluation of the points of some runs, one row a run.

    rival: (runs,) int64, the class that h is of: where the run has none, the one with the most votes but the label.
    point: (runs, dimensions).  margin: (runs,) h, of a target over the strongest other class.  slope: (runs,) of h
    along the direction that was given.  gradient: (runs, dimensions) of log p̄_rival − log p̄_label.  direction: it at
    unit length, zero where it is `lost`.  variance: (runs,) of the gradient's noise, None of an exact gradient.
    """

    rival: Tensor
    point: Tensor
    margin: Tensor
    slope: Tensor
    gradient: Tensor
    direction: Tensor
    lost: Tensor
    variance: Tensor | None

"""Steps in the box [0, 1]: the nearest point beyond a plane."""

from __future__ import annotations

import torch
from torch import Tensor

from caa_cli.attacks.common.vectors import limit_length


def least_scale(limits: Tensor, weights: Tensor, need: Tensor) -> Tensor:
    """The least λ ≥ 0 at which Σ_i min(limit_i, λ·weight_i) is `need`, (rows,); inf where all limits are too little.

    limits, weights: (rows, dimensions) ≥ 0.  need: (rows,) ≥ 0.  The sum is piecewise linear in λ, with a kink where
    each pixel meets its limit. So the kinks are sorted, and the segment that holds `need` gives λ.
    """
    kinks, order = (limits / weights.clamp(min=1e-30)).clamp(max=1e30).sort(dim=1)
    limits, weights = limits.gather(1, order), weights.gather(1, order)
    met = _running_sums(limits)
    free = _running_sums(weights.flip(1)).flip(1)  # the weights from each kink on
    before = (met + kinks * (free - weights) < need[:, None]).sum(dim=1, keepdim=True)
    last = before.clamp(max=limits.shape[1] - 1)
    rest = need - (met - limits).gather(1, last)[:, 0]
    scale = rest.clamp(min=0.0) / free.gather(1, last)[:, 0].clamp(min=1e-30)
    return scale.masked_fill_(before[:, 0] == limits.shape[1], torch.inf)


def _running_sums(values: Tensor) -> Tensor:
    """The sum of each row up to every place. In float64: a GPU adds a long row up in an order of chance."""
    sums: Tensor = values.cumsum(dim=1, dtype=torch.float64).to(values.dtype)
    return sums


def room_along(clean: Tensor, direction: Tensor) -> Tensor:
    """How far each pixel may move along its own sign of the direction before it meets the box."""
    return torch.where(direction > 0, 1.0 - clean, clean)


def project_beyond(clean: Tensor, direction: Tensor, need: Tensor) -> Tensor:
    """The shortest δ with ⟨δ, direction⟩ ≥ need that keeps clean + δ in the box; clean, direction (unit) and the
    result (rows, dimensions), need (rows,). Where the box has no such point, the δ that comes closest to one.

    δ = clip(λ·direction) for one λ ≥ 0, by the conditions of Karush, Kuhn and Tucker.
    """
    limits = room_along(clean, direction) * direction.abs()
    scale = least_scale(limits, direction.square(), need.clamp(min=0.0)).clamp(max=1e9)
    return (clean + scale[:, None] * direction).clamp(0.0, 1.0) - clean


def step_beyond(
    clean: Tensor,
    point: Tensor,
    direction: Tensor,
    need: Tensor,
    longest: Tensor,
    unlimited: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """One step from `point` towards the point nearest to `clean` beyond a plane, as (the next point, that nearest
    point), (rows, dimensions) each, in the box.

    The plane is {z: ⟨direction, z − clean⟩ = need}. longest: (rows,) the greatest length of the step, not counting
    its part `unlimited`.
    """
    nearest = clean + project_beyond(clean, direction, need)
    move = nearest - point
    move = limit_length(move, longest) if unlimited is None else unlimited + limit_length(move - unlimited, longest)
    return (point + move).clamp(0.0, 1.0), nearest

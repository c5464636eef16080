"""Steps in the box [0, 1]: the nearest point beyond a plane, and moves of limited length."""

from __future__ import annotations

import torch
from torch import Tensor


def project_beyond(clean: Tensor, direction: Tensor, need: Tensor) -> Tensor:
    """The shortest δ with ⟨δ, direction⟩ ≥ need that keeps clean + δ in the box; clean, direction (unit) and the
    result (rows, dimensions), need (rows,). Where the box has no such point, the δ that comes closest to one.

    δ = clip(λ·direction) for one λ ≥ 0, by the conditions of Karush, Kuhn and Tucker. ⟨δ(λ), direction⟩ is concave
    and piecewise linear in λ, so Newton's method climbs to the solution and never past it.
    """
    scale = need.clamp(min=0.0)
    for _ in range(10):
        wanted = clean + scale[:, None] * direction
        inside = wanted.clamp(0.0, 1.0)
        missing = need.clamp(min=0.0) - ((inside - clean) * direction).sum(dim=1)
        free = (direction.square() * (inside == wanted)).sum(dim=1)
        scale = torch.where(free > 1e-6, scale + missing / free.clamp(min=1e-6), scale)
    return (clean + scale[:, None] * direction).clamp(0.0, 1.0) - clean


def limit_length(moves: Tensor, longest: Tensor) -> Tensor:
    """The moves (rows, dimensions), those longer than `longest` (rows,) scaled down to it."""
    lengths: Tensor = moves.norm(dim=1)
    return moves * (longest / lengths.clamp(min=1e-12)).clamp(max=1.0)[:, None]


def step_beyond(
    clean: Tensor,
    point: Tensor,
    direction: Tensor,
    need: Tensor,
    longest: Tensor,
    unlimited: Tensor | float = 0.0,
) -> tuple[Tensor, Tensor]:
    """One step from `point` towards the point nearest to `clean` beyond a plane, as (the next point, that nearest
    point), (rows, dimensions) each, in the box.

    The plane is {z: ⟨direction, z − clean⟩ = need}. longest: (rows,) the greatest length of the step, not counting
    its part `unlimited`.
    """
    nearest = clean + project_beyond(clean, direction, need)
    move = unlimited + limit_length(nearest - point - unlimited, longest)
    return (point + move).clamp(0.0, 1.0), nearest

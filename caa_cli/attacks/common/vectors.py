"""The directions and lengths of vectors."""

from __future__ import annotations

from torch import Tensor


def unit(vectors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(unit vectors, lengths, lost) of vectors (..., dimensions), such as gradients.

    A vector that is zero or not finite, or whose squares are so in float32 (below 10⁻²³ or above 10¹⁹), is lost: its
    unit vector is zero, so that a step along it goes nowhere.
    """
    lengths = vectors.norm(dim=-1)
    lost = lengths / lengths != 1.0  # 0/0, ∞/∞ and NaN are NaN
    directions = (vectors / lengths[..., None]).masked_fill_(lost[..., None], 0.0)
    return directions, lengths, lost


def scale_to(vectors: Tensor, length: Tensor) -> Tensor:
    """The vectors (rows, dimensions) at these lengths, (rows,); zero vectors stay what they are."""
    lengths: Tensor = vectors.norm(dim=1)
    return vectors * (length / lengths.clamp(min=1e-12))[:, None]


def limit_length(vectors: Tensor, longest: Tensor) -> Tensor:
    """The vectors (rows, dimensions), those longer than `longest` (rows,) scaled down to it."""
    lengths: Tensor = vectors.norm(dim=1)
    return vectors * (longest / lengths.clamp(min=1e-12)).clamp(max=1.0)[:, None]

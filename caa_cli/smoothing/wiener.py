"""A Wiener filter for estimated gradients, with the signal's power estimated from the gradient itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

# The reach of a pixel's neighbourhood, as a share of the image's longer side: 2 of 28 pixels.
_REACH = 1 / 14


def wiener_filter(gradient: Tensor, variance: Tensor, shape: Sequence[int]) -> Tensor:
    """The gradient (rows, dimensions) filtered in the frequencies and then in the pixels.

    Each row is an image of this shape (channels, height, width) with independent noise of this variance (rows,) in
    every pixel. The noise is white, and the gradients of image classifiers are not: they are concentrated in a few
    low frequencies, and where the object is. The mean square of the cosine coefficients in a ring of frequencies,
    less the noise's variance, estimates the signal's power S there, and each coefficient is multiplied by
    S/(S + variance); then the same for the pixels of a neighbourhood, with the remaining noise. A white gradient
    loses a little by it, the less the weaker the noise. The bases are orthonormal: variances are those of pixels.
    """
    rows, columns, ring, sizes = _bases(*shape[-2:], gradient.device)
    images = gradient.view(len(gradient), -1, *shape[-2:])
    coefficients = (rows @ images @ columns.T).flatten(2)
    # In float64, since a GPU adds them up in an order of chance.
    power = torch.zeros((*coefficients.shape[:2], len(sizes)), dtype=torch.float64, device=gradient.device)
    power.index_add_(2, ring, coefficients.square().double())
    power = (power / sizes).float()
    kept = _kept(power, variance[:, None, None])[:, :, ring]
    filtered = rows.T @ (coefficients * kept).view_as(images) @ columns
    remaining = variance[:, None] * kept.square().mean(dim=2)
    reach = max(1, round(_REACH * max(shape[-2:])))
    nearby = F.avg_pool2d(filtered.square(), 2 * reach + 1, 1, reach, count_include_pad=False)
    return (filtered * _kept(nearby, remaining[..., None, None])).flatten(1)


def _kept(power: Tensor, variance: Tensor) -> Tensor:
    """The signal's share of the power."""
    signal = (power - variance).clamp(min=0.0)
    return signal / (signal + variance).clamp(min=1e-30)


@lru_cache(maxsize=4)
def _bases(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The cosine bases of rows and columns, the ring of frequencies of each coefficient, flat, and how many
    coefficients each ring has."""
    size = max(height, width)
    down = torch.arange(height, device=device) * (size / height)
    across = torch.arange(width, device=device) * (size / width)
    ring = (down[:, None].square() + across.square()).sqrt().round().long()
    # Rings are numbered without gaps, so that each has coefficients.
    _, number, sizes = ring.flatten().unique(return_inverse=True, return_counts=True)
    return _cosines(height, device), _cosines(width, device), number, sizes


def _cosines(size: int, device: torch.device) -> Tensor:
    """The orthonormal cosine transform (DCT-II), (size, size): one frequency a row."""
    pixel = torch.arange(size, dtype=torch.float64, device=device)
    basis = torch.cos(math.pi * (pixel + 0.5) * pixel[:, None] / size) * math.sqrt(2.0 / size)
    basis[0] /= math.sqrt(2.0)
    return basis.float()

"""Taking the noise out of an estimated gradient, by what its spectrum says of itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor


def without_noise(gradient: Tensor, variance: Tensor, shape: Sequence[int]) -> Tensor:
    """Wiener's filter in the frequencies of the image: gradient (rows, dimensions), an image of this shape (channels,
    height, width) each with independent noise of this variance (rows,) in every pixel.

    The noise is white, and the gradients of image classifiers are not: most of theirs lies in a few low frequencies.
    The mean square of the cosine coefficients in a ring of frequencies, less the noise's variance, estimates the
    signal's power S there, and S/(S + variance) of each coefficient is kept. A gradient that is white too keeps its
    direction. The bases are orthonormal, so variances are those of the pixels.
    """
    rows, columns, ring = _bases(*shape[-2:], gradient.device)
    images = gradient.view(len(gradient), -1, *shape[-2:])
    coefficients = (rows @ images @ columns.T).flatten(2)
    power = torch.zeros((*coefficients.shape[:2], int(ring.max()) + 1), device=gradient.device)
    power.index_add_(2, ring, coefficients.square())
    power /= torch.bincount(ring)
    signal = (power - variance[:, None, None]).clamp(min=0.0)
    kept = signal / (signal + variance[:, None, None]).clamp(min=1e-30)
    filtered = (coefficients * kept[:, :, ring]).view_as(images)
    return (rows.T @ filtered @ columns).flatten(1)


@lru_cache(maxsize=4)
def _bases(height: int, width: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """The cosine bases of rows and columns, and the ring of frequencies of each coefficient, flat."""
    size = max(height, width)
    down = torch.arange(height, device=device) * (size / height)
    across = torch.arange(width, device=device) * (size / width)
    ring = (down[:, None].square() + across.square()).sqrt().round().long()
    # Without gaps, so that every ring has coefficients.
    return _cosines(height, device), _cosines(width, device), ring.flatten().unique(return_inverse=True)[1]


def _cosines(size: int, device: torch.device) -> Tensor:
    """The orthonormal cosine transform (DCT-II), (size, size): one frequency a row."""
    place = torch.arange(size, dtype=torch.float64, device=device)
    basis = torch.cos(math.pi * (place + 0.5) * place[:, None] / size) * math.sqrt(2.0 / size)
    basis[0] /= math.sqrt(2.0)
    return basis.float()

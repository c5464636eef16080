"""Noise schedules of diffusion models: ᾱ_t, how much of an image's variance is left after each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Cosine schedules are cut here, so that the last steps leave something of the image (Nichol and Dhariwal, 2021).
_LARGEST_BETA = 0.999


def linear_betas(steps: int, first: float = 1e-4, last: float = 0.02) -> Tensor:
    """β from `first` to `last` in equal steps (Ho et al., 2020), (steps,) float64."""
    return torch.linspace(first, last, steps, dtype=torch.float64)


def scaled_linear_betas(steps: int, first: float, last: float) -> Tensor:
    """β whose square roots go from √first to √last in equal steps (Rombach et al., 2022), (steps,) float64."""
    return linear_betas(steps, math.sqrt(first), math.sqrt(last)).square()


def cosine_betas(steps: int) -> Tensor:
    """β such that ᾱ follows cos²((t + 0.008) / 1.008 · π/2), t from 0 to 1 (Nichol and Dhariwal, 2021); float64."""
    times = torch.arange(steps + 1, dtype=torch.float64) / steps
    left = ((times + 0.008) / 1.008 * math.pi / 2).cos().square()
    return (1 - left[1:] / left[:-1]).clamp(max=_LARGEST_BETA)


def alpha_bars(betas: Tensor) -> Tensor:
    """ᾱ_t = ∏ (1 − β_s) for s ≤ t."""
    return (1 - betas).cumprod(dim=0)


def ending_in_noise(alpha_bars: Tensor) -> Tensor:
    """The schedule stretched so that its last step leaves nothing of the image (Lin et al., 2024, algorithm 1)."""
    left = alpha_bars.sqrt()
    return ((left - left[-1]) * left[0] / (left[0] - left[-1])).square()

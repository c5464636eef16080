"""For tests on a real NVIDIA GPU: where to skip them, and the CPU's noise on it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from caa_cli.smoothing.noise import Key, NoiseSource

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")


class HostNoise(NoiseSource):
    """Draws on the CPU, in blocks of so many samples, also for a GPU, so that both have the same noise."""

    def __init__(self, input_shape: Sequence[int], block: int) -> None:
        super().__init__(input_shape, torch.device("cpu"))
        self.block = block

    def gaussian(self, out: Tensor, keys: Sequence[Key], start: int, sigma: float) -> None:
        host = torch.empty(out.shape)
        super().gaussian(host, keys, start, sigma)
        out.copy_(host)

    def gumbel(self, out: Tensor, keys: Sequence[Key], start: int) -> None:
        host = torch.empty(out.shape)
        super().gumbel(host, keys, start)
        out.copy_(host)


def assert_near(value: float | None, expected: float | None, relative: float) -> None:
    assert value == (expected if expected is None else pytest.approx(expected, rel=relative))

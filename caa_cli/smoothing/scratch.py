"""Memory for noisy inputs, used again from chunk to chunk."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence

import torch
from torch import Tensor


class Scratch(threading.local):
    """Memory that passes write their noisy inputs into, a thread its own. Classifiers of one model share it, so none
    holds it twice."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._held: dict[tuple[str, torch.dtype], Tensor] = {}

    def __reduce__(self) -> tuple[type[Scratch], tuple[torch.device]]:
        return Scratch, (self._device,)  # a copy begins without memory

    def take(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A tensor of this shape in the memory of this name; what was there is overwritten."""
        elements, key = math.prod(shape), (name, dtype)
        if key not in self._held or self._held[key].numel() < elements:
            self._held[key] = torch.empty(elements, device=self._device, dtype=dtype)
        return self._held[key][:elements].view(shape)

    def drop(self) -> None:
        """Gives the memory back."""
        self._held.clear()

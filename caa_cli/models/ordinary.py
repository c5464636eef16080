"""Which tensors can be weights at all: told from what they say of themselves, before a value is looked at."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def oddity(tensor: Tensor) -> str | None:
    """Why a tensor can't be used as a weight, in words; None where it can."""
    if type(tensor) not in (Tensor, nn.Parameter):
        return f"a {type(tensor).__name__}"
    if tensor.is_meta:
        return "without values, on the meta device"
    if tensor.is_nested or tensor.layout != torch.strided:
        return "nested" if tensor.is_nested else "sparse"
    if tensor.is_quantized or not _convertible(tensor.dtype):
        return f"of type {str(tensor.dtype).removeprefix('torch.')}"
    # A file of some bytes may claim any shape, one value standing for all.
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        return f"of shape {tuple(tensor.shape)} and has fewer values in the file"
    return None


def _convertible(dtype: torch.dtype) -> bool:
    if dtype.is_complex:
        return False
    try:
        torch.empty(1, dtype=dtype).float()
    except (RuntimeError, NotImplementedError):
        return False
    return True

"""Gradients of strided depthwise convolutions, which PyTorch computes slowly in bfloat16 on CPUs.

A convolution with stride s takes every s-th output of one with stride 1, so the gradient at its input is the other's,
given zeros at the outputs between: a depthwise convolution with stride 1 again, by the weights turned around.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def is_strided_depthwise(channels: tuple[int, int], groups: int, stride: Sequence[int]) -> bool:
    """Whether a convolution is one, by its channels (in, out)."""
    return channels == (groups, groups) and groups > 1 and max(stride) > 1


def densely(
    at_outputs: Tensor, weight: Tensor, size: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """The gradient at its inputs, of height and width `size`, from the one at its outputs."""
    kernel = weight.shape[2:]
    outputs = [n + 2 * pad - k + 1 for n, pad, k in zip(size, padding, kernel, strict=True)]
    layout = torch.channels_last if at_outputs.is_contiguous(memory_format=torch.channels_last) else None
    dense = torch.empty((*at_outputs.shape[:2], *outputs), dtype=at_outputs.dtype, memory_format=layout).zero_()
    dense[:, :, :: stride[0], :: stride[1]] = at_outputs
    around = [k - 1 - pad for k, pad in zip(kernel, padding, strict=True)]
    return F.conv2d(dense, weight.flip(2, 3), padding=around, groups=len(weight))

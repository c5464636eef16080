"""Gradients at the inputs of convolutions that have few channels there, such as a network's first.

Such a gradient is a convolution with as few outputs, and takes a CPU as long as one with sixteen. So it is computed
for blocks of pixels: the pixels of a block are the outputs of one convolution, whose stride is the block.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

_MOST_CHANNELS = 4
# Outputs that a CPU computes in the time of one: the float32 numbers of a register. More would take longer.
_AT_ONCE = 16


def has_few_channels(channels: int, groups: int, stride: Sequence[int]) -> bool:
    """Whether a convolution of so many input channels has such blocks of more than one pixel."""
    return groups == 1 and 1 <= channels <= _MOST_CHANNELS and len({*stride}) == 1 and _block(channels, stride[0]) > 1


def is_faster_in_blocks(dtype: torch.dtype, stride: Sequence[int]) -> bool:
    """Whether such a gradient is, on this CPU: only where oneDNN has fast convolutions of this precision."""
    registers = torch.backends.cpu.get_cpu_capability() if torch.backends.mkldnn.is_available() else None
    if registers == "AVX2":
        return dtype == torch.float32 and stride[0] > 1
    bfloat16 = dtype == torch.bfloat16 and registers == "AVX512" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return bfloat16 or (dtype == torch.float32 and registers == "AVX512")


def in_blocks(
    at_outputs: Tensor, weight: Tensor, size: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """The gradient at a convolution's inputs, of height and width `size`, from the one at its outputs."""
    channels, step = weight.shape[1], stride[0]
    block = _block(channels, step)
    lengths = zip(size, at_outputs.shape[2:], weight.shape[2:], padding, strict=True)
    (rows, above, top), (columns, beside, left) = (_axis(block, step, *each) for each in lengths)
    kernels = F.pad(weight, (0, 1, 0, 1))[:, :, rows[:, None, :, None], columns[None, :, None, :]]
    kernels = kernels.permute(1, 2, 3, 0, 4, 5).flatten(0, 2)
    blocks = F.conv2d(at_outputs, kernels, stride=block // step, padding=(above, beside))
    return F.pixel_shuffle(blocks, block)[:, :, top : top + size[0], left : left + size[1]]


def _axis(block: int, stride: int, inputs: int, outputs: int, kernel: int, padding: int) -> tuple[Tensor, int, int]:
    """Along an axis: the taps by pixel of a block and by output, how many zeros to pad, and the first input's pixel.

    Pixel u meets output o at tap u + padding − stride · o. So in block i, which spans n outputs, its r-th pixel meets
    output n · i + t at tap r + padding − stride · t. The number `kernel` stands for no tap.
    """
    spanned = block // stride
    first, last = -((kernel - 1 - padding) // stride), (block - 1 + padding) // stride  # t, of any pixel
    taps = torch.arange(block)[:, None] + padding - stride * torch.arange(first, last + 1)
    taps = torch.where((taps >= 0) & (taps < kernel), taps, kernel)
    before, behind = -first, spanned * ((inputs - 1) // block) + last - (outputs - 1)
    # Zeros at one end alone would be a copy, which takes longer than blocks in front of the first.
    more = max(0, math.ceil((behind - before) / spanned))
    return taps, before + more * spanned, more * block


def _block(channels: int, stride: int) -> int:
    """The pixels of a block along an axis: as many as are computed at once, and at least the stride."""
    return stride * max((n for n in (1, 2, 4) if channels * (n * stride) ** 2 <= _AT_ONCE), default=1)

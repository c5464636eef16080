"""Convolutions of maps that have fewer pixels than the kernel, as products with one matrix.

On images of 28×28 or 32×32 the last stages of an ImageNet network have maps of 2×2 and 1×1, and most of a 3×3 kernel
meets padding. The matrix of all pairs of an input and an output pixel takes 4/9 or 1/9 of the multiplications.
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair

from caa_cli.smoothing.change_class import UndoneByCopying, change_class

# A matrix larger than so many kernels would take longer to read than it saves.
_LARGEST = 2


def use_matrices(model: nn.Module) -> None:
    """Make the convolutions of `model` compute such products on a CPU where these take fewer multiplications.

    For weights that take no gradients. What these layers compute stays the same, but for the order of its sums.
    """
    for layer in model.modules():
        # Derived classes and hooks may pad, or compute weights, in ways of their own.
        if type(layer) is not nn.Conv2d or not isinstance(layer.weight, nn.Parameter) or layer.weight.is_inference():
            continue
        if layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            change_class(layer, _AsMatrix)


class _AsMatrix(UndoneByCopying, nn.Conv2d):
    """The base of the classes that such layers get.

    matrix: (output pixels · channels, input pixels · channels), there from the first input on. A buffer, as it is
    weights, and nothing that a graph keeps for a sample.
    """

    matrix: Tensor
    made_of: tuple[object, ...] | None = None

    def __reduce_ex__(self, protocol: Any) -> Any:
        make, kind, kept = super().__reduce_ex__(protocol)
        state = {**kept, "_buffers": {}, "_non_persistent_buffers_set": set()}
        state.pop("made_of", None)
        return make, kind, state

    def forward(self, x: Tensor) -> Tensor:
        taps, pixels = math.prod(self.kernel_size), math.prod(x.shape[2:])
        if pixels >= taps or x.dim() != 4 or x.device.type != "cpu":
            return super().forward(x)
        inputs, outputs = tuple(x.shape[2:]), _output_size(self, x.shape[2:])
        too_large = pixels * math.prod(outputs) > _LARGEST * taps
        if too_large or any(weight.requires_grad for weight in self.parameters()):
            return super().forward(x)
        made_of = (self.weight.data_ptr(), self.weight._version, self.weight.dtype, inputs)
        if self.made_of != made_of:
            self.register_buffer("matrix", _matrix(self, inputs, outputs), persistent=False)
            self.made_of = made_of
        bias = None if self.bias is None else self.bias.repeat(math.prod(outputs))
        y = F.linear(x.permute(0, 2, 3, 1).flatten(1), self.matrix, bias)
        y = y.view(len(x), *outputs, self.out_channels).permute(0, 3, 1, 2)
        return y if x.is_contiguous(memory_format=torch.channels_last) else y.contiguous()


def _output_size(layer: nn.Conv2d, size: torch.Size) -> list[int]:
    """Height and width of the outputs."""
    axes = zip(size, _pair(layer.padding), layer.dilation, layer.kernel_size, layer.stride, strict=True)
    return [(n + 2 * pad - dilation * (k - 1) - 1) // stride + 1 for n, pad, dilation, k, stride in axes]


@torch.inference_mode(False)
@torch.no_grad()
def _matrix(layer: nn.Conv2d, inputs: tuple[int, ...], outputs: list[int]) -> Tensor:
    """The matrix of a convolution; rows by output pixel and channel, columns by input pixel and channel."""
    weight, first, apart = layer.weight, [-pad for pad in _pair(layer.padding)], layer.dilation
    matrix = weight.new_zeros(*outputs, len(weight), *inputs, weight.shape[1])
    for i, j, a, b in product(*map(range, (*outputs, *layer.kernel_size))):
        row = first[0] + i * layer.stride[0] + a * apart[0]
        column = first[1] + j * layer.stride[1] + b * apart[1]
        if 0 <= row < inputs[0] and 0 <= column < inputs[1]:
            matrix[i, j, :, row, column] = weight[:, :, a, b]
    return matrix.flatten(3).flatten(0, 2)

"""Gradients of strided depthwise convolutions, which PyTorch computes slowly in bfloat16 on CPUs.

A convolution with stride s takes every s-th output of one with stride 1, so the gradient at its input is the other's,
given zeros at the outputs between: a depthwise convolution with stride 1 again, by the weights turned around.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

from caa_cli.smoothing.change_class import UndoneByCopying, change_class


def use_dense_gradients(model: nn.Module) -> None:
    """Make the strided depthwise convolutions of `model` compute their gradients in this way where it is faster: in
    bfloat16 on a CPU, for weights that take no gradients. What these layers compute stays the same.
    """
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d) or isinstance(layer, _Dense):
            continue
        if layer.groups == layer.in_channels == layer.out_channels > 1 and max(layer.stride) > 1:
            change_class(layer, _Dense)


class _Dense(UndoneByCopying):
    """The base of the classes that such layers get."""

    def forward(self, x: Tensor) -> Any:
        slow = x.dtype == torch.bfloat16 and x.device.type == "cpu"
        if not slow or not x.requires_grad or any(weight.requires_grad for weight in self.parameters()):
            return super().forward(x)
        with _Convolutions():
            return super().forward(x)


class _Convolutions(TorchFunctionMode):
    """Within, conv2d is a `_Convolution`. Subclasses of Conv2d pad their inputs in ways of their own before it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_conv2d if func is F.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    others = x.dim() != 4 or max(_pair(dilation)) > 1
    if others or isinstance(padding, str) or max(_pair(padding)) >= min(weight.shape[2:]):
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return _Convolution.apply(x, weight, bias, _pair(stride), _pair(padding))


class _Convolution(torch.autograd.Function):
    """A depthwise convolution with a gradient at its input alone."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int], padding: Sequence[int]
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding = x.shape[2:], stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, at_outputs: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        kernel = weight.shape[2:]
        outputs = [n + 2 * pad - k + 1 for n, pad, k in zip(ctx.size, ctx.padding, kernel, strict=True)]
        layout = torch.channels_last if at_outputs.is_contiguous(memory_format=torch.channels_last) else None
        dense = torch.empty((*at_outputs.shape[:2], *outputs), dtype=at_outputs.dtype, memory_format=layout).zero_()
        dense[:, :, :: ctx.stride[0], :: ctx.stride[1]] = at_outputs
        padding = [k - 1 - pad for k, pad in zip(kernel, ctx.padding, strict=True)]
        return F.conv2d(dense, weight.flip(2, 3), padding=padding, groups=len(weight)), None, None, None, None

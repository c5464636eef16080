"""Convolutions whose gradients at their inputs PyTorch computes slowly on CPUs: ours are the same, and faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.utils import _pair
from torch.overrides import TorchFunctionMode

from caa_cli.smoothing.change_class import UndoneByCopying, change_class
from caa_cli.smoothing.depthwise import densely, is_strided_depthwise
from caa_cli.smoothing.few_channels import has_few_channels, in_blocks, is_faster_in_blocks

# The gradient at the inputs from the one at the outputs, weights, the inputs' height and width, stride, and padding.
_Gradient = Callable[[Tensor, Tensor, Sequence[int], Sequence[int], Sequence[int]], Tensor]


def use_faster_gradients(model: nn.Module) -> None:
    """Make the convolutions of `model` compute these gradients so, where that is faster.

    That is on a CPU, for weights that take no gradients. What these layers compute stays the same, but for the order
    of the gradients' sums.
    """
    for layer in model.modules():
        if not isinstance(layer, nn.Conv2d) or isinstance(layer, _Faster):
            continue
        channels, stride = (layer.in_channels, layer.out_channels), layer.stride
        if has_few_channels(channels[0], layer.groups, stride) or is_strided_depthwise(
            channels, layer.groups, stride
        ):
            change_class(layer, _Faster)


class _Faster(UndoneByCopying):
    """The base of the classes that such layers get."""

    def forward(self, x: Tensor) -> Any:
        wanted = x.requires_grad and not any(weight.requires_grad for weight in self.parameters())
        if not wanted or x.device.type != "cpu":
            return super().forward(x)
        with _Convolutions():
            return super().forward(x)


class _Convolutions(TorchFunctionMode):
    """Within, conv2d is a `_Convolution`. Subclasses of Conv2d pad their inputs in ways of their own before it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return (_conv2d if func is F.conv2d else func)(*args, **(kwargs or {}))


def _conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    gradient = _faster(input.dtype, weight, _pair(stride), groups)
    others = gradient is None or input.dim() != 4 or max(_pair(dilation)) > 1
    if others or isinstance(padding, str) or max(_pair(padding)) >= min(weight.shape[2:]):
        return F.conv2d(input, weight, bias, stride, padding, dilation, groups)
    return _Convolution.apply(input, weight, bias, _pair(stride), _pair(padding), groups, gradient)


def _faster(dtype: torch.dtype, weight: Tensor, stride: Sequence[int], groups: int) -> _Gradient | None:
    channels = (weight.shape[1] * groups, len(weight))
    if has_few_channels(channels[0], groups, stride) and is_faster_in_blocks(dtype, stride):
        return in_blocks
    if dtype == torch.bfloat16 and is_strided_depthwise(channels, groups, stride):
        return densely
    return None


class _Convolution(torch.autograd.Function):
    """A convolution with a gradient at its input alone."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        groups: int,
        gradient: _Gradient,
    ) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.size, ctx.stride, ctx.padding, ctx.gradient = x.shape[2:], stride, padding, gradient
        return F.conv2d(x, weight, bias, stride, padding, groups=groups)

    @staticmethod
    def backward(ctx: Any, at_outputs: Tensor) -> Any:
        (weight,) = ctx.saved_tensors
        at_inputs = ctx.gradient(at_outputs, weight, ctx.size, ctx.stride, ctx.padding)
        return at_inputs, *[None] * 6

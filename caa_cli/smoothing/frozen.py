"""A network as it is attacked: on its device, in its precision, in evaluation mode, and faster where it can be."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from caa_cli.errors import UsageError
from caa_cli.smoothing.input_gradients import use_faster_gradients
from caa_cli.smoothing.small_maps import use_matrices

# `to(dtype)` would take the imaginary part from a model's complex tensors.
_CASTS: dict[torch.dtype, Callable[[nn.Module], nn.Module]] = {
    torch.float16: nn.Module.half,
    torch.bfloat16: nn.Module.bfloat16,
    torch.float32: nn.Module.float,
    torch.float64: nn.Module.double,
}


def frozen(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The model on this device, in evaluation mode; its parameters take no gradients any more.

    Raises UsageError for a dtype that can't be used.
    """
    if dtype not in _CASTS:
        raise UsageError(f"dtype is {dtype!r}", f"give one of {', '.join(map(str, _CASTS))}")
    model = _CASTS[dtype](model).to(device).eval().requires_grad_(False)
    use_faster_layers(model)
    return model


def use_faster_layers(model: nn.Module) -> None:
    """Make layers of a frozen model compute the same in faster ways. A copy of the model no longer does."""
    use_faster_gradients(model)
    use_matrices(model)

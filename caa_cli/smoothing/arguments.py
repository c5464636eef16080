"""What a caller gives a smoothed classifier: checked, and as Python's own types."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from caa_cli.errors import UsageError
from caa_cli.runtime.device import open_device, resolve_device


def check_is_network(model: object) -> None:
    """Raises UsageError for what is no network, such as its class."""
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}" if isinstance(model, type) else f"a {type(model).__name__}"
        raise UsageError(f"model is {what}, not a network", "give a torch.nn.Module from images to logits")


def check_whole_numbers(name: str, numbers: Tensor, images: int) -> None:
    """Raises UsageError unless there is one for each image, (images,)."""
    if numbers.shape != (images,):
        raise UsageError(f"{name} has the shape {tuple(numbers.shape)}", f"give one number an image: ({images},)")
    if images and (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool):
        raise UsageError(f"{name} has the dtype {numbers.dtype}", f"give whole numbers, for instance {name}.long()")


def checked_sigma(sigma: float) -> float:
    """Raises UsageError for a σ that can't be used."""
    try:
        fits = 0.0 < sigma < math.inf
    except TypeError:
        fits = False
    if not fits:
        raise UsageError(f"sigma must be above 0, not {sigma!r}", "for instance sigma=0.5")
    return float(sigma)


def checked_classes(given: int) -> int:
    """The number of classes as Python's integer. Raises UsageError for any other."""
    try:
        number = operator.index(given)
    except TypeError:
        number = 0
    if number < 2:
        raise UsageError(
            f"num_classes must be a whole number, at least 2, not {given!r}", "give the number of logits"
        )
    return number


def checked_shape(given: Sequence[int]) -> tuple[int, int, int]:
    """The shape of an image as Python's integers. Raises UsageError for any other."""
    try:
        channels, height, width = (operator.index(size) for size in given)
    except (TypeError, ValueError):
        channels = height = width = 0
    if min(channels, height, width) < 1:
        raise UsageError(
            f"input_shape must be channels, height and width, not {given!r}", "for instance input_shape=(3, 32, 32)"
        )
    return channels, height, width


def checked_device(given: torch.device | str | None, network: nn.Module) -> torch.device:
    """The device that is named; None: that of the network. Raises CaaError for one that can't be used."""
    if given is None:
        tensors = chain(network.parameters(), network.buffers())
        return next((tensor.device for tensor in tensors), torch.device("cpu"))
    try:
        device = resolve_device("auto") if given == "auto" else torch.device(given)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"device {given!r} is not known", "use 'auto', 'cpu', 'cuda' or 'cuda:1'") from error
    open_device(device, "device=")
    return device

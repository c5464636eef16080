"""The arrays that a caller gives, checked: every refusal names the argument."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from caa_cli.data.images import ImageArrays
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.load import check_classes, probe
from caa_cli.smoothing.arguments import check_whole_numbers
from caa_cli.smoothing.classifier import SmoothedClassifier

Images = Tensor | NDArray[Any] | Sequence[Any]
Labels = Tensor | ArrayLike

_SMOOTHED = "caa.SmoothedClassifier(network, sigma=…, num_classes=…, input_shape=…)"


def check_arrays(
    model: SmoothedClassifier, images: Images, labels: Labels | None, indices: Sequence[int] | None
) -> ImageArrays:
    """The images with their labels (0 where there are none) and the index of each. Raises UsageError."""
    if not isinstance(model, SmoothedClassifier):
        raise UsageError(
            f"model is a {type(model).__name__}, not a SmoothedClassifier",
            f"caa.load(…) gives one, or {_SMOOTHED}",
        )
    check_network("model", model.model, model, "give SmoothedClassifier the input_shape and num_classes it has")
    x = as_tensor("images", images)
    model.check_images(x)
    x = x.float()
    if not bool(((x >= 0.0) & (x <= 1.0)).all()):
        raise UsageError(
            "images has pixels that are not in [0, 1], or NaN",
            "divide bytes by 255, and leave normalisation to the model: the noise is added before it",
        )
    y = class_numbers("labels", [0] * len(x) if labels is None else labels, len(x))
    model.check_labels(y, len(x))
    return ImageArrays("arrays", "test", x, y, model.num_classes, numbers=_indices(indices, len(x)))


def check_network(name: str, network: nn.Module, model: SmoothedClassifier, hint: str) -> None:
    """Raises UsageError unless the network takes the model's images, and gives a logit for each of its classes."""
    try:
        classes, _ = probe(network, model.input_shape, name, hint, like=model.grey())
    except CaaError as error:
        raise UsageError(error.problem, error.hint) from error
    check_classes(name, classes, model.num_classes, hint)


def class_numbers(name: str, values: Any, images: int) -> Tensor:
    """A class for each image, int64 on the CPU. Raises UsageError for other types and shapes."""
    numbers = as_tensor(name, values)
    check_whole_numbers(name, numbers, images)
    return numbers.long()


def as_tensor(name: str, values: Any) -> Tensor:
    """The values on the CPU. Raises UsageError for what is no array."""
    try:
        if not isinstance(values, Tensor):
            values = np.asarray(values)
            # PyTorch takes none that runs backwards or has the other byte order, and warns of one that is read-only.
            values = np.require(values, values.dtype.newbyteorder("="), ["C", "W"])
        return torch.as_tensor(values).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise UsageError(f"{name} is no array of numbers ({error})", "give a tensor or a NumPy array") from error


def whole_numbers(name: str, values: Iterable[Any]) -> list[int]:
    """The values as Python's integers. Raises UsageError for what is no list of whole numbers: 0.5 is not index 0."""
    try:
        return [operator.index(value) for value in values]
    except TypeError as error:
        raise UsageError(
            f"{name} must be a list of whole numbers, not {values!r}", f"for instance {name}=[3, 17]"
        ) from error


def path_text(name: str, value: Any) -> str:
    """The path as a text. Raises UsageError for what is no path."""
    if isinstance(value, (nn.Module, Mapping)):  # a network or its weights, which would fill the screen
        raise UsageError(f"{name} must be a path, not a {type(value).__name__}", f"smooth a network by {_SMOOTHED}")
    if not isinstance(value, (str, PathLike)):
        raise UsageError(f"{name} must be a path, not {value!r}", f"for instance {name}='folder/name'")
    return os.fspath(value)


def _indices(given: Sequence[int] | None, images: int) -> list[int]:
    numbers = list(range(images)) if given is None else whole_numbers("indices", given)
    if len(numbers) != images or len(set(numbers)) != images or not all(0 <= index < 2**63 for index in numbers):
        raise UsageError(
            "indices must hold one number for each image, from 0 on and none twice",
            "leave it out, or give the positions of the images in their data set",
        )
    return numbers

"""The arrays that a caller gives, checked: every refusal names the argument."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from caa_cli.data.images import ImageArrays
from caa_cli.errors import UsageError
from caa_cli.smoothing.classifier import SmoothedClassifier

Images = Tensor | NDArray[Any] | Sequence[Any]
Labels = Tensor | ArrayLike


def check_arrays(
    model: SmoothedClassifier, images: Images, labels: Labels | None, indices: Sequence[int] | None
) -> ImageArrays:
    """The images with their labels (0 where there are none) and the index of each. Raises UsageError."""
    if not isinstance(model, SmoothedClassifier):
        raise UsageError(
            f"model is a {type(model).__name__}, not a SmoothedClassifier",
            "caa.load(…) gives one, or caa.SmoothedClassifier(network, sigma=…, num_classes=…, input_shape=…)",
        )
    x, shape = _tensor("images", images), model.input_shape
    if x.shape[1:] != shape:
        raise UsageError(
            f"images has the shape {tuple(x.shape)}", f"the model takes (N, {', '.join(map(str, shape))})"
        )
    if not x.is_floating_point():
        raise UsageError(f"images has the dtype {x.dtype}", "give floating-point pixels in [0, 1]: images / 255")
    x = x.float()
    if not bool(((x >= 0.0) & (x <= 1.0)).all()):
        raise UsageError("images has pixels that are not in [0, 1], or NaN", "divide bytes by 255")
    y = torch.zeros(len(x), dtype=torch.int64) if labels is None else _tensor("labels", labels)
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise UsageError(f"labels has the dtype {y.dtype}", "give the number of each image's class")
    if y.shape != (len(x),):
        raise UsageError(f"labels has the shape {tuple(y.shape)}", f"give one label an image: ({len(x)},)")
    wrong = y[(y < 0) | (y >= model.num_classes)]
    if len(wrong):
        raise UsageError(f"labels holds {int(wrong[0])}", f"the model knows the classes 0 to {model.num_classes - 1}")
    return ImageArrays("arrays", "test", x, y.long(), model.num_classes, numbers=_indices(indices, len(x)))


def _tensor(name: str, values: Any) -> Tensor:
    """The values on the CPU. Raises UsageError for what is no array."""
    try:
        return torch.as_tensor(values if isinstance(values, Tensor) else np.asarray(values)).detach().cpu()
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


def _indices(given: Sequence[int] | None, images: int) -> list[int]:
    numbers = list(range(images)) if given is None else whole_numbers("indices", given)
    if len(numbers) != images or len(set(numbers)) != images or any(index < 0 for index in numbers):
        raise UsageError(
            "indices must hold one number for each image, from 0 on and none twice",
            "leave it out, or give the positions of the images in their data set",
        )
    return numbers

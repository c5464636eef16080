"""The contents of a checkpoint file, before a model is built from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from caa_cli.errors import CaaError
from caa_cli.models.limits import short

# Keys under which published training code stores the weights, in order of preference.
_WEIGHTS = (
    "state_dict",
    "model_state_dict",
    "net",
    "model",
    "network",
    "params",
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
)
# Published code nests two containers; a malicious container may contain itself.
_DEEPEST = 8
# The most entries other than the weights that are recorded.
_MOST_BESIDE = 100


@dataclass(frozen=True)
class Contents:
    """The weights in a file, with what surrounds them.

    format: its description.  tensors: weights by name.  module: the network, if the file holds a whole one.
    keys: the path of container keys to the weights, such as ("state_dict",).
    entries: the other entries of the containers, with values that are numbers or short texts, else None.
    odd: the reason why a weight can't be used, by name; these are not among the tensors.
    refusal: the reason why the file was not loaded; None if it was.
    """

    format: str
    tensors: dict[str, Tensor]
    module: nn.Module | None = None
    keys: tuple[str, ...] = ()
    entries: dict[str, Any] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    refusal: CaaError | None = None


def unwrap(content: Any, format: str) -> Contents | None:
    """The contents of a loaded object; None if it holds neither weights nor a network."""
    keys: tuple[str, ...] = ()
    entries: dict[str, Any] = {}
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        key = next((key for key in _WEIGHTS if isinstance(content.get(key), (Mapping, nn.Module))), None)
        if key is None:
            break
        left = [(name, value) for name, value in content.items() if name != key][:_MOST_BESIDE]
        entries |= {short(name): _plain(value) for name, value in left}
        keys += (key,)
        content = content[key]
    if isinstance(content, nn.Module):
        return Contents(format, dict(content.state_dict()), content, keys, entries)
    if not isinstance(content, Mapping):
        return None
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    odd = {name: what for name, tensor in tensors.items() if (what := oddity(tensor)) is not None}
    usable = {name: tensor for name, tensor in tensors.items() if name not in odd}
    return Contents(format, usable, None, keys, entries, odd)


def _plain(value: Any) -> Any:
    """The value if it is a finite number or a short text, else None."""
    if isinstance(value, Tensor) and oddity(value) is None and value.numel() == 1:
        value = value.item()
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str) and len(value) < 100 else None


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
    # With a stride of 0 a small file may claim any shape.
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

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
from caa_cli.models.preprocessing import Origin

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
    passed_over: other keys under which there are weights, such as averages of these.
    entries: the other entries of the containers, with values that are numbers or short texts, else None.
    odd: the reason why a weight can't be used, by name; these are not among the tensors.
    refusal: the reason why the file was not loaded; None if it was.
    origin: of a whole network that is no file of weights.
    """

    format: str
    tensors: dict[str, Tensor]
    module: nn.Module | None = None
    keys: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    entries: dict[str, Any] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)
    refusal: CaaError | None = None
    origin: Origin | None = None


def unwrap(content: Any, format: str) -> Contents | None:
    """The contents of a loaded object; None if it holds neither weights nor a network."""
    keys: tuple[str, ...] = ()
    passed_over: tuple[str, ...] = ()
    entries: dict[str, Any] = {}
    for _ in range(_DEEPEST):
        if not isinstance(content, Mapping):
            break
        key = _key_of_weights(content)
        if key is None:
            content = _joined(content)
            break
        left = [(name, value) for name, value in content.items() if name != key][:_MOST_BESIDE]
        entries |= {short(name): _plain(value) for name, value in left}
        keys += (str(key),)
        passed_over += tuple(name for name in _WEIGHTS if name != key and _holds_weights(content.get(name)))
        content = content[key]
    if isinstance(content, nn.Module):
        return Contents(format, dict(content.state_dict()), on_one_device(content), keys, passed_over, entries)
    if not isinstance(content, Mapping):
        return None
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    odd = {name: what for name, tensor in tensors.items() if (what := oddity(tensor)) is not None}
    usable = {name: tensor for name, tensor in tensors.items() if name not in odd}
    return Contents(format, usable, None, keys, passed_over, entries, odd)


def on_one_device(network: nn.Module) -> nn.Module:
    """The network, which can be moved as a whole: `nn.DataParallel` calls what it wraps, as it would want the GPUs
    that it was made for, and tensors that are plain attributes, such as the mean of a normalisation, are buffers."""
    for module in network.modules():
        if isinstance(module, nn.DataParallel):
            module.device_ids = []
        for name, value in list(vars(module).items()):
            if isinstance(value, Tensor):
                delattr(module, name)
                module.register_buffer(name, value, persistent=False)
    return network


def _key_of_weights(content: Mapping[Any, Any]) -> Any:
    """The key of the entry that the weights are in; None where they are the entries, or parts of a network are."""
    for key in _WEIGHTS:
        if _leads_to_weights(content.get(key), _DEEPEST):
            return key
    if _holds_weights(content):
        return None
    inside = [key for key, value in content.items() if _holds_weights(value)]
    inside = inside or [key for key, value in content.items() if _leads_to_weights(value, 1)]
    return inside[0] if len(inside) == 1 else None


def _holds_weights(value: Any) -> bool:
    """Whether a container's entry is a network, or tensors by name."""
    if isinstance(value, nn.Module):
        return True
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(name, str) for name in value)
        and any(isinstance(tensor, Tensor) and tensor.dim() > 0 for tensor in value.values())
    )


def _leads_to_weights(value: Any, depth: int) -> bool:
    """Whether weights lie in a container's entry, or deeper in it: settings are kept under such keys too."""
    parts = value.items() if depth and isinstance(value, Mapping) else ()
    # An optimizer numbers its averages of the weights.
    deeper = [part for name, part in parts if isinstance(name, str)]
    return _holds_weights(value) or any(_leads_to_weights(part, depth - 1) for part in deeper)


def _joined(content: Mapping[Any, Any]) -> Mapping[Any, Any]:
    """The content with the tensors of its parts (`backbone`, `head`) under the names that they have together."""
    parts = {key: value for key, value in content.items() if isinstance(value, Mapping) and _holds_weights(value)}
    joined = {f"{key}.{name}": value for key, part in parts.items() for name, value in part.items()}
    return {**joined, **{key: value for key, value in content.items() if key not in parts}}


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


def identity(tensor: Tensor) -> tuple[Any, ...]:
    """What two names of one tensor have in common, and different tensors have not."""
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _convertible(dtype: torch.dtype) -> bool:
    if dtype.is_complex:
        return False
    try:
        torch.empty(1, dtype=dtype).float()
    except (RuntimeError, NotImplementedError):
        return False
    return True

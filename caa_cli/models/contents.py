"""What a checkpoint file holds, before a model is built from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

# What published training code calls the weights in its containers, in the order of preference.
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


@dataclass(frozen=True)
class Contents:
    """tensors: weights by name.  module: the whole network, where the file holds one.

    format: in words.  keys: what was opened on the way to the weights, such as ("state_dict",).
    beside: the keys that were left, with their values where these are numbers or texts.
    """

    format: str
    tensors: dict[str, Tensor]
    module: nn.Module | None = None
    keys: tuple[str, ...] = ()
    beside: dict[str, Any] = field(default_factory=dict)


def unwrap(found: Any, format: str) -> Contents | None:
    """What a loaded object comes down to; None where there are neither weights nor a network in it."""
    keys: tuple[str, ...] = ()
    beside: dict[str, Any] = {}
    while isinstance(found, Mapping):
        key = next((key for key in _WEIGHTS if isinstance(found.get(key), (Mapping, nn.Module))), None)
        if key is None:
            break
        beside |= {str(name): _plain(value) for name, value in found.items() if name != key}
        keys += (key,)
        found = found[key]
    if isinstance(found, nn.Module):
        return Contents(format, dict(found.state_dict()), found, keys, beside)
    if not isinstance(found, Mapping):
        return None
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    return Contents(format, tensors, None, keys, beside)


def _plain(value: Any) -> Any:
    """Numbers and short texts as they are, anything else as None."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    return value if isinstance(value, (int, float)) or (isinstance(value, str) and len(value) < 100) else None

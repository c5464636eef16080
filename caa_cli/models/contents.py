"""What a checkpoint file holds, before a model is built from it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from caa_cli.models.limits import short
from caa_cli.models.ordinary import oddity

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
# Published code has two containers, one in the other; a container may hold itself.
_DEEPEST = 8
# Things beside the weights that are worth telling of.
_MOST_BESIDE = 100


@dataclass(frozen=True)
class Contents:
    """tensors: weights by name.  module: the whole network, where the file holds one.

    format: in words.  keys: what was opened on the way to the weights, such as ("state_dict",).
    beside: the keys that were left, with their values where these are numbers or texts.
    odd: why some of the weights can't be used, by their names; they are not among the tensors.
    """

    format: str
    tensors: dict[str, Tensor]
    module: nn.Module | None = None
    keys: tuple[str, ...] = ()
    beside: dict[str, Any] = field(default_factory=dict)
    odd: dict[str, str] = field(default_factory=dict)


def unwrap(found: Any, format: str) -> Contents | None:
    """What a loaded object comes down to; None where there are neither weights nor a network in it."""
    keys: tuple[str, ...] = ()
    beside: dict[str, Any] = {}
    for _ in range(_DEEPEST):
        if not isinstance(found, Mapping):
            break
        key = next((key for key in _WEIGHTS if isinstance(found.get(key), (Mapping, nn.Module))), None)
        if key is None:
            break
        left = [(name, value) for name, value in found.items() if name != key][:_MOST_BESIDE]
        beside |= {short(name): _plain(value) for name, value in left}
        keys += (key,)
        found = found[key]
    if isinstance(found, nn.Module):
        return Contents(format, dict(found.state_dict()), found, keys, beside)
    if not isinstance(found, Mapping):
        return None
    tensors = {str(name): value for name, value in found.items() if isinstance(value, Tensor)}
    odd = {name: what for name, tensor in tensors.items() if (what := oddity(tensor)) is not None}
    usable = {name: tensor for name, tensor in tensors.items() if name not in odd}
    return Contents(format, usable, None, keys, beside, odd)


def _plain(value: Any) -> Any:
    """Finite numbers and short texts as they are, anything else as None."""
    if isinstance(value, Tensor) and oddity(value) is None and value.numel() == 1:
        value = value.item()
    if isinstance(value, int):
        return value if abs(value) < 2**63 else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str) and len(value) < 100 else None

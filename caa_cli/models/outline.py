"""The names of a checkpoint's tensors, in short."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from caa_cli.models.limits import short
from caa_cli.models.prefixes import peelings

# How many entries of an outline are shown.
_SHOWN = 8


def outline(tensors: Mapping[str, Tensor]) -> list[str]:
    """What the names begin with, in their order: the shape of a single tensor, or how many tensors stand below.

    What all names share is not counted as a beginning: where all are below `model.`, `model.stem.* (6 tensors)`.
    """
    *_, (shared, _) = ("", {}), *peelings(tensors)
    parts = shared.count(".") + 1
    below: dict[str, list[str]] = {}
    for name in tensors:
        below.setdefault(".".join(name.split(".")[:parts]), []).append(name)
    return [
        f"{short(part)}.* ({len(names)} tensors)" if len(names) > 1 else _with_shape(names[0], tensors[names[0]])
        for part, names in below.items()
    ]


def listed(entries: list[str]) -> str:
    """The first entries of an outline."""
    more = f", and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return ", ".join(entries[:_SHOWN]) + more


def _with_shape(name: str, tensor: Tensor) -> str:
    return f"{short(name)} {tuple(tensor.shape)}"

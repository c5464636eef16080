"""Weights from a file under the names of a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from caa_cli.models.prefixes import fit_names


def fitted(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors, as `wanted` names them, prefixes of training code removed; None unless all names and shapes match.

    wanted: a state dict, which may lie on the meta device. BatchNorm's counters may be missing.
    """
    found = fit_names(tensors, wanted)
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    if found.keys() | counters != wanted.keys():
        return None
    if any(found[name].shape != wanted[name].shape for name in found):
        return None
    return found


def in_order(names: Iterable[str]) -> list[str]:
    """Names such as `model.10.weight`, by their last number: safetensors gives them in any order."""

    def layer(name: str) -> tuple[int, str]:
        number = (re.findall(r"[0-9]+", name) or ["0"])[-1].lstrip("0")
        return len(number), number

    return sorted(names, key=layer)

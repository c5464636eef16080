"""Prefixes that training code adds to the names of a network's tensors, and constants that it saves with them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from caa_cli.models.contents import identity

# Published code adds at most three prefixes; a malicious file may repeat one a thousand times.
_MOST = 8
# Parts of names that torch.compile, FSDP and checkpointed activations add below the layers that they wrap.
_WRAPPERS = re.compile(r"\.(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
# A block that the wide networks of TRADES and of Carmon et al. (2019) have, and never use.
UNUSED = "sub_block1."
# Parts of names under which other code has the same layers of a ResNet or DenseNet.
_SPELLINGS = {"linear.": "fc.", "shortcut.": "downsample.", "norm5.": "norm_final."}

_MEANS = ("mean", "means", "new_mean", "mu")
_STDS = ("std", "stds", "sd", "sds", "new_std", "sigma")


def peelings(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Pairs (removed prefix, tensors by remaining name): with no prefix removed, then one more each time.

    A prefix is the first part of a dotted name (`module.`, `model.`, `1.`), and is removed if all names share it.
    Constants of a normalisation are left out.
    """
    off, names = "", {name: tensor for name, tensor in tensors.items() if not is_constant(name, tensor)}
    for _ in range(_MOST + 1):
        if not names:
            return
        yield off, names
        prefix, dot, _ = next(iter(names)).partition(".")
        prefix += dot
        if not dot or not all(name.startswith(prefix) for name in names):
            return
        off += prefix
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}


def without_copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, each under its first name: a network may be stored again below what attacks it."""
    first: dict[tuple[Any, ...], str] = {}
    return {name: tensor for name, tensor in tensors.items() if first.setdefault(identity(tensor), name) == name}


def readings(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The pairs of `peelings`, each with the names as they are, then without what does not belong to layers' names,
    then with the layers named as in the networks here (`linear.weight`: `fc`)."""
    for prefix, names in peelings(tensors):
        yield prefix, names
        spelt = names
        for spell in (_cleared, _respelled):
            before = spelt
            spelt = {spell(name): tensor for name, tensor in before.items() if not name.startswith(UNUSED)}
            if spelt.keys() != before.keys():
                yield prefix, spelt


def _cleared(name: str) -> str:
    """The name without wrappers, and without dots in a layer's name, as torchvision's published DenseNets have."""
    return re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d\.)", r"\1\2", _WRAPPERS.sub("", name))


def _respelled(name: str) -> str:
    for other, ours in _SPELLINGS.items():
        name = re.sub(rf"(^|\.){re.escape(other)}", rf"\g<1>{ours}", name)
    return name


def stored_normalisation(tensors: Mapping[str, Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) of a normalisation layer saved with the weights, in [0, 1] pixel units; None if there is none.

    A layer that only centres has a std of 1.
    """
    means = _constants(tensors, _MEANS)
    stds = _constants(tensors, _STDS)
    if len(means) != 1 or len(stds) > 1:
        return None
    mean, std = means[0], stds[0] if stds else (1.0,)
    if not all(0 <= value <= 1 for value in mean) or not all(value > 0 for value in std):
        return None  # in other units, or something else
    channels = max(len(mean), len(std))
    return mean * (channels // len(mean)), std * (channels // len(std))


def normalises(names: Mapping[str, Tensor]) -> bool:
    """Whether there is a mean of a normalisation layer among them."""
    return any(is_constant(name, tensor) and name.rpartition(".")[2] in _MEANS for name, tensor in names.items())


def _constants(tensors: Mapping[str, Tensor], endings: tuple[str, ...]) -> list[tuple[float, ...]]:
    """The distinct values under names with these endings; copies of a model repeat them."""
    values = {
        tuple(round(value, 6) for value in tensor.flatten().double().tolist())
        for name, tensor in tensors.items()
        if is_constant(name, tensor) and name.rpartition(".")[2] in endings
    }
    return list(values)


def is_constant(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is one of a normalisation, or of weight averaging, not of a layer."""
    last = name.rpartition(".")[2]
    # Weight averaging (torch.optim.swa_utils) adds a counter of its steps.
    return (last in _MEANS + _STDS and tensor.numel() in (1, 3)) or name == "n_averaged"

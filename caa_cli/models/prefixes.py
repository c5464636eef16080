"""Prefixes that training code adds to the names of a network's tensors, and constants that it saves with them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

# torch.compile, DataParallel, a network kept as an attribute, and nn.Sequential(normalisation, network).
PREFIXES = ("_orig_mod.", "module.", "model.", "network.", "1.")
# Published code adds at most three prefixes; a malicious file may repeat one a thousand times.
_MOST = 8

_MEANS = ("mean", "means", "new_mean", "mu")
_STDS = ("std", "stds", "sd", "sds", "new_std", "sigma")


def peelings(tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Pairs (removed prefix, tensors by remaining name): with no prefix removed, then one more each time.

    Only prefixes that all names share are removed. Constants of a normalisation are left out.
    """
    off, names = "", {name: tensor for name, tensor in tensors.items() if not _is_constant(name, tensor)}
    for _ in range(_MOST + 1):
        if not names:
            return
        yield off, names
        prefix = next((p for p in PREFIXES if all(name.startswith(p) for name in names)), None)
        if prefix is None:
            return
        off += prefix
        names = {name.removeprefix(prefix): tensor for name, tensor in names.items()}


def fit_names(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by name, with the number of prefixes removed that matches the most names in `wanted`."""
    if any(_is_constant(name, tensor) for name, tensor in wanted.items()):
        return dict(tensors)  # the network contains a normalisation, so the names are as saved
    candidates = [names for _, names in peelings(tensors)] or [dict(tensors)]
    return max(candidates, key=lambda names: len(names.keys() & wanted.keys()))


def stored_normalisation(tensors: Mapping[str, Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """(mean, std) of a normalisation layer saved with the weights, in [0, 1] pixel units; None if there is none.

    A layer that only centres has a std of 1.
    """
    means = _constants(tensors, _MEANS)
    stds = _constants(tensors, _STDS)
    if len(means) != 1 or len(stds) > 1:
        return None
    mean, std = means[0], stds[0] if stds else (1.0,) * len(means[0])
    if len(mean) != len(std) or not all(0 <= value <= 1 for value in mean) or not all(value > 0 for value in std):
        return None  # in other units, or something else
    return mean, std


def _constants(tensors: Mapping[str, Tensor], endings: tuple[str, ...]) -> list[tuple[float, ...]]:
    """The distinct values under names with these endings; copies of a model repeat them."""
    values = {
        tuple(round(value, 6) for value in tensor.flatten().double().tolist())
        for name, tensor in tensors.items()
        if _is_constant(name, tensor) and name.rpartition(".")[2] in endings
    }
    return list(values)


def _is_constant(name: str, tensor: Tensor) -> bool:
    last = name.rpartition(".")[2]
    # Weight averaging (torch.optim.swa_utils) adds a counter of its steps.
    return (last in _MEANS + _STDS and tensor.numel() in (1, 3)) or name == "n_averaged"

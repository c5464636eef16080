"""Weights from a file under the names of a network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from caa_cli.errors import UsageError
from caa_cli.models.contents import identity
from caa_cli.models.limits import short, unusable
from caa_cli.models.prefixes import is_constant, readings
from caa_cli.runtime.words import counted


def fitted(
    path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], str | None]:
    """(the tensors as a network names them, the first difference in words; None: all names and shapes match).

    wanted: its state dict, which may lie on the meta device.  path: of the file, for errors. Raises CaaError for
    integers in place of weights, and UsageError where the file holds several such networks.
    """
    named = fit_names(tensors, wanted)
    differing = difference(named, wanted)
    if differing is None:
        refuse_integers(path, named, wanted)
    return named, differing


def difference(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """Where names and shapes first differ from the wanted, in words; None if nowhere.

    BatchNorm's counters may be missing: PyTorch before 0.4.1 had none.
    """
    missing = [name for name in wanted if name not in tensors and not name.endswith("num_batches_tracked")]
    unknown = [name for name in tensors if name not in wanted]
    misshapen = [name for name in wanted if name in tensors and tensors[name].shape != wanted[name].shape]
    if not (missing or unknown or misshapen):
        return None
    if misshapen:
        name = misshapen[0]
        first = f"{short(name)} is {tuple(tensors[name].shape)}, wanted {tuple(wanted[name].shape)}"
    else:
        kinds = ((missing, "is missing"), (unknown, "is not known"))
        first = ", ".join(f"{short(names[0])} {what}" for names, what in kinds if names)
    return f"{first} ({counted(len(missing) + len(unknown) + len(misshapen), 'such difference')})"


def fit_names(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that match the most of `wanted`: without prefixes, and perhaps spelt differently.

    Where the tensors below one prefix are all that is wanted, the others are left out: a loss, a second network.
    Raises UsageError where two prefixes are that good, unless it is one network twice.
    """
    named = {prefix: _below(tensors, prefix) for prefix in _prefixes_of(tensors, wanted)}
    below = {prefix: names for prefix, names in named.items() if difference(names, wanted) is None}
    if len({tuple(map(identity, names.values())) for names in below.values()}) > 1:
        raise UsageError(
            f"the file holds several such networks: their names begin with {' and '.join(map(short, sorted(below)))}",
            "save the one that you mean on its own: torch.save(model.state_dict(), 'weights.pt')",
        )
    if below:
        return next(iter(below.values()))
    # `readings` take a normalisation for no part of the network.
    contained = any(is_constant(name, tensor) for name, tensor in wanted.items())
    candidates = [dict(tensors), *(named.values() if contained else (names for _, names in readings(tensors)))]
    return max(candidates, key=lambda names: (len(names.keys() & wanted.keys()), -len(names)))


def _prefixes_of(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> list[str]:
    """The prefixes, none of them empty, below which the first wanted tensor is found."""
    first = next(iter(wanted), "")
    return [name.removesuffix(first) for name in tensors if first and name.endswith(f".{first}")]


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def refuse_integers(path: Path, tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise CaaError for integers where a network wants weights: quantised, they have lost their scale."""
    integers = {
        name: tensor.dtype
        for name, tensor in tensors.items()
        if name in wanted and wanted[name].is_floating_point() and not tensor.is_floating_point()
    }
    if integers:
        name, kind = next(iter(integers.items()))
        raise unusable(path, name, f"of type {str(kind).removeprefix('torch.')}", len(integers))

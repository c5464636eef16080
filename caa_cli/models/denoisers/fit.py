"""Weights from a file under the names of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from caa_cli.models.checkpoint import Weights
from caa_cli.models.contents import refuse_integers
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.prefixes import are_all, fit_names


def convolutions(tensors: Mapping[str, Tensor], first: str) -> tuple[tuple[int, ...], int] | None:
    """(shape of the convolution named `first` behind any prefix, number of convolutions); None without it.

    The order of the tensors says nothing: safetensors files sort them.
    """
    matching = [tensor for name, tensor in tensors.items() if f".{name}".endswith(f".{first}") and tensor.dim() == 4]
    number = sum(tensor.dim() == 4 for tensor in tensors.values())
    return (tuple(matching[0].shape), number) if len(matching) == 1 and number > 1 else None


def fitted(weights: Weights, wanted: Mapping[str, Tensor]) -> dict[str, Tensor] | None:
    """The tensors, as `wanted` names them, prefixes of training code removed; None unless all names and shapes match.

    wanted: a state dict, which may lie on the meta device. BatchNorm's counters may be missing. Raises CaaError for
    integers in place of weights.
    """
    named = fit_names(weights.tensors, wanted)
    if not are_all(named, wanted):
        return None
    refuse_integers(weights.path, named, wanted)
    return named


def fitted_denoiser(
    file: DenoiserFile, network: Callable[[float], nn.Module], *, family: str, arch: str, channels: int
) -> Denoiser | None:
    """The denoiser with these weights; None unless they fit.  network: σ → its network, whatever its weights."""
    with torch.device("meta"):
        wanted = network(1.0).state_dict()
    weights = fitted(file.weights, wanted)
    if weights is None:
        return None

    def build(sigma: float) -> nn.Module:
        built = network(sigma)
        built.load_state_dict(weights)
        return built.eval()

    return Denoiser(family=family, arch=arch, channels=channels, build=build)

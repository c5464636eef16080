"""Denoisers that are convolutions one after the other, by their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.fit import fitted


def convolutions(tensors: Mapping[str, Tensor], first: str) -> tuple[tuple[int, ...], int] | None:
    """(shape of the convolution named `first` behind any prefix, number of convolutions); None without it.

    The order of the tensors says nothing: safetensors files sort them.
    """
    matching = [tensor for name, tensor in tensors.items() if f".{name}".endswith(f".{first}") and tensor.dim() == 4]
    number = sum(tensor.dim() == 4 for tensor in tensors.values())
    return (tuple(matching[0].shape), number) if len(matching) == 1 and number > 1 else None


def fitted_denoiser(
    file: DenoiserFile, network: Callable[[float], nn.Module], *, family: str, arch: str, channels: int
) -> Denoiser | None:
    """The denoiser with these weights; None unless they fit.  network: σ → its network, whatever its weights."""
    with torch.device("meta"):
        wanted = network(1.0).state_dict()
    weights, difference = fitted(file.weights.path, file.weights.tensors, wanted)
    if difference is not None:
        return None

    def build(sigma: float) -> nn.Module:
        built = network(sigma)
        built.load_state_dict(weights)
        return built.eval()

    return Denoiser(family=family, arch=arch, channels=channels, build=build)

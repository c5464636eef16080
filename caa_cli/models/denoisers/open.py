"""From --denoiser and --denoiser-arch to a denoiser that fits the images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

from torch import nn

from caa_cli.config.datasets import DATASETS
from caa_cli.config.denoisers import DENOISERS
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.card import reading_card
from caa_cli.models.denoisers.card import DenoiserCard
from caa_cli.models.denoisers.custom import CUSTOM, check_output, code_digest, from_factory, whole_network
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.denoisers.read import read_denoiser
from caa_cli.models.factory import parse_call
from caa_cli.models.limits import short
from caa_cli.models.whole import state_digest
from caa_cli.runtime.words import counted, sizes


def open_denoiser(path: Path | None, arch: str | None = None, trust: bool = False) -> Denoiser:
    """The denoiser in a file or folder, by its content; with `arch` that of the user's factory, which needs no path.

    trust: load a file that holds code. Raises CaaError, or UsageError where the file holds no denoiser.
    """
    if path is None:
        assert arch is not None
        return replace(from_factory(arch, None), path=arch, sha256=code_digest(arch))
    if arch is not None:
        parse_call("--denoiser-arch", arch)
    file = read_denoiser(path, trust)
    network = file.weights.module
    if network is not None:
        denoiser: Denoiser | None = whole_network(network, file.weights.format)
    elif arch is not None:
        denoiser = from_factory(arch, file)
    else:
        denoiser = recognise(file)
    if denoiser is None:
        raise _unknown(file)
    denoiser = replace(denoiser, path=str(path), sha256=file.sha256)
    with reading_card(file.weights.path):
        card = DenoiserCard.from_metadata(file.weights.metadata)
    return denoiser if card is None else replace(denoiser, sigma=card.sigma, dataset=card.dataset)


def recognise(file: DenoiserFile) -> Denoiser | None:
    """The denoiser that a file holds, by its content; None where no family has such weights."""
    for spec in DENOISERS.values():
        denoiser: Denoiser | None = resolve_name(spec.runs)(file)
        if denoiser is not None:
            return denoiser
    return None


def check_images(denoiser: Denoiser, input_shape: Sequence[int], dataset: str) -> None:
    """Raise UsageError unless the denoiser takes images of this shape (channels, height, width)."""
    channels, height, width = input_shape
    takes, size = None, None
    if denoiser.channels not in (None, channels):
        takes = counted(denoiser.channels, "channel")
    elif denoiser.size is not None and (height, width) != (denoiser.size, denoiser.size):
        takes, size = f"{denoiser.size}×{denoiser.size} pixels", f"{denoiser.size}"
    elif height % denoiser.multiple or width % denoiser.multiple:
        takes, size = f"multiples of {counted(denoiser.multiple, 'pixel')}", "N"
    elif min(height, width) < denoiser.smallest:
        takes, size = f"at least {counted(denoiser.smallest, 'pixel')}", f"{denoiser.smallest}"
    resized = dataset in DATASETS and DATASETS[dataset].resized
    if takes is not None:
        raise UsageError(
            f"the denoiser {denoiser.path} ({denoiser.arch}) takes images of {takes}, "
            f"{dataset} has {sizes(input_shape)}",
            f"add --image-size {size}" if resized and size else "name a denoiser that was trained on these images",
        )


def with_weights_digest(denoiser: Denoiser, sigma: float) -> Denoiser:
    """The denoiser with a digest of its weights too, where it is a factory's that brings them."""
    if denoiser.family != CUSTOM or denoiser.path != denoiser.arch:
        return denoiser
    both = f"{denoiser.sha256} {state_digest(denoiser.build(sigma))}"
    return replace(denoiser, sha256=hashlib.sha256(both.encode()).hexdigest())


def build_denoiser(denoiser: Denoiser, sigma: float, input_shape: Sequence[int]) -> nn.Module:
    """The network that denoises images of this shape with noise σ. Raises CaaError where it can't."""
    network = denoiser.build(sigma)
    if denoiser.family == CUSTOM:
        check_output(network, input_shape, denoiser.path)
    return network


def _unknown(file: DenoiserFile) -> CaaError:
    """The error for weights of no family: a classifier was named instead, or the architecture has to be."""
    weights = file.weights
    if weights.card is not None or weights.recognised is not None:
        what = f"a {weights.card.arch} classifier" if weights.card is not None else str(weights.recognised)
        return UsageError(
            f"--denoiser {file.path} holds {what}, not a denoiser",
            f"a classifier goes to --checkpoint; --denoiser takes {', '.join(DENOISERS)}",
        )
    name, tensor = next(iter(weights.tensors.items()))
    return UsageError(
        f"--denoiser {file.path} holds weights of no denoiser that caa knows "
        f"({counted(len(weights.tensors), 'tensor')}, the first is {short(name)} {tuple(tensor.shape)})",
        "add --denoiser-arch package.module:factory for a network of your own",
    )

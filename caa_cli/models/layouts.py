"""The origin of weights, inferred from names and containers, and the normalisations that go with it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from caa_cli.config.choices import NORMALISATIONS
from caa_cli.config.datasets import DATASETS
from caa_cli.errors import UsageError
from caa_cli.models.checkpoint import Weights
from caa_cli.models.prefixes import UNUSED
from caa_cli.runtime.words import counted

# Networks that were made for CIFAR-10, besides the thin ResNets.
_FOR_CIFAR = re.compile(r"resnet\d+-a$|wrn-|densenet-|vgg\d+-cifar|resnet(18|50)-cifar")


@dataclass(frozen=True)
class Layout:
    """The inferred origin.

    source: its description.  dataset: None if unknown.  normalisations: names of presets, the likeliest first.
    """

    source: str
    dataset: str | None = None
    normalisations: tuple[str, ...] = ()


def layout_of(weights: Weights) -> Layout:
    """The origin of the weights, inferred from the prefixes and containers that published code leaves."""
    if weights.card is not None:
        return Layout("caa", weights.card.dataset)
    if weights.origin is not None:
        return Layout(weights.format, normalisations=("none",))
    if weights.module is not None or weights.refusal is not None:
        return Layout("a whole network, which may hold its normalisation", normalisations=("none",))
    recognised = weights.recognised
    if recognised is None:
        return Layout("unknown")
    thin = re.fullmatch(r"resnet\d+", recognised.arch) and recognised.arch not in ("resnet18", "resnet50")
    cifar = "cifar10" if recognised.num_classes == 10 else None
    lenet = recognised.arch == "lenet"
    if any(UNUSED in name for name in weights.tensors):
        return Layout("TRADES or Carmon et al.: CIFAR", cifar, ("none", "cifar10"))
    if recognised.prefix.endswith(("1.", "1.module.")):  # nn.Sequential(normalisation, network)
        if thin:
            source = f"Cohen et al., SmoothAdv, Consistency or SmoothMix: {'CIFAR-10' if cifar else 'CIFAR'}"
            return Layout(source, cifar, ("cifar10", "cifar10-mean-only"))
        if _FOR_CIFAR.match(recognised.arch):
            return Layout("code for smoothed networks: CIFAR", cifar, ("cifar10", "cifar10-mean-only"))
        if lenet:
            return Layout("Consistency or SmoothMix: MNIST", "mnist", ("none", "mnist"))
        if recognised.num_classes == 1000:
            return Layout(
                "Cohen et al., SmoothAdv, Consistency or SmoothMix: ImageNet",
                "imagenet",
                ("imagenet", "imagenet-mean-only"),
            )
    if "net" in weights.keys and thin:
        return Layout("MACER: CIFAR-10", cifar, ("none", "cifar10"))
    if "net" in weights.keys and lenet:
        return Layout("MACER: MNIST", "mnist", ("none", "mnist"))
    if recognised.prefix.endswith("model.") and recognised.arch == "resnet18" and recognised.num_classes != 1000:
        # Grey data sets are normalised differently.
        return Layout("the authors of Et Tu Certifications: CIFAR-10 or MNIST", None, ("cifar10-paper",))
    if recognised.prefix.endswith("model.") and recognised.other == "resnet18-3x3" and recognised.num_classes == 1000:
        return Layout("the authors of Et Tu Certifications: ImageNet", "imagenet", ("imagenet",))
    if recognised.arch.endswith("-a"):
        return Layout("He et al.'s ResNet as Yerlan Idelbayev trained it: CIFAR-10", cifar, ("imagenet", "cifar10"))
    if _FOR_CIFAR.match(recognised.arch):
        return Layout(f"a state dict of {recognised.arch}", cifar, ("cifar10", "cifar10-paper"))
    if recognised.num_classes == 1000:
        return Layout("torchvision or timm: ImageNet", "imagenet", ("imagenet",))
    return Layout(f"a state dict of {recognised.arch}")


def normalisations_to_try(layout: Layout, dataset: str | None, channels: int) -> list[str]:
    """The names of all presets for this number of channels, the likeliest first."""
    usual = DATASETS[dataset].normalisation if dataset in DATASETS else "none"
    order = [*layout.normalisations, usual, *NORMALISATIONS]
    return [name for name in dict.fromkeys(order) if name == "none" or len(NORMALISATIONS[name][0]) == channels]


def preset_of(mean: Sequence[float], std: Sequence[float]) -> str | None:
    """The name of the preset with this mean and std; None if there is none."""
    for name, preset in NORMALISATIONS.items():
        if all(map(_same, preset, (mean, std))):
            return name
    return None


def refuse_other_channels(name: str, channels: int) -> None:
    """Raise UsageError for a preset that is not for images of so many channels."""
    fitting = [each for each, (mean, _) in NORMALISATIONS.items() if len(mean) in (1, channels)]
    if name not in fitting:
        raise UsageError(
            f"the normalisation {name} is for {counted(len(NORMALISATIONS[name][0]), 'channel')}, not {channels}",
            f"use one of: {', '.join(fitting)}",
        )


def sigma_in_name(path: Path) -> str | None:
    """The σ in the name of the file or its folders, for a suggestion only; None if there is none."""
    for part in reversed(path.parts[-3:]):
        match = re.search(r"noise_(\d+\.\d+)", part) or re.fullmatch(r"[a-z0-9]+-(\d*\.?\d+)-weight\.\w+", part)
        if match and float(match[1]) > 0:
            return f"{float(match[1]):g}"
    return None


def _same(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether the numbers are equal, of which a single one stands for every channel."""
    together = len(one) == len(other) or 1 in (len(one), len(other))
    return together and np.allclose(one, other, rtol=0, atol=1e-6)

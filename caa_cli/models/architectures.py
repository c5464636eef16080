"""Architectures by name, each preceded by its normalisation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caa_cli.config.choices import ARCHITECTURES
from caa_cli.errors import UsageError
from caa_cli.models.card import ModelCard
from caa_cli.models.cifar_networks import CifarDenseNet, CifarVgg, WideResNet
from caa_cli.models.factory import network_from
from caa_cli.models.resnet import CifarResNet, torchvision_resnet
from caa_cli.runtime.words import counted

# (number of classes, input shape) → network on normalised images
Builder = Callable[[int, Sequence[int]], nn.Module]


class NormalisedClassifier(nn.Module):
    """Pixels in [0, 1] → normalisation → network → logits.

    Normalisation is part of the model, so that noise is added to pixels and comes before it. Grey images are
    repeated to the three channels of a colour network here, after the noise: the channels share one draw. They may be
    normalised as colour images are, each channel by numbers of its own.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float], repeat: int) -> None:
        super().__init__()
        self.network = network
        self.repeat = repeat
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        if self.repeat > 1:
            x = x.expand(-1, self.repeat, -1, -1)
        logits: Tensor = self.network(x)
        return logits


def small_cnn(num_classes: int, input_shape: Sequence[int]) -> nn.Module:
    """Two strided convolutions and two linear layers: 106,122 weights on MNIST, about 10 µs per image on a CPU."""
    channels, height, width = input_shape
    flat = 32 * -(-height // 4) * -(-width // 4)
    return nn.Sequential(
        nn.Conv2d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(flat, 64),
        nn.ReLU(),
        nn.Linear(64, num_classes),
    )


class LeNet(nn.Module):
    """LeNet-5 as the published MNIST models have it: 20 and 50 filters of 5×5, 431,080 weights at 28×28."""

    def __init__(self, num_classes: int, input_shape: Sequence[int]) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        rows, columns = (((size - 4) // 2 - 4) // 2 for size in (height, width))
        self.fc1 = nn.Linear(50 * rows * columns, 500)
        self.fc2 = nn.Linear(500, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        # Pooling commutes with ReLU; pooling first leaves a quarter of the work.
        x = F.relu(F.max_pool2d(self.conv1(x), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        logits: Tensor = self.fc2(F.relu(self.fc1(x.flatten(1))))
        return logits


def _torchvision(depth: str, stem: str) -> Builder:
    return lambda num_classes, input_shape: torchvision_resnet(int(depth), num_classes, stem)


# torchvision's ResNets by their names in torchvision.
_TORCHVISION = re.compile(r"torchvision\.models:resnet(18|34|50|101|152)")


def runs_foreign_code(arch: str) -> bool:
    """Whether building this architecture imports a module from outside caa and torchvision."""
    return ":" in arch and not _TORCHVISION.fullmatch(arch)


def builder_of(arch: str) -> tuple[Builder, int]:
    """(builder, channels that the network requires; 0: those of the image). Raises UsageError for an unknown one.

    Networks for CIFAR-10 come in any depth and width, `config.choices.ARCHITECTURES` names the usual ones.
    """
    if arch == "small-cnn":
        return small_cnn, 0
    if arch == "lenet":
        return LeNet, 0
    if known := _TORCHVISION.fullmatch(arch):
        return _torchvision(known[1], "7x7"), 3
    if ":" in arch:
        return partial(network_from, arch), 0
    if known := re.fullmatch(r"resnet(18|50)(?:-(3x3|cifar))?", arch):
        return _torchvision(known[1], known[2] or "7x7"), 3
    if known := re.fullmatch(r"vgg(11|13|16|19)-cifar", arch):
        return partial(CifarVgg, int(known[1])), 0
    # resnet50 and resnet152 commonly mean torchvision's, although 50 = 6·8 + 2 and 152 = 6·25 + 2.
    known = re.fullmatch(r"resnet(\d{1,4})(-a)?", arch)
    if known and arch != "resnet152" and (blocks := _blocks(known[1], 2, 6)):
        return partial(CifarResNet, blocks, bool(known[2])), 0
    known = re.fullmatch(r"wrn-(\d{1,3})-([1-9]\d?)", arch)
    if known and (blocks := _blocks(known[1], 4, 6)):
        return partial(WideResNet, blocks, int(known[2])), 0
    known = re.fullmatch(r"densenet-(bc-)?(\d{1,3})-([1-9]\d{,2})", arch)
    if known and (layers := _blocks(known[2], 4, 6 if known[1] else 3)):
        return partial(CifarDenseNet, layers, int(known[3]), bool(known[1])), 0
    raise UsageError(
        f"unknown architecture {arch!r}",
        f"use --arch with one of {', '.join(ARCHITECTURES)}, or package.module:factory",
    )


def _blocks(depth: str, others: int, layers: int) -> int:
    """The blocks in each stage of a network of this depth, which has `layers` a block in its stages together, and
    `others`; 0: there is none."""
    blocks, rest = divmod(int(depth) - others, layers)
    return 0 if rest else max(0, blocks)


def build(card: ModelCard) -> NormalisedClassifier:
    """A newly initialised model for the card. Raises UsageError for an unknown architecture."""
    builder, wanted = builder_of(card.arch)
    channels = card.input_shape[0]
    repeat = 1 if wanted in (0, channels) else wanted
    if repeat > 1 and channels != 1:
        raise UsageError(
            f"{card.arch} takes {counted(wanted, 'channel')} (or grey images), not {channels}",
            "use another --dataset, or the --arch of the images' channels",
        )
    return NormalisedClassifier(builder(card.num_classes, card.input_shape), card.mean, card.std, repeat)

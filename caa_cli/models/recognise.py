"""Recognition of a network's architecture from the names and shapes of its weights, never from the file's name."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from caa_cli.errors import CaaError
from caa_cli.models.architectures import ARCHITECTURES, build
from caa_cli.models.card import ModelCard
from caa_cli.models.prefixes import are_all, peelings, spellings, without_copies
from caa_cli.runtime.words import counted

Shapes = Mapping[str, tuple[int, ...]]

# torchvision's ResNets: (blocks per stage, whether they are bottlenecks) → depth
_DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}
# Images of this height and more take the 3×3 stem with the paper's max-pooling after it.
LARGE = 64


@dataclass(frozen=True)
class Recognised:
    """A recognised architecture.

    arch: as for --arch.  prefix: the prefix of all names in the file.
    channels, size: of the network's input images; size is None if the weights fit any size.
    other: an architecture with weights of the same names and shapes; the images' size decides between the two.
    """

    arch: str
    num_classes: int
    channels: int
    size: int | None
    prefix: str
    other: str | None = None

    def for_images(self, height: int) -> str:
        """The architecture for images of this height."""
        return self.other if self.other is not None and height >= LARGE else self.arch

    def __str__(self) -> str:
        return f"{self.arch} with {counted(self.num_classes, 'class')}"


def recognise(tensors: Mapping[str, Tensor]) -> Recognised | None:
    """The architecture whose names and shapes all match these weights; None if there is none."""
    for prefix, names in peelings(without_copies(tensors)):
        for spelt in spellings(names):
            shapes = {name: tuple(tensor.shape) for name, tensor in spelt.items()}
            for recogniser in _RECOGNISERS:
                candidate = recogniser(shapes, prefix)
                if candidate is not None and _fits(candidate, spelt):
                    # Kuang Liu's code, which calls them shortcuts, never pools after the stem.
                    return replace(candidate, other=None) if any("shortcut." in name for name in names) else candidate
    return None


def _small_cnn(shapes: Shapes, prefix: str) -> Recognised | None:
    first, flat, last = (_shape(shapes, f"{layer}.weight", rank) for layer, rank in ((0, 4), (5, 2), (7, 2)))
    if first is None or flat is None or last is None:
        return None
    return Recognised("small-cnn", last[0], first[1], 4 * math.isqrt(flat[1] // 32), prefix)


def _lenet(shapes: Shapes, prefix: str) -> Recognised | None:
    first, flat, last = (
        _shape(shapes, f"{layer}.weight", rank) for layer, rank in (("conv1", 4), ("fc1", 2), ("fc2", 2))
    )
    if first is None or flat is None or last is None:
        return None
    return Recognised("lenet", last[0], first[1], 4 * math.isqrt(flat[1] // 50) + 12, prefix)


def _thin_resnet(shapes: Shapes, prefix: str) -> Recognised | None:
    first, last = _shape(shapes, "conv1.weight", 4), _shape(shapes, "fc.weight", 2)
    blocks = _blocks(shapes, 3)
    if first is None or last is None or len(set(blocks)) != 1 or _blocks(shapes, 4)[3]:
        return None
    # He et al.'s option A has no weights where the shape changes.
    kind = "" if "layer2.0.downsample.0.weight" in shapes else "-a"
    return Recognised(f"resnet{6 * blocks[0] + 2}{kind}", last[0], first[1], None, prefix)


def _resnet(shapes: Shapes, prefix: str) -> Recognised | None:
    first, last = _shape(shapes, "conv1.weight", 4), _shape(shapes, "fc.weight", 2)
    depth = _DEPTHS.get((_blocks(shapes, 4), "layer1.0.conv3.weight" in shapes))
    if first is None or last is None or depth is None:
        return None
    built_in = f"resnet{depth}" in ARCHITECTURES
    arch = f"resnet{depth}" if built_in else f"torchvision.models:resnet{depth}"
    if first[2] == 3 and built_in:
        return Recognised(f"{arch}-cifar", last[0], first[1], None, prefix, f"{arch}-3x3")
    return Recognised(arch, last[0], first[1], None, prefix)


def _wide_resnet(shapes: Shapes, prefix: str) -> Recognised | None:
    first, last = _shape(shapes, "conv1.weight", 4), _shape(shapes, "fc.weight", 2)
    blocks = _numbered(shapes, r"block1\.layer\.(\d+)\.")
    if first is None or last is None or not blocks:
        return None
    return Recognised(f"wrn-{6 * blocks + 4}-{last[1] // 64}", last[0], first[1], None, prefix)


def _densenet(shapes: Shapes, prefix: str) -> Recognised | None:
    first, last = _shape(shapes, "features.conv0.weight", 4), _shape(shapes, "classifier.weight", 2)
    layers = _numbered(shapes, r"features\.denseblock1\.denselayer(\d+)\.")
    bottleneck = "features.denseblock1.denselayer1.conv2.weight" in shapes
    grown = _shape(shapes, f"features.denseblock1.denselayer1.conv{2 if bottleneck else 1}.weight", 4)
    if first is None or last is None or grown is None or not layers:
        return None
    kind, depth = ("bc-", 6 * layers + 4) if bottleneck else ("", 3 * layers + 4)
    return Recognised(f"densenet-{kind}{depth}-{grown[0]}", last[0], first[1], None, prefix)


def _vgg(shapes: Shapes, prefix: str) -> Recognised | None:
    first, last = _shape(shapes, "features.0.weight", 4), _shape(shapes, "classifier.weight", 2)
    if first is None or last is None:
        return None
    convolutions = sum(name.startswith("features.") and len(shape) == 4 for name, shape in shapes.items())
    # Of 32 pixels five poolings leave one, which is all that the linear layer takes.
    return Recognised(f"vgg{convolutions + 3}-cifar", last[0], first[1], 32, prefix)


_RECOGNISERS = (_small_cnn, _lenet, _thin_resnet, _resnet, _wide_resnet, _densenet, _vgg)


def _numbered(shapes: Shapes, pattern: str) -> int:
    """How many different numbers stand in names of this pattern."""
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


def _shape(shapes: Shapes, name: str, rank: int) -> tuple[int, ...] | None:
    shape = shapes.get(name, ())
    return shape if len(shape) == rank and all(shape) else None


def _blocks(shapes: Shapes, stages: int) -> tuple[int, ...]:
    """The number of residual blocks in each stage."""
    names = {tuple(name.split(".")[:2]) for name in shapes}
    return tuple(sum(stage == f"layer{number}" for stage, *_ in names) for number in range(1, stages + 1))


def _fits(candidate: Recognised, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the architecture's tensors have exactly these names and shapes."""
    size = candidate.size or 32
    card = ModelCard(candidate.arch, candidate.num_classes, (candidate.channels, size, size))
    try:
        with torch.device("meta"):  # names and shapes only
            return are_all(tensors, build(card).network.state_dict())
    except (CaaError, RuntimeError, ValueError):
        return False

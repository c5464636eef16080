"""Recognition of a network's architecture from the names and shapes of its weights, never from the file's name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from caa_cli.config.choices import ARCHITECTURES
from caa_cli.errors import CaaError
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.fit import difference
from caa_cli.models.prefixes import readings, without_copies
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
    # Kuang Liu's code, which calls them shortcuts, never pools after the stem.
    pools = not any("shortcut." in name for name in tensors)
    for prefix, names in readings(without_copies(tensors)):
        shapes = {name: tuple(tensor.shape) for name, tensor in names.items()}
        for first, last, guess in _FAMILIES:
            inputs, outputs = _shape(shapes, first, 4), _shape(shapes, last, 2)
            if inputs is None or outputs is None or (guessed := guess(shapes)) is None:
                continue
            arch, size = guessed
            other = f"{arch.removesuffix('-cifar')}-3x3" if pools and re.fullmatch(r"resnet\d+-cifar", arch) else None
            found = Recognised(arch, outputs[0], inputs[1], size, prefix, other)
            if _fits(found, names):
                return found
    return None


# An architecture that names and shapes suggest, with the height of its images if they say that too. Whether all
# names and shapes are its own is asked later.
Guess = tuple[str, int | None]


def _small_cnn(shapes: Shapes) -> Guess | None:
    flat = _shape(shapes, "5", 2)
    return None if flat is None else ("small-cnn", 4 * math.isqrt(flat[1] // 32))


def _lenet(shapes: Shapes) -> Guess | None:
    flat = _shape(shapes, "fc1", 2)
    return None if flat is None else ("lenet", 4 * math.isqrt(flat[1] // 50) + 12)


def _thin_resnet(shapes: Shapes) -> Guess | None:
    first, second, third, fourth = _blocks(shapes)
    if not first == second == third or fourth:
        return None
    # He et al.'s option A has no weights where the shape changes.
    kind = "" if "layer2.0.downsample.0.weight" in shapes else "-a"
    return f"resnet{6 * first + 2}{kind}", None


def _resnet(shapes: Shapes) -> Guess | None:
    depth = _DEPTHS.get((_blocks(shapes), "layer1.0.conv3.weight" in shapes))
    if depth is None:
        return None
    if f"resnet{depth}" not in ARCHITECTURES:
        return f"torchvision.models:resnet{depth}", None
    return f"resnet{depth}{'-cifar' if shapes['conv1.weight'][2] == 3 else ''}", None


def _wide_resnet(shapes: Shapes) -> Guess:
    blocks = _numbered(shapes, r"block1\.layer\.(\d+)\.")
    return f"wrn-{6 * blocks + 4}-{shapes['fc.weight'][1] // 64}", None


def _densenet(shapes: Shapes) -> Guess | None:
    layers = _numbered(shapes, r"features\.denseblock1\.denselayer(\d+)\.")
    bottleneck = "features.denseblock1.denselayer1.conv2.weight" in shapes
    grown = _shape(shapes, f"features.denseblock1.denselayer1.conv{2 if bottleneck else 1}", 4)
    if grown is None:
        return None
    kind, depth = ("bc-", 6 * layers + 4) if bottleneck else ("", 3 * layers + 4)
    return f"densenet-{kind}{depth}-{grown[0]}", None


def _vgg(shapes: Shapes) -> Guess:
    convolutions = sum(name.startswith("features.") and len(shape) == 4 for name, shape in shapes.items())
    # Of 32 pixels five poolings leave one, which is all that the linear layer takes.
    return f"vgg{convolutions + 3}-cifar", 32


# The first and the last layer of each family, which tell the channels and the classes, and what its weights suggest.
_FAMILIES: tuple[tuple[str, str, Callable[[Shapes], Guess | None]], ...] = (
    ("0", "7", _small_cnn),
    ("conv1", "fc2", _lenet),
    ("conv1", "fc", _thin_resnet),
    ("conv1", "fc", _resnet),
    ("conv1", "fc", _wide_resnet),
    ("features.conv0", "classifier", _densenet),
    ("features.0", "classifier", _vgg),
)


def _numbered(shapes: Shapes, pattern: str) -> int:
    """How many different numbers stand in names of this pattern."""
    return len({match[1] for name in shapes if (match := re.match(pattern, name))})


def _shape(shapes: Shapes, layer: str, rank: int) -> tuple[int, ...] | None:
    """The shape of a layer's weight; None unless it has this many dimensions."""
    shape = shapes.get(f"{layer}.weight", ())
    return shape if len(shape) == rank and all(shape) else None


def _blocks(shapes: Shapes) -> tuple[int, ...]:
    """The number of residual blocks in each of four stages."""
    names = {tuple(name.split(".")[:2]) for name in shapes}
    return tuple(sum(stage == f"layer{number}" for stage, *_ in names) for number in range(1, 5))


def _fits(candidate: Recognised, tensors: Mapping[str, Tensor]) -> bool:
    """Whether the architecture's tensors have exactly these names and shapes."""
    size = candidate.size or 32
    card = ModelCard(candidate.arch, candidate.num_classes, (candidate.channels, size, size))
    try:
        with torch.device("meta"):  # names and shapes only
            return difference(tensors, build(card).network.state_dict()) is None
    except (CaaError, RuntimeError):
        return False

"""How a U-Net is put together, from the names and shapes of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from torch import Size, nn

from caa_cli.models.denoisers.unet import Block, Downsample, ResidualBlock, SelfAttention, UNet, Upsample

T = TypeVar("T")
# The shapes of a layer's tensors, by their names in the layer; of a block, one for each of its layers.
Shapes = Mapping[str, Size]
Layers = Sequence[Shapes]

FIRST, TIME, LAST = "input_blocks.0.0.weight", "time_embed.0.weight", "out.2.weight"
_RESIDUAL, _TOLD = "in_layers.2.weight", "emb_layers.1.weight"
# Channels at each size of the images, in units of the narrowest, and the height that such U-Nets were published for.
_SIZES = {
    (1, 2, 2, 2): 32,
    (1, 2, 3, 4): 64,
    (1, 1, 2, 3, 4): 128,
    (1, 1, 2, 2, 4, 4): 256,
    (0.5, 1, 1, 2, 2, 4, 4): 512,
}


@dataclass(frozen=True)
class UNetLayout:
    """shapes: of all tensors, by name.  down, middle, up: of the blocks. Blocks of any other names are no part of it.

    Properties and `build` raise KeyError, ValueError or IndexError where the names don't make a U-Net.
    """

    shapes: Shapes
    down: Sequence[Layers]
    middle: Layers
    up: Sequence[Layers]

    @staticmethod
    def of(shapes: Shapes) -> UNetLayout:
        down, up = (
            [_numbered(block) for block in _numbered(_within(shapes, part))]
            for part in ("input_blocks.", "output_blocks.")
        )
        return UNetLayout(shapes, down, _numbered(_within(shapes, "middle_block.")), up)

    @property
    def channels(self) -> int:
        """The channels of the images."""
        return self.shapes[FIRST][1]

    @property
    def outputs(self) -> int:
        """Channels that the U-Net returns: those of the images, and as many again where it learns the variance."""
        return self.shapes[LAST][0]

    @property
    def per_size(self) -> int:
        """Blocks at each height and width, with the one that changes it."""
        growing = (number for number, layers in enumerate(self.up) if _grows(layers))
        return next(growing, len(self.up) - 1) + 1

    @property
    def multiple(self) -> int:
        """Height and width of the images have to be multiples of it."""
        return 1 << sum(map(_grows, self.up))

    @property
    def size(self) -> int | None:
        """The height of the images that it was published for; None: unknown."""
        widths = [layers[0][_RESIDUAL][0] for layers in self.down[1 :: self.per_size]]
        return _SIZES.get(tuple(width / self.shapes[TIME][1] for width in widths))

    @property
    def resampling_blocks(self) -> bool:
        """Whether residual blocks change the height and width (guided-diffusion's `resblock_updown`)."""
        return any(_RESIDUAL in layers[-1] for layers in self.up if _grows(layers))

    @property
    def modulated(self) -> bool:
        """Whether the timestep scales and shifts (`use_scale_shift_norm`)."""
        return _modulated(self.middle[0])

    def build(self, heads: Callable[[int], int], heads_first: bool) -> UNet:
        """The U-Net, with arbitrary weights. heads: of attention, for a number of channels."""

        def block(layers: Layers, resampled: Iterable[float]) -> Block:
            return Block(layer(shapes, by) for shapes, by in zip(layers, resampled, strict=True))

        def layer(shapes: Shapes, resampled: float) -> nn.Module:
            if "qkv.weight" in shapes:
                channels = shapes["norm.weight"][0]
                return SelfAttention(channels, heads(channels), heads_first)
            return _layer(shapes, resampled)

        def shrunk(number: int) -> float:
            return 0.5 if self.resampling_blocks and number and number % self.per_size == 0 else 1

        embedding, width = self.shapes[TIME]
        return UNet(
            (block(layers, [shrunk(number)] * len(layers)) for number, layers in enumerate(self.down)),
            block(self.middle, [1] * len(self.middle)),
            (block(layers, [1] + [2] * (len(layers) - 1)) for layers in self.up),
            channels=self.shapes["out.0.weight"][0],
            width=width,
            embedding=embedding,
            outputs=self.outputs,
        )


def _layer(shapes: Shapes, resampled: float) -> nn.Module:
    """A layer other than attention."""
    if _RESIDUAL in shapes:
        outputs, inputs = shapes[_RESIDUAL][:2]
        skip = shapes.get("skip_connection.weight")
        return ResidualBlock(
            inputs,
            outputs,
            shapes[_TOLD][1],
            modulated=_modulated(shapes),
            skip=None if skip is None else skip[-1],
            resampled=resampled,
        )
    if "op.weight" in shapes:
        return Downsample(shapes["op.weight"][0])
    if "conv.weight" in shapes:
        return Upsample(shapes["conv.weight"][0])
    outputs, inputs = shapes["weight"][:2]
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def _modulated(shapes: Shapes) -> bool:
    return shapes[_TOLD][0] == 2 * shapes[_RESIDUAL][0]


def _grows(layers: Layers) -> bool:
    """Whether a block on the way up doubles the height and width: its last layer does."""
    return len(layers) > 1 and "qkv.weight" not in layers[-1]


def _within(shapes: Mapping[str, T], prefix: str) -> dict[str, T]:
    return {name.removeprefix(prefix): value for name, value in shapes.items() if name.startswith(prefix)}


def _numbered(shapes: Shapes) -> list[dict[str, Size]]:
    """Shapes under `0.name`, `1.name`, … as one dictionary for each number."""
    by_number: dict[str, dict[str, Size]] = {}
    for name, shape in shapes.items():
        number, _, rest = name.partition(".")
        by_number.setdefault(number, {})[rest] = shape
    return [by_number[str(number)] for number in range(len(by_number))]

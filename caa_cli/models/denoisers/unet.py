"""The U-Net of improved-diffusion and guided-diffusion (Nichol and Dhariwal, 2021; Dhariwal and Nichol, 2021).

The tensors have the names of the published code: `input_blocks.1.0.in_layers.2.weight`, …
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caa_cli.runtime.words import counted

_GROUPS = 32
_LONGEST_PERIOD = 10_000


class ResidualBlock(nn.Module):
    """Two convolutions that the timestep modulates, around them a sum; images are resampled between the two halves.

    embedding: values that tell the timestep.  modulated: they scale and shift (scale-shift norm), else they add.
    skip: size of the kernel where the number of channels changes on the way around; None: nothing changes there.
    resampled: 2: twice the height and width; 0.5: half; 1: as they are.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        embedding: int,
        *,
        modulated: bool = True,
        skip: int | None = None,
        resampled: float = 1,
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, inputs), nn.SiLU(), nn.Conv2d(inputs, outputs, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(embedding, 2 * outputs if modulated else outputs))
        # The third is dropout, in training.
        self.out_layers = nn.Sequential(
            nn.GroupNorm(_GROUPS, outputs), nn.SiLU(), nn.Identity(), nn.Conv2d(outputs, outputs, 3, padding=1)
        )
        self.skip_connection = nn.Identity() if skip is None else nn.Conv2d(inputs, outputs, skip, padding=skip // 2)
        self.modulated = modulated
        self.resampled = resampled

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: (N, inputs, height, width).  embedding: (1, values)."""
        norm, activation, convolution = self.in_layers
        h = self._resample(activation(norm(x)))
        h = convolution(h)
        told = self.emb_layers(embedding)[..., None, None]
        norm, *rest = self.out_layers
        if self.modulated:
            scale, shift = told.chunk(2, dim=1)
            h = norm(h) * (1 + scale) + shift
        else:
            h = norm(h + told)
        for layer in rest:
            h = layer(h)
        out: Tensor = self.skip_connection(self._resample(x)) + h
        return out

    def _resample(self, x: Tensor) -> Tensor:
        if self.resampled == 1:
            return x
        return F.avg_pool2d(x, 2) if self.resampled < 1 else F.interpolate(x, scale_factor=2, mode="nearest")


class SelfAttention(nn.Module):
    """Every pixel attends to all, by several heads, added to the image.

    heads_first: the channels of `qkv` are query, key and value of the first head, then of the second, …; else all
    queries, then all keys, then all values (guided-diffusion's "new attention order").
    """

    def __init__(self, channels: int, heads: int, heads_first: bool = True) -> None:
        super().__init__()
        if heads < 1 or channels % heads:
            raise ValueError(f"{counted(channels, 'channel')} can't be shared out among {heads} attention heads")
        self.norm = nn.GroupNorm(_GROUPS, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)
        self.heads = heads
        self.heads_first = heads_first

    def forward(self, x: Tensor) -> Tensor:
        pixels = x.flatten(2)
        parts = self.qkv(self.norm(pixels))
        order = (self.heads, 3) if self.heads_first else (3, self.heads)
        parts = parts.unflatten(1, (*order, -1)).transpose(-1, -2)  # (N, …, pixels, channels of a head)
        query, key, value = parts.unbind(2 if self.heads_first else 1)
        attended = F.scaled_dot_product_attention(query, key, value)
        out: Tensor = pixels + self.proj_out(attended.transpose(-1, -2).flatten(1, 2))
        return out.view(x.shape)


class Downsample(nn.Module):
    """Half the height and width by a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.op(x)
        return out


class Upsample(nn.Module):
    """Twice the height and width, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))
        return out


class Block(nn.ModuleList):
    """Layers one after the other; residual blocks are told the timestep."""

    def forward(self, x: Tensor, embedding: Tensor, skipped: Tensor | None = None) -> Tensor:
        """skipped: comes from the way down, and goes in beside x."""
        if skipped is not None:  # here, as a block that recomputes its activations keeps its inputs
            x = torch.cat([x, skipped], dim=1)
        for layer in self:
            x = layer(x, embedding) if isinstance(layer, ResidualBlock) else layer(x)
        return x


class UNet(nn.Module):
    """Blocks down to fewer pixels, in the middle, and up again, where each takes what one on the way down returned.

    channels: of the first convolution.  width: of the sines that tell the timestep.  outputs: channels returned.
    """

    def __init__(
        self,
        down: Iterable[Block],
        middle: Block,
        up: Iterable[Block],
        *,
        channels: int,
        width: int,
        embedding: int,
        outputs: int,
    ) -> None:
        super().__init__()
        self.time_embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.input_blocks = nn.ModuleList(down)
        self.middle_block = middle
        self.output_blocks = nn.ModuleList(up)
        last = nn.Conv2d(channels, outputs, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(_GROUPS, channels), nn.SiLU(), last)
        self.width = width

    def forward(self, x: Tensor, timestep: float) -> Tensor:
        """x: (N, channels, height, width), all at one timestep, which may be a fraction."""
        embedding = self.time_embed(timestep_embedding(timestep, self.width, x))
        skipped = []
        for block in self.input_blocks:
            x = block(x, embedding)
            skipped.append(x)
        x = self.middle_block(x, embedding)
        for block in self.output_blocks:
            x = block(x, embedding, skipped.pop())
        out: Tensor = self.out(x)
        return out


def timestep_embedding(timestep: float, width: int, like: Tensor) -> Tensor:
    """Cosines, then sines, of the timestep at frequencies from 1 down to 1/10,000: (1, width), of `like`'s type.

    They are computed in float32 at least: in bfloat16, steps beyond 256 would be rounded.
    """
    dtype = torch.promote_types(like.dtype, torch.float32)
    places = torch.arange(width // 2, dtype=dtype, device=like.device)
    angles = timestep * torch.exp(-math.log(_LONGEST_PERIOD) / (width // 2) * places)
    return torch.cat([angles.cos(), angles.sin()])[None].to(like.dtype)

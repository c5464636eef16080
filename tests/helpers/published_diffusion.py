"""The U-Net of improved-diffusion and guided-diffusion, written down once more, as a function of its weights.

It makes the weights that it asks for, so that a run of it gives a state dict with the published names.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass
class Published:
    """width: `num_channels`.  multipliers, blocks, attention: `channel_mult`, `num_res_blocks`, and `attention` the
    factors between the image's height and that at which there is attention.  head_channels: 0: `heads` heads."""

    multipliers: Sequence[float]
    blocks: int
    attention: Sequence[int] = ()
    width: int = 32
    channels: int = 3
    outputs: int = 6
    heads: int = 4
    head_channels: int = 0
    new_order: bool = False
    modulated: bool = True
    resampling_blocks: bool = False
    weights: dict[str, Tensor] = field(default_factory=dict)
    random: torch.Generator = field(default_factory=lambda: torch.Generator().manual_seed(0))

    def __call__(self, x: Tensor, timestep: float) -> Tensor:
        half = self.width // 2
        angles = [timestep * 10_000 ** (-place / half) for place in range(half)]
        told = torch.tensor([*map(math.cos, angles), *map(math.sin, angles)], dtype=x.dtype, device=x.device)[None]
        told = self._linear("time_embed.2", silu(self._linear("time_embed.0", told, 4 * self.width)), 4 * self.width)
        h = self._conv("input_blocks.0.0", x, self.width)
        kept, number, factor = [h], 1, 1
        for level, multiplier in enumerate(self.multipliers):
            for _ in range(self.blocks):
                h = self._block(f"input_blocks.{number}.0", h, int(multiplier * self.width), told)
                if factor in self.attention:
                    h = self._attention(f"input_blocks.{number}.1", h)
                kept.append(h)
                number += 1
            if level < len(self.multipliers) - 1:
                if self.resampling_blocks:
                    h = self._block(f"input_blocks.{number}.0", h, h.shape[1], told, half_size)
                else:
                    h = self._conv(f"input_blocks.{number}.0.op", h, h.shape[1], stride=2)
                kept.append(h)
                number, factor = number + 1, 2 * factor
        h = self._block("middle_block.0", h, h.shape[1], told)
        h = self._block("middle_block.2", self._attention("middle_block.1", h), h.shape[1], told)
        number = 0
        for level, multiplier in reversed(list(enumerate(self.multipliers))):
            for place in range(self.blocks + 1):
                name, layer = f"output_blocks.{number}", 1
                h = self._block(f"{name}.0", torch.cat([h, kept.pop()], 1), int(multiplier * self.width), told)
                if factor in self.attention:
                    h, layer = self._attention(f"{name}.1", h), 2
                if level and place == self.blocks:
                    if self.resampling_blocks:
                        h = self._block(f"{name}.{layer}", h, h.shape[1], told, twice_the_size)
                    else:
                        h = self._conv(f"{name}.{layer}.conv", twice_the_size(h), h.shape[1])
                    factor //= 2
                number += 1
        return self._conv("out.2", silu(self._norm("out.0", h)), self.outputs)

    def _block(self, name: str, x: Tensor, outputs: int, told: Tensor, resized=lambda x: x) -> Tensor:
        h = resized(silu(self._norm(f"{name}.in_layers.0", x)))
        h, x = self._conv(f"{name}.in_layers.2", h, outputs), resized(x)
        told = self._linear(f"{name}.emb_layers.1", silu(told), (1 + self.modulated) * outputs)[:, :, None, None]
        if self.modulated:
            h = self._norm(f"{name}.out_layers.0", h) * (1 + told[:, :outputs]) + told[:, outputs:]
        else:
            h = self._norm(f"{name}.out_layers.0", h + told)
        h = self._conv(f"{name}.out_layers.3", silu(h), outputs)
        return h + (x if x.shape[1] == outputs else self._conv(f"{name}.skip_connection", x, outputs, kernel=1))

    def _attention(self, name: str, x: Tensor) -> Tensor:
        channels = x.shape[1]
        size = self.head_channels or channels // self.heads
        all_parts = self._conv(f"{name}.qkv", self._norm(f"{name}.norm", x).flatten(2), 3 * channels, kernel=1)
        heads = []
        for head in range(channels // size):
            # Where query, key and value of a head begin.
            begins = (
                [head * size + part * channels for part in range(3)]
                if self.new_order
                else [(3 * head + part) * size for part in range(3)]
            )
            query, key, value = (all_parts[:, begin : begin + size] for begin in begins)
            likeness = torch.einsum("nct,ncs->nts", query, key) / math.sqrt(size)
            heads.append(torch.einsum("nts,ncs->nct", likeness.softmax(2), value))
        return x + self._conv(f"{name}.proj_out", torch.cat(heads, 1), channels, kernel=1).reshape(x.shape)

    def _norm(self, name: str, x: Tensor) -> Tensor:
        groups = x.reshape(len(x), 32, -1)
        variance, mean = torch.var_mean(groups, 2, correction=0, keepdim=True)
        x = ((groups - mean) / (variance + 1e-5).sqrt()).reshape(x.shape)
        shape = (-1, *(1,) * (x.dim() - 2))
        weight = self._weight(f"{name}.weight", x, x.shape[1], mean=1)
        return x * weight.reshape(shape) + self._weight(f"{name}.bias", x, x.shape[1]).reshape(shape)

    def _conv(self, name: str, x: Tensor, outputs: int, kernel: int = 3, stride: int = 1) -> Tensor:
        weight = self._weight(f"{name}.weight", x, outputs, x.shape[1], *(kernel,) * (x.dim() - 2))
        convolve = F.conv2d if x.dim() == 4 else F.conv1d
        return convolve(x, weight, self._weight(f"{name}.bias", x, outputs), stride=stride, padding=kernel // 2)

    def _linear(self, name: str, x: Tensor, outputs: int) -> Tensor:
        weight = self._weight(f"{name}.weight", x, outputs, x.shape[1])
        return x @ weight.T + self._weight(f"{name}.bias", x, outputs)

    def _weight(self, name: str, x: Tensor, *shape: int, mean: float = 0) -> Tensor:
        if name not in self.weights and x.is_meta:
            self.weights[name] = torch.empty(shape, device="meta")
        elif name not in self.weights:
            scale = math.prod(shape[1:]) ** -0.5 if len(shape) > 1 else 0.3
            self.weights[name] = mean + scale * torch.randn(shape, generator=self.random)
        return self.weights[name].to(x.dtype)


def silu(x: Tensor) -> Tensor:
    return x * torch.sigmoid(x)


def half_size(x: Tensor) -> Tensor:
    return (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4


def twice_the_size(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)

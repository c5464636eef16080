"""Diffusion models in the layout of OpenAI's improved-diffusion and guided-diffusion.

The tensors say all but the heads of attention and the noise schedule. These are as published, unless a JSON file
beside the weights says otherwise, under the names of the published code's flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from caa_cli.config.ranges import Range
from caa_cli.config.schema import PositiveInt, check
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.denoisers.one_step import EPSILON, SAMPLE, Diffusion, millions, one_step_denoiser
from caa_cli.models.denoisers.schedules import alpha_bars, cosine_betas, linear_betas
from caa_cli.models.denoisers.unet import UNet
from caa_cli.models.denoisers.unet_layout import FIRST, LAST, TIME, UNetLayout
from caa_cli.models.fit import fit_names, refuse_integers
from caa_cli.models.limits import short
from caa_cli.runtime.words import counted


@dataclass(frozen=True)
class Flags:
    """What the tensors don't say, by the names of the published code's flags.

    num_head_channels: of a head of attention; -1: there are `num_heads`, whatever the channels.
    image_size: height of the images; None: unknown.
    """

    num_heads: PositiveInt = 4
    num_head_channels: Annotated[int, Range(-1)] = -1
    use_new_attention_order: bool = False
    diffusion_steps: Annotated[int, Range(1, 10**5)] = 1000
    noise_schedule: Literal["linear", "cosine"] = "linear"
    rescale_timesteps: bool = False
    predict_xstart: bool = False
    image_size: PositiveInt | None = None

    @staticmethod
    def published(layout: UNetLayout) -> Flags:
        """Those of the published unconditional checkpoints."""
        flags = Flags(image_size=layout.size)
        if layout.resampling_blocks:  # guided-diffusion: ImageNet and LSUN, 256×256
            return replace(flags, num_head_channels=64)
        if layout.modulated:  # improved-diffusion: CIFAR-10, and ImageNet 64×64
            return replace(flags, diffusion_steps=4000, noise_schedule="cosine", rescale_timesteps=True)
        return replace(flags, num_heads=1)  # improved-diffusion: LSUN, 256×256

    def updated(self, documents: Mapping[str, Any]) -> Flags:
        """With the flags that JSON documents hold. Raises SchemaError for values that can't be."""
        names = {field.name for field in fields(self)}
        given: dict[str, Any] = {}
        for document in documents.values():
            if isinstance(document, dict):
                given |= {name: value for name, value in document.items() if name in names}
        check(given, Flags)
        return replace(self, **given)

    def heads(self, channels: int) -> int:
        return self.num_heads if self.num_head_channels < 1 else channels // self.num_head_channels

    @property
    def diffusion(self) -> Diffusion:
        if self.noise_schedule == "cosine":
            betas = cosine_betas(self.diffusion_steps)
        else:
            scale = 1000 / self.diffusion_steps  # the whole noise does not depend on the number of steps
            betas = linear_betas(self.diffusion_steps, 0.0001 * scale, 0.02 * scale)
        return Diffusion(
            alpha_bars=alpha_bars(betas),
            schedule=self.noise_schedule,
            prediction=SAMPLE if self.predict_xstart else EPSILON,
            timestep=self.timestep,
        )

    def timestep(self, number: int) -> float:
        """What the network is told at a step."""
        return number * 1000 / self.diffusion_steps if self.rescale_timesteps else number


def recognise(file: DenoiserFile) -> Denoiser | None:
    """The diffusion model that these weights are of; None if they are of none in this layout.

    Raises UsageError for one that wants more than a noisy image, and CaaError where tensors are missing or don't fit.
    """
    wanted = dict.fromkeys((FIRST, TIME, LAST), torch.empty(0))
    tensors = fit_names(file.weights.tensors, wanted)
    if not wanted.keys() <= tensors.keys():
        return None
    _refuse_conditional(file, tensors)
    try:
        layout = UNetLayout.of({name: tensor.shape for name, tensor in tensors.items()})
        flags = Flags.published(layout).updated(file.documents)
        network = _network(layout, flags, tensors)
        refuse_integers(file.weights.path, tensors, network.state_dict())
        size = 8 * layout.multiple
        network.to("meta")(torch.empty(1, layout.channels, size, size, device="meta"), 0.0)  # do the layers fit?
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise CaaError(
            f"{file.path} has the names of a diffusion U-Net, but its tensors and flags don't make one "
            f"({short(error, 200)})",
            "copy the file again; flags that are not as published, such as num_heads, go into a JSON file beside the "
            "weights, in a folder that --denoiser names",
        ) from error
    return one_step_denoiser(
        flags.diffusion,
        lambda: _network(layout, flags, tensors),
        family="openai-diffusion",
        arch=f"U-Net of {millions(tensors)}",
        channels=layout.channels,
        size=flags.image_size,
        multiple=layout.multiple,
    )


def _network(layout: UNetLayout, flags: Flags, tensors: Mapping[str, Tensor]) -> UNet:
    """Raises RuntimeError where tensors are missing, or are too many or of the wrong shape."""
    with torch.device("meta"):
        network = layout.build(flags.heads, heads_first=not flags.use_new_attention_order)
    network.load_state_dict({name: tensor.detach().float() for name, tensor in tensors.items()}, assign=True)
    return network


def _refuse_conditional(file: DenoiserFile, tensors: Mapping[str, Tensor]) -> None:
    """Raise UsageError for a U-Net that denoises only with more than the noisy image."""
    channels, outputs = tensors[FIRST].shape[1], tensors[LAST].shape[0]
    what = None
    if "label_emb.weight" in tensors:
        what = "is class-conditional: it would have to be told the class"
    elif any("transformer_blocks" in name for name in tensors):
        what = "is conditioned on a text"
    elif outputs not in (channels, 2 * channels):
        what = f"takes {counted(channels, 'channel')} and returns {outputs}, as models for super-resolution do"
    if what is not None:
        raise UsageError(
            f"the diffusion U-Net in {file.path} {what}",
            "take an unconditional one, such as cifar10_uncond_50M_500K.pt or 256x256_diffusion_uncond.pt",
        )

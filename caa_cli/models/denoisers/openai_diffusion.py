"""Diffusion models in the layout of OpenAI's improved-diffusion and guided-diffusion.

The tensors say all but the heads of attention and the noise schedule. These are as published, unless a JSON file
beside the weights says otherwise, under the names of the published code's flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from caa_cli.config.ranges import Range
from caa_cli.config.schema import Count, check
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.denoisers.one_step import EPSILON, SAMPLE, OneStep, first_step
from caa_cli.models.denoisers.schedules import alpha_bars, cosine_betas, linear_betas
from caa_cli.models.denoisers.unet import UNet
from caa_cli.models.denoisers.unet_layout import FIRST, TIME, Layout
from caa_cli.models.limits import short
from caa_cli.models.prefixes import fit_names


@dataclass(frozen=True)
class Flags:
    """What the tensors don't say, by the names of the published code's flags.

    num_head_channels: of a head of attention; -1: there are `num_heads`, whatever the channels.
    image_size: height of the images; None: unknown.
    """

    num_heads: Count = 4
    num_head_channels: Annotated[int, Range(-1)] = -1
    use_new_attention_order: bool = False
    diffusion_steps: Annotated[int, Range(1, 10**5)] = 1000
    noise_schedule: Literal["linear", "cosine"] = "linear"
    rescale_timesteps: bool = False
    predict_xstart: bool = False
    image_size: Count | None = None

    @staticmethod
    def published(layout: Layout) -> Flags:
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
        for document in documents.values():
            if isinstance(document, dict):
                check(document, Flags)
                self = replace(self, **{name: value for name, value in document.items() if name in names})
        return self

    def heads(self, channels: int) -> int:
        return self.num_heads if self.num_head_channels < 1 else channels // self.num_head_channels

    def alpha_bars(self) -> Tensor:
        """ᾱ of each step, (diffusion_steps,) float64."""
        if self.noise_schedule == "cosine":
            return alpha_bars(cosine_betas(self.diffusion_steps))
        scale = 1000 / self.diffusion_steps  # the whole noise does not depend on the number of steps
        return alpha_bars(linear_betas(self.diffusion_steps, 0.0001 * scale, 0.02 * scale))

    def timestep(self, number: int) -> float:
        """What the network is told at a step."""
        return number * 1000 / self.diffusion_steps if self.rescale_timesteps else number


def recognise(file: DenoiserFile) -> Denoiser | None:
    """The diffusion model that these weights are of; None if they are of none in this layout.

    Raises UsageError for one that wants more than a noisy image, and CaaError where tensors are missing or don't fit.
    """
    wanted = dict.fromkeys((FIRST, TIME), torch.empty(0))
    tensors = fit_names(file.weights.tensors, wanted)
    if not wanted.keys() <= tensors.keys():
        return None
    _refuse_conditional(file, tensors)
    try:
        layout = Layout.of({name: tensor.shape for name, tensor in tensors.items()})
        flags = Flags.published(layout).updated(file.documents)
        network = _network(layout, flags, tensors)
        size = flags.image_size or layout.multiple * 8
        with torch.device("meta"):  # do the layers fit one another?
            network.to("meta")(torch.empty(1, layout.channels, size, size), 0.0)
    except (KeyError, IndexError, ValueError, RuntimeError) as error:
        raise CaaError(
            f"--denoiser {file.path} has the names of a diffusion U-Net, but its tensors and flags don't make one "
            f"({short(error, 200)})",
            "copy the file again; flags such as num_heads that are not as published go into a JSON file beside the "
            "weights, in a folder that --denoiser names",
        ) from error
    steps = flags.alpha_bars()

    def build(sigma: float) -> nn.Module:
        step = first_step(steps, sigma)
        prediction = SAMPLE if flags.predict_xstart else EPSILON
        return OneStep(_network(layout, flags, tensors), step, flags.timestep(step.number), prediction).eval()

    weights = sum(tensor.numel() for tensor in tensors.values()) / 1e6
    return Denoiser(
        family="openai-diffusion",
        arch=f"one-step diffusion, U-Net of {weights:.3g} M weights, {flags.noise_schedule} schedule of "
        f"{flags.diffusion_steps:,} steps",
        channels=layout.channels,
        build=build,
        size=flags.image_size,
        multiple=layout.multiple,
    )


def _network(layout: Layout, flags: Flags, tensors: Mapping[str, Tensor]) -> UNet:
    """Raises RuntimeError where tensors are missing, or are too many or of the wrong shape."""
    with torch.device("meta"):
        network = layout.build(flags.heads, heads_first=not flags.use_new_attention_order)
    network.load_state_dict({name: tensor.detach().float() for name, tensor in tensors.items()}, assign=True)
    return network


def _refuse_conditional(file: DenoiserFile, tensors: Mapping[str, Tensor]) -> None:
    """Raise UsageError for a U-Net that denoises only with more than the noisy image."""
    channels, outputs = tensors[FIRST].shape[1], tensors.get("out.2.weight", tensors[FIRST]).shape[0]
    what = None
    if "label_emb.weight" in tensors:
        what = "is class-conditional: it has to be told the class that a denoiser must not know"
    elif any("transformer_blocks" in name for name in tensors):
        what = "is conditioned on text"
    elif not any(name.startswith("output_blocks.") for name in tensors):
        what = "is the classifier of noisy images that guides a diffusion model, not the model"
    elif outputs not in (channels, 2 * channels):
        what = f"takes {channels} channels and returns {outputs}: a super-resolution model, or one of latent images"
    if what is not None:
        raise UsageError(
            f"the diffusion U-Net in --denoiser {file.path} {what}",
            "take an unconditional one, such as cifar10_uncond_50M_500K.pt or 256x256_diffusion_uncond.pt",
        )

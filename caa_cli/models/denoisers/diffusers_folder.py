"""Diffusion models in folders of the `diffusers` library: a UNet2DModel with the configuration of its scheduler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from caa_cli.config.ranges import Range
from caa_cli.config.schema import Count, Positive, SchemaError, Share, check
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.denoisers.one_step import EPSILON, OneStep, first_step
from caa_cli.models.denoisers.schedules import (
    alpha_bars,
    cosine_betas,
    ending_in_noise,
    linear_betas,
    scaled_linear_betas,
)
from caa_cli.models.limits import short

_UNET = "UNet2DModel"
# Tensors of any U-Net of the library.
_NAMES = {"conv_in.weight", "time_embedding.linear_1.weight", "conv_out.weight"}
# Layers of attention as files of before 2023 name them.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)")


@dataclass(frozen=True)
class Scheduler:
    """What a `scheduler_config.json` says of the forward process, by the library's names and defaults."""

    num_train_timesteps: Annotated[int, Range(1, 10**5)] = 1000
    beta_schedule: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    beta_start: Share = 0.0001
    beta_end: Share = 0.02
    trained_betas: list[Share] | None = None
    prediction_type: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    clip_sample: bool = True
    clip_sample_range: Positive = 1.0
    rescale_betas_zero_snr: bool = False

    @staticmethod
    def of(document: Mapping[str, Any]) -> Scheduler:
        """Raises SchemaError for a process that is not of steps with β, or that this code doesn't know."""
        if "beta_schedule" not in document and document.get("trained_betas") is None:
            raise SchemaError("is missing", "beta_schedule")
        check(dict(document), Scheduler)
        names = {field.name for field in fields(Scheduler)}
        return Scheduler(**{name: value for name, value in document.items() if name in names})

    def alpha_bars(self) -> Tensor:
        """ᾱ of each step, float64."""
        if self.trained_betas is not None:
            betas = torch.tensor(self.trained_betas, dtype=torch.float64)
        elif self.beta_schedule == "squaredcos_cap_v2":
            betas = cosine_betas(self.num_train_timesteps)
        else:
            kind = linear_betas if self.beta_schedule == "linear" else scaled_linear_betas
            betas = kind(self.num_train_timesteps, self.beta_start, self.beta_end)
        left = alpha_bars(betas)
        return ending_in_noise(left) if self.rescale_betas_zero_snr else left


class DiffusersUNet(nn.Module):
    """(images, timestep) → the prediction of a UNet2DModel.

    checkpointed: blocks keep their inputs alone for the backward pass, which computes the rest again.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    @property
    def checkpointed(self) -> bool:
        return bool(self.unet.is_gradient_checkpointing)

    @checkpointed.setter
    def checkpointed(self, on: bool) -> None:
        self.unet.enable_gradient_checkpointing() if on else self.unet.disable_gradient_checkpointing()

    def forward(self, x: Tensor, timestep: float) -> Tensor:
        # Filled on the device: no copy there that the pass would wait for.
        steps = torch.full((len(x),), int(timestep), device=x.device)
        out: Tensor = self.unet(x, steps, return_dict=False)[0]
        return out


def recognise(file: DenoiserFile) -> Denoiser | None:
    """The diffusion model in a folder; None if there is none of the library's.

    Raises UsageError where a part is missing, the model wants more than a noisy image, or `diffusers` is not installed.
    """
    configs = {name: document for name, document in file.documents.items() if isinstance(document, dict)}
    classes = {str(document.get("_class_name")): document for document in configs.values()}
    if not (_NAMES <= file.weights.tensors.keys() or _UNET in classes):
        return None
    config = _unet_config(file, classes)
    schedulers = [document for name, document in configs.items() if name.endswith("scheduler_config.json")]
    if len(schedulers) != 1:
        what = "no scheduler_config.json" if not schedulers else f"{len(schedulers)} files scheduler_config.json"
        raise _half(file, f"{what}: the noise that the U-Net expects at each step is not known")
    try:
        scheduler = Scheduler.of(schedulers[0])
    except SchemaError as error:
        raise UsageError(
            f"--denoiser {file.path}: scheduler_config.json describes noise that caa doesn't know ({error})",
            "take a model with the scheduler that it was trained with, such as DDPMScheduler",
        ) from error
    unet_class = _library()
    size = config.get("sample_size")
    steps = scheduler.alpha_bars()
    channels = config.get("in_channels", 3)

    def build(sigma: float) -> nn.Module:
        step = first_step(steps, sigma)
        unet = _with_weights(unet_class, config, file)
        clip = scheduler.clip_sample_range if scheduler.clip_sample else None
        return OneStep(DiffusersUNet(unet), step, step.number, scheduler.prediction_type, clip).eval()

    weights = sum(tensor.numel() for tensor in file.weights.tensors.values()) / 1e6
    return Denoiser(
        family="diffusers",
        arch=f"one-step diffusion, {_UNET} of {weights:.3g} M weights, {scheduler.beta_schedule} schedule of "
        f"{len(steps):,} steps",
        channels=channels,
        build=build,
        size=size if isinstance(size, int) else None,
        multiple=2 ** (len(config.get("block_out_channels", ())) - 1),
    )

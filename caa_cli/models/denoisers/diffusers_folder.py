"""Diffusion models in folders of the `diffusers` library: a UNet2DModel with the configuration of its scheduler."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict

import torch
from torch import Tensor, nn

from caa_cli.config.ranges import Range
from caa_cli.config.schema import PositiveFloat, PositiveInt, SchemaError, Share, check, dataclass_from
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.denoisers.denoiser import Denoiser, DenoiserFile
from caa_cli.models.denoisers.one_step import Diffusion, millions, one_step_denoiser
from caa_cli.models.denoisers.schedules import (
    alpha_bars,
    cosine_betas,
    ending_in_noise,
    linear_betas,
    scaled_linear_betas,
)
from caa_cli.models.fit import refuse_integers
from caa_cli.models.limits import short
from caa_cli.runtime.words import counted

_UNET = "UNet2DModel"
# Tensors of any U-Net of the library.
_NAMES = {"conv_in.weight", "time_embedding.linear_1.weight", "conv_out.weight"}
# Layers of attention as files of before 2023 name them.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD = re.compile(r"(?<=\.)(query|key|value|proj_attn)(?=\.(weight|bias)$)")


class UNetConfig(TypedDict):
    """What a `config.json` says of the U-Net's images; the library reads the rest."""

    in_channels: PositiveInt
    out_channels: PositiveInt
    block_out_channels: list[PositiveInt]


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
    clip_sample_range: PositiveFloat = 1.0
    rescale_betas_zero_snr: bool = False

    @staticmethod
    def of(document: dict[str, Any]) -> Scheduler:
        """Raises SchemaError for a process that is not of steps with β, or that this code doesn't know."""
        if "beta_schedule" not in document and document.get("trained_betas") is None:
            raise SchemaError("is missing", "beta_schedule")
        scheduler = dataclass_from(document, Scheduler)
        if not (scheduler.diffusion.alpha_bars > 0).any():
            raise SchemaError("leave nothing of an image after the first step", "its betas")
        return scheduler

    @property
    def diffusion(self) -> Diffusion:
        return Diffusion(
            alpha_bars=self._alpha_bars(),
            schedule="trained" if self.trained_betas is not None else self.beta_schedule,
            prediction=self.prediction_type,
            clip=self.clip_sample_range if self.clip_sample else None,
        )

    def _alpha_bars(self) -> Tensor:
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
    """(images, timestep) → the prediction of a UNet2DModel."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, timestep: float) -> Tensor:
        # Filled on the device: no copy there that the pass would wait for.
        steps = torch.full((len(x),), int(timestep), device=x.device)
        out: Tensor = self.unet(x, steps, return_dict=False)[0]
        return out


def recognise(file: DenoiserFile) -> Denoiser | None:
    """The diffusion model in a folder; None if there is none of the library's.

    Raises UsageError where a part is missing or the model wants more than a noisy image, and CaaError where the
    library is missing or the parts don't fit.
    """
    documents = {name: document for name, document in file.documents.items() if isinstance(document, dict)}
    configs = {str(document.get("_class_name")): document for document in documents.values()}
    if not (file.weights.tensors.keys() >= _NAMES or _UNET in configs):
        return None
    config = _unet_config(file, configs)
    diffusion = _scheduler(file, documents).diffusion
    _unet(file, config, device="meta")  # do they fit?
    size = config.get("sample_size")
    if isinstance(size, list) and len(set(size)) == 1:
        size = size[0]
    return one_step_denoiser(
        diffusion,
        lambda: DiffusersUNet(_unet(file, config)),
        family="diffusers",
        arch=f"{_UNET} of {millions(file.weights.tensors)}",
        channels=config["in_channels"],
        size=size if isinstance(size, int) else None,
        multiple=2 ** (len(config["block_out_channels"]) - 1),
    )


def _unet_config(file: DenoiserFile, configs: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of the U-Net. Raises UsageError if there is none, or it is of a conditional U-Net."""
    other = next((name for name in configs if "UNet" in name and name != _UNET), None)
    if _UNET not in configs and other is None:
        raise _half(file, "no config.json of a UNet2DModel")
    config: dict[str, Any] = configs.get(_UNET, {})
    wants = None if config else f"it is a {other}"
    if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        wants = "it has to be told the class"
    if wants is not None:
        raise UsageError(
            f"the diffusion model in {file.path} is conditional, and a denoiser has the noisy image alone ({wants})",
            f"take an unconditional {_UNET}, such as a DDPM of the images that the classifier is for",
        )
    try:
        check(config, UNetConfig)
    except SchemaError as error:
        raise CaaError(f"the config.json of {file.path} can't be used ({error})", "copy the folder again") from error
    channels, outputs = config["in_channels"], config["out_channels"]
    if outputs not in (channels, 2 * channels):
        raise UsageError(
            f"the U-Net in {file.path} takes {counted(channels, 'channel')} and returns {outputs}, as models for "
            "super-resolution do",
            f"take an unconditional {_UNET}, such as a DDPM of the images that the classifier is for",
        )
    return config


def _scheduler(file: DenoiserFile, documents: Mapping[str, dict[str, Any]]) -> Scheduler:
    """Raises UsageError if there is not one scheduler, or none that is known."""
    configs = [document for name, document in documents.items() if name.endswith("scheduler_config.json")]
    if len(configs) != 1:
        raise _half(file, f"{len(configs) or 'no'} scheduler_config.json, which says how much noise each step has")
    try:
        return Scheduler.of(configs[0])
    except SchemaError as error:
        raise UsageError(
            f"the scheduler_config.json of {file.path} describes noise that caa doesn't know ({error})",
            "take the scheduler that the U-Net was trained with, such as DDPMScheduler",
        ) from error


def _half(file: DenoiserFile, what: str) -> UsageError:
    return UsageError(
        f"the diffusion model {file.path} holds {what}",
        "name the folder with the U-Net's config.json, scheduler_config.json and the weights, as "
        "DDPMPipeline.save_pretrained writes it (its folders unet and scheduler, not one of them)",
    )


def _unet(file: DenoiserFile, config: Mapping[str, Any], device: str = "cpu") -> nn.Module:
    """The U-Net with its weights, made on this device. Raises CaaError where config and weights don't fit."""
    unet_class = _library_class()
    stored = {_OLD.sub(_renamed, name): tensor.detach() for name, tensor in file.weights.tensors.items()}
    try:
        with torch.device(device):
            unet: nn.Module = unet_class.from_config(dict(config))
        refuse_integers(file.weights.path, stored, unet.state_dict())
        unet.load_state_dict({name: tensor.float() for name, tensor in stored.items()}, assign=True)
    except CaaError:
        raise
    except Exception as error:  # the library raises whatever its blocks do
        raise CaaError(
            f"the weights and the config.json of {file.path} don't make a {_UNET} ({short(error, 200)})",
            "copy the folder again, or update diffusers: pip install -U 'caa-cli[diffusion]'",
        ) from error
    return unet


def _renamed(match: re.Match[str]) -> str:
    return _RENAMED[match[1]]


def _library_class() -> Any:
    try:
        from diffusers import UNet2DModel
    except ImportError as error:
        raise CaaError(
            f"a folder of a diffusion model needs the diffusers library ({short(error, 200)})",
            "pip install 'caa-cli[diffusion]'",
        ) from error
    return UNet2DModel

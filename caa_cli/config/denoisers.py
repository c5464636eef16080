"""The families of denoisers: a row of `DENOISERS` each. Nothing else in the package lists them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DenoiserSpec:
    """title: with its paper.  recognised_by: what a file of it holds, in words.  runs: `module:function`, which takes
    a `DenoiserFile` and returns its `Denoiser`, or None where the file holds something else."""

    title: str
    recognised_by: str
    runs: str


DENOISERS: dict[str, DenoiserSpec] = {
    "dncnn": DenoiserSpec(
        "DnCNN (Zhang et al., 2017; Salman et al., 2020)",
        "dncnn.0.weight, dncnn.2.weight, …",
        "caa_cli.models.denoisers.dncnn:recognise",
    ),
    "ffdnet": DenoiserSpec(
        "FFDNet (Zhang et al., 2018)",
        "model.0.weight with 4 channels per image channel, and one for σ",
        "caa_cli.models.denoisers.ffdnet:recognise",
    ),
    "openai-diffusion": DenoiserSpec(
        "one diffusion step (Carlini et al., 2023), U-Net of Dhariwal and Nichol (2021)",
        "input_blocks.0.0.weight, time_embed.0.weight, …",
        "caa_cli.models.denoisers.openai_diffusion:recognise",
    ),
    "diffusers": DenoiserSpec(
        "one diffusion step (Carlini et al., 2023), UNet2DModel of the diffusers library",
        "a folder with config.json, scheduler_config.json and weights",
        "caa_cli.models.denoisers.diffusers_folder:recognise",
    ),
}

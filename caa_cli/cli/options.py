"""The options of the commands: settings of a plan, as it declares them, and those that are written here.

The latter are texts that a plan has as something else (`cli.layers`), what several plans have alike, and what is no
setting of a plan at all.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from caa_cli.cli import completion
from caa_cli.cli.generate import COMPUTE, DATA, METHOD, RUN, SEARCH, Options, option, options_of, plan_setting
from caa_cli.cli.toml import load_config
from caa_cli.config.choices import NORMALISATIONS
from caa_cli.config.datasets import those_that
from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.settings import settings_of

Config = Annotated[
    Path | None,
    option(
        callback=load_config,
        is_eager=True,
        metavar="FILE.toml",
        help="Settings from a TOML file; environment variables and flags override them.",
        panel=RUN,
    ),
]
Json = Annotated[
    bool, option("--json", help="Print the result as JSON on stdout, and nothing else there.", panel=RUN)
]
Quiet = Annotated[bool, option("--quiet", help="Show only warnings and errors.", panel=RUN)]
Overwrite = Annotated[bool, option("--overwrite", help="Replace the files of an earlier run.", panel=RUN)]
Require = Annotated[
    list[str] | None,
    option(metavar="'FIELD>=N'", help="Exit with code 4 unless the result meets this; may be repeated.", panel=RUN),
]


def _written(
    checkpoint: Annotated[
        list[str] | None,
        option(
            metavar="FILE",
            help="The model to work on, or `demo`: one that comes with caa. Several make an ensemble.",
            panel=DATA,
            choices=completion.checkpoints,
        ),
    ] = None,
    classifier_size: Annotated[
        int | None,
        option(
            metavar="N",
            help="Resize noisy, or denoised, images to N×N for the model.",
            show_default="behind a denoiser, the checkpoint's",
            panel=DATA,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None, option(metavar="DIR", help="The folder that holds the data set.", panel=DATA)
    ] = None,
    download: Annotated[
        bool,
        option("--download", help=f"First download what is missing ({those_that('downloads')}).", panel=DATA),
    ] = False,
    image_size: Annotated[
        int | None,
        option(
            metavar="N",
            help=f"Resize and crop to N×N ({those_that('resized')}).",
            show_default="the checkpoint's, or 224; a folder's own size",
            panel=DATA,
        ),
    ] = None,
    indices: Annotated[
        str | None,
        option(
            metavar="3,17,20-25|FILE",
            help="Only these images; or those listed in a file, one index per line.",
            panel=DATA,
        ),
    ] = None,
    normalisation: Annotated[
        str | None,
        option(
            metavar="NAME",
            help=f"How images are normalised, after noise is added: {', '.join(NORMALISATIONS)}.",
            show_default="the checkpoint's",
            panel=DATA,
            choices=NORMALISATIONS,
        ),
    ] = None,
    mean: Annotated[
        str | None,
        option(
            metavar="M[,M…]",
            help="Mean per channel, instead of --normalisation.",
            show_default="the checkpoint's",
            panel=DATA,
        ),
    ] = None,
    std: Annotated[
        str | None,
        option(
            metavar="S[,S…]",
            help="Standard deviation per channel, instead of --normalisation.",
            show_default="the checkpoint's",
            panel=DATA,
        ),
    ] = None,
    trust_checkpoint: Annotated[
        bool,
        option(
            "--trust-checkpoint",
            help="Allow a file whose loading runs code in it (TorchScript, a pickled network).",
            panel=DATA,
        ),
    ] = False,
    trust_attack: Annotated[
        bool,
        option(
            "--trust-attack",
            help="Run the code of an attack that a configuration file or an environment variable names.",
            panel=SEARCH,
        ),
    ] = False,
    classifier: Annotated[
        str | None,
        option(
            metavar="FILE",
            help="denoiser: the classifier to defend, which stays as it is.",
            show_default="none",
            panel=METHOD,
            choices=completion.checkpoints,
        ),
    ] = None,
    classifier_normalisation: Annotated[
        str | None,
        option(
            metavar="NAME",
            help="denoiser: how the classifier normalises images.",
            show_default="the checkpoint's",
            panel=METHOD,
            choices=NORMALISATIONS,
        ),
    ] = None,
    classifier_mean: Annotated[
        str | None,
        option(
            metavar="M[,M…]", help="denoiser: mean per channel, instead of --classifier-normalisation.", panel=METHOD
        ),
    ] = None,
    classifier_std: Annotated[
        str | None,
        option(
            metavar="S[,S…]",
            help="denoiser: standard deviation per channel, instead of --classifier-normalisation.",
            panel=METHOD,
        ),
    ] = None,
    device: Annotated[
        str,
        option(
            help="auto (a GPU if there is one), cpu, cuda, or for instance cuda:1.",
            panel=COMPUTE,
            choices=("auto", "cpu", "cuda"),
        ),
    ] = ModelPlan.device,
    batch_size: Annotated[
        str, option(help="Images to attack at the same time.", panel=COMPUTE, choices=("auto",))
    ] = "auto",
    chunk_size: Annotated[
        str,
        option(
            metavar="auto|measure|N",
            help="Noise samples per forward pass; measure: find the fastest number again.",
            panel=COMPUTE,
            choices=("auto", "measure"),
        ),
    ] = "auto",
    max_memory: Annotated[
        str | None,
        option(metavar="4GiB", help="Keep the device's memory below this.", show_default="all", panel=COMPUTE),
    ] = None,
    seed: Annotated[int, option(help="Seed of every random draw.", panel=RUN)] = ModelPlan.seed,
    shard: Annotated[
        str,
        option(
            metavar="K/N|auto",
            help="Do part K of N of the images (K counts from 0); auto: as torchrun or Slurm number their processes.",
            panel=RUN,
            choices=completion.shards,
        ),
    ] = "0/1",
    config: Config = None,
    require: Require = None,
    json: Json = False,
    quiet: Quiet = False,
    resume: Annotated[bool, option("--resume", help="Continue an interrupted run.", panel=RUN)] = False,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool,
        option(
            "--dry-run",
            help="Only load the model, time one batch and show how long it would take; no result is written.",
            panel=RUN,
        ),
    ] = False,
) -> None:
    """The options that no plan declares."""


_WRITTEN = options_of(_written)

# The options of every run over images with a smoothed model: which model it is, and which images; and how it goes on.
MODEL_AND_IMAGES = (
    *("checkpoint", "ensemble", "denoiser", "denoiser_arch", "classifier_size", "sigma", "dataset", "data_dir"),
    *("download", "split", "image_size", "limit", "skip", "every", "indices", "arch", "normalisation", "mean", "std"),
    "trust_checkpoint",
)
RUNNING = ("seed", "shard", "config", "require", "json", "quiet", "resume", "overwrite", "dry_run")


def of(plan: type[Any], panel: str, names: Iterable[str]) -> Options:
    """The options of these names, those that the plan declares in this panel of the help."""
    declared = {setting.field: setting for setting in settings_of(plan) if setting.help}
    return {name: plan_setting(declared[name], panel) if name in declared else _WRITTEN[name] for name in names}

"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from caa_cli.cli import completion
from caa_cli.cli.generate import COMPUTE, DATA, RUN, SEARCH, option
from caa_cli.cli.toml import load_config
from caa_cli.config.choices import ARCHITECTURES, DEMO_LIMIT, DTYPES, ENSEMBLES, LOGITS, NORMALISATIONS, SPLITS
from caa_cli.config.datasets import DATASETS, those_that
from caa_cli.config.denoisers import DENOISERS
from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.presets import PRESETS

_MODEL: dict[str, Any] = {
    "metavar": "FILE",
    "help": "The model to work on, or `demo`: one that comes with caa. Several make an ensemble.",
    "panel": DATA,
    "choices": completion.checkpoints,
}
Checkpoint = Annotated[list[str] | None, option(**_MODEL)]
Ensemble = Annotated[
    str | None,
    option(
        metavar="|".join(ENSEMBLES),
        help="What several checkpoints make together: the mean of their logits or softmax, or the majority.",
        show_default=LOGITS,
        panel=DATA,
        choices=ENSEMBLES,
    ),
]
Denoiser = Annotated[
    Path | None,
    option(
        metavar="FILE|FOLDER",
        help=f"A denoiser in front of the model, recognised by content: {', '.join(DENOISERS)}.",
        panel=DATA,
    ),
]
DenoiserArch = Annotated[
    str | None,
    option(
        metavar="package.module:factory",
        help="A denoiser of your own (or file.py:factory), with the weights of --denoiser or its own.",
        panel=DATA,
    ),
]
ClassifierSize = Annotated[
    int | None,
    option(
        metavar="N",
        help="Resize noisy, or denoised, images to N×N for the model.",
        show_default="behind a denoiser, the checkpoint's",
        panel=DATA,
    ),
]
Sigma = Annotated[
    float | None,
    option(
        help="Standard deviation of the smoothing noise, for pixels in [0, 1].",
        show_default="the checkpoint's",
        panel=DATA,
    ),
]
Dataset = Annotated[
    str | None,
    option(help=f"One of: {', '.join(DATASETS)}.", show_default="the checkpoint's", panel=DATA, choices=DATASETS),
]
Split = Annotated[
    str, option(help="test (for ImageNet, the validation images) or train.", panel=DATA, choices=SPLITS)
]
Limit = Annotated[
    int | None, option(help="Most images to work on.", show_default=f"all; {DEMO_LIMIT} of the demo", panel=DATA)
]
Skip = Annotated[int, option(help="Leave out this many images at the start.", panel=DATA)]
Every = Annotated[int, option(metavar="N", help="Only every N-th image, from --skip on.", panel=DATA)]
Indices = Annotated[
    str | None,
    option(
        metavar="3,17,20-25|FILE",
        help="Only these images; or those listed in a file, one index per line.",
        panel=DATA,
    ),
]
ImageSize = Annotated[
    int | None,
    option(
        metavar="N",
        help=f"Resize and crop to N×N ({those_that('resized')}).",
        show_default="the checkpoint's, or 224; a folder's own size",
        panel=DATA,
    ),
]
Download = Annotated[
    bool, option("--download", help=f"First download what is missing ({those_that('downloads')}).", panel=DATA)
]
Arch = Annotated[
    str | None,
    option(
        help=f"Architecture: {', '.join(ARCHITECTURES)}, timm:NAME, torchvision:NAME, or package.module:factory.",
        show_default="the checkpoint's, or recognised",
        panel=DATA,
        choices=ARCHITECTURES,
    ),
]
Normalisation = Annotated[
    str | None,
    option(
        metavar="NAME",
        help=f"How images are normalised, after noise is added: {', '.join(NORMALISATIONS)}.",
        show_default="the checkpoint's",
        panel=DATA,
        choices=NORMALISATIONS,
    ),
]
Mean = Annotated[
    str | None,
    option(
        metavar="M[,M…]",
        help="Mean per channel, instead of --normalisation.",
        show_default="the checkpoint's",
        panel=DATA,
    ),
]
Std = Annotated[
    str | None,
    option(
        metavar="S[,S…]",
        help="Standard deviation per channel, instead of --normalisation.",
        show_default="the checkpoint's",
        panel=DATA,
    ),
]
TrustCheckpoint = Annotated[
    bool,
    option(
        "--trust-checkpoint",
        help="Allow a file whose loading runs code in it (TorchScript, a pickled network).",
        panel=DATA,
    ),
]
PresetName = Annotated[
    str | None,
    option(
        help=f"Published settings, for options that are not given: {', '.join(PRESETS)}.",
        show_default="none",
        panel=SEARCH,
        choices=PRESETS,
    ),
]
TrustAttack = Annotated[
    bool,
    option(
        "--trust-attack",
        help="Run the code of an attack that a configuration file or an environment variable names.",
        panel=SEARCH,
    ),
]
Dtype = Annotated[str, option(help=f"Precision of the model: {', '.join(DTYPES)}.", panel=COMPUTE, choices=DTYPES)]
ChunkSize = Annotated[
    str,
    option(
        metavar="auto|measure|N",
        help="Noise samples per forward pass; measure: find the fastest number again.",
        panel=COMPUTE,
        choices=("auto", "measure"),
    ),
]
MaxMemory = Annotated[
    str | None, option(metavar="4GiB", help="Keep the device's memory below this.", show_default="all", panel=COMPUTE)
]
ShardOption = Annotated[
    str,
    option(
        metavar="K/N|auto",
        help="Do part K of N of the images (K counts from 0); auto: as torchrun or Slurm number their processes.",
        panel=RUN,
        choices=completion.shards,
    ),
]
DataDir = Annotated[Path | None, option(metavar="DIR", help="The folder that holds the data set.", panel=DATA)]
Device = Annotated[
    str,
    option(
        help="auto (a GPU if there is one), cpu, cuda, or for instance cuda:1.",
        panel=COMPUTE,
        choices=("auto", "cpu", "cuda"),
    ),
]
Seed = Annotated[int, option(help="Seed of every random draw.", panel=RUN)]
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
Resume = Annotated[bool, option("--resume", help="Continue an interrupted run.", panel=RUN)]
Overwrite = Annotated[bool, option("--overwrite", help="Replace the files of an earlier run.", panel=RUN)]
Require = Annotated[
    list[str] | None,
    option(metavar="'FIELD>=N'", help="Exit with code 4 unless the result meets this; may be repeated.", panel=RUN),
]
DryRun = Annotated[
    bool,
    option(
        "--dry-run",
        help="Only load the model, time one batch and show how long it would take; nothing is written.",
        panel=RUN,
    ),
]


def model_and_images(
    checkpoint: Checkpoint = None,
    ensemble: Ensemble = None,
    denoiser: Denoiser = None,
    denoiser_arch: DenoiserArch = None,
    classifier_size: ClassifierSize = None,
    sigma: Sigma = None,
    dataset: Dataset = None,
    data_dir: DataDir = None,
    download: Download = False,
    split: Split = ModelPlan.split,
    image_size: ImageSize = None,
    limit: Limit = None,
    skip: Skip = ModelPlan.skip,
    every: Every = ModelPlan.every,
    indices: Indices = None,
    arch: Arch = None,
    normalisation: Normalisation = None,
    mean: Mean = None,
    std: Std = None,
    trust_checkpoint: TrustCheckpoint = False,
) -> None:
    """The options that say which model a run is on, and which images of which data set."""


def run(
    seed: Seed = ModelPlan.seed,
    shard: ShardOption = "0/1",
    config: Config = None,
    require: Require = None,
    json: Json = False,
    quiet: Quiet = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
) -> None:
    """The options that say how a run over images goes on, and what it shows."""

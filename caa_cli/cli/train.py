"""`caa train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_cli.cli import completion, generate, layers, options, running
from caa_cli.cli.environment import is_typed
from caa_cli.cli.generate import option
from caa_cli.config.choices import (
    ARCHITECTURES,
    DENOISER_ARCHITECTURES,
    NORMALISATIONS,
    TRAINING_DTYPES,
)
from caa_cli.config.datasets import DATASETS
from caa_cli.config.methods import METHODS
from caa_cli.config.ranges import flag
from caa_cli.config.recipes import RECIPES
from caa_cli.config.train_plan import TrainPlan
from caa_cli.errors import UsageError
from caa_cli.runtime.collector import importing

_MODEL, _RUN, _METHOD = generate.DATA, generate.RUN, generate.METHOD
_TRAINING = (
    *("epochs", "batch_size", "optimizer", "learning_rate", "momentum", "weight_decay", "schedule", "step_epochs"),
    *("clip_norm", "augment", "heldout", "evaluate_samples", "evaluate_limit"),
)


@running.guarded
@generate.with_options(generate.method_settings(), before="classifier")
@generate.with_options(generate.plan_settings(TrainPlan, "Training", _TRAINING), before="device")
def train(
    context: typer.Context,
    recipe: Annotated[
        str | None,
        option(
            help=f"Settings of a published model, for options that are not given: {', '.join(RECIPES)}.",
            show_default="none",
            panel=_MODEL,
            choices=RECIPES,
        ),
    ] = None,
    dataset: Annotated[
        str, option(help=f"One of: {', '.join(DATASETS)}.", panel=_MODEL, choices=DATASETS)
    ] = TrainPlan.dataset,
    data_dir: options.DataDir = None,
    download: options.Download = False,
    image_size: options.ImageSize = None,
    arch: Annotated[
        str | None,
        option(
            help=f"Architecture: {', '.join(ARCHITECTURES)}, or package.module:factory; of a denoiser: "
            f"{', '.join(DENOISER_ARCHITECTURES)}.",
            show_default="small-cnn; of a denoiser dncnn",
            panel=_MODEL,
            choices=(*ARCHITECTURES, *DENOISER_ARCHITECTURES),
        ),
    ] = None,
    normalisation: Annotated[
        str | None,
        option(
            help=f"How images are normalised, after noise is added: {', '.join(NORMALISATIONS)}.",
            show_default="the data set's",
            panel=_MODEL,
            choices=NORMALISATIONS,
        ),
    ] = None,
    sigma: Annotated[
        float, option(help="Standard deviation of the noise to train for, for pixels in [0, 1].", panel=_MODEL)
    ] = TrainPlan.sigma,
    method: Annotated[
        str, option(help=f"Training method: {', '.join(METHODS)}.", panel=_METHOD, choices=METHODS)
    ] = TrainPlan.method,
    classifier: Annotated[
        str | None,
        option(
            metavar="FILE",
            help="denoiser: the classifier to defend, which stays as it is.",
            show_default="none",
            panel=_METHOD,
            choices=completion.checkpoints,
        ),
    ] = None,
    classifier_arch: Annotated[
        str | None,
        option(
            metavar="NAME",
            help="denoiser: the classifier's architecture.",
            show_default="the checkpoint's, or recognised",
            panel=_METHOD,
            choices=ARCHITECTURES,
        ),
    ] = None,
    classifier_normalisation: Annotated[
        str | None,
        option(
            metavar="NAME",
            help="denoiser: how the classifier normalises images.",
            show_default="the checkpoint's",
            panel=_METHOD,
            choices=NORMALISATIONS,
        ),
    ] = None,
    classifier_mean: Annotated[
        str | None,
        option(
            metavar="M[,M…]", help="denoiser: mean per channel, instead of --classifier-normalisation.", panel=_METHOD
        ),
    ] = None,
    classifier_std: Annotated[
        str | None,
        option(
            metavar="S[,S…]",
            help="denoiser: standard deviation per channel, instead of --classifier-normalisation.",
            panel=_METHOD,
        ),
    ] = None,
    classifier_size: options.ClassifierSize = None,
    trust_checkpoint: options.TrustCheckpoint = False,
    device: options.Device = TrainPlan.device,
    dtype: Annotated[
        str,
        option(
            help=f"Precision of forward and backward passes: {', '.join(TRAINING_DTYPES)}.",
            panel=generate.COMPUTE,
            choices=TRAINING_DTYPES,
        ),
    ] = TrainPlan.dtype,
    channels_last: Annotated[
        bool,
        option("--channels-last/--no-channels-last", help="Memory layout of images.", panel=generate.COMPUTE),
    ] = TrainPlan.channels_last,
    workers: Annotated[
        int,
        option(
            help="Processes that decode images, for data sets that are not held in memory.", panel=generate.COMPUTE
        ),
    ] = TrainPlan.workers,
    output: Annotated[
        Path, option(metavar="FILE.safetensors", help="Where to write the checkpoint.", panel=_RUN)
    ] = TrainPlan.output,
    seed: options.Seed = TrainPlan.seed,
    config: options.Config = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    **given: Any,
) -> None:
    """Train a classifier for randomised smoothing, or a denoiser in front of one; the other commands read it."""
    plan = layers.plan_of(TrainPlan, layers.with_recipe(context, locals() | given))
    _check_effect(context, plan, "momentum", "optimizer", "sgd")
    _check_effect(context, plan, "step_epochs", "schedule", "step")
    from caa_cli.display import Display

    with importing():
        from caa_cli.run.train import TrainRun

    raise typer.Exit(TrainRun(plan, Display(quiet, json), running.resume_command()).execute())


def _check_effect(context: typer.Context, plan: TrainPlan, name: str, choice: str, owner: str) -> None:
    """Raises UsageError for an option that was typed, but is of another choice; a recipe or a file may hold it."""
    chosen, of = getattr(plan, choice), f"{flag(choice)} {owner}"
    if chosen != owner and is_typed(context, name):
        raise UsageError(f"{flag(name)} is a setting of {of}, not of {chosen}", f"leave it out, or add {of}")

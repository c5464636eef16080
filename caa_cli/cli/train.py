"""`caa train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from caa_cli.cli import completion, generate, layers, options, running
from caa_cli.cli.generate import option
from caa_cli.config.choices import (
    ARCHITECTURES,
    AUGMENTATIONS,
    DENOISER_ARCHITECTURES,
    NORMALISATIONS,
    OPTIMIZERS,
    SCHEDULES,
    TRAINING_DTYPES,
)
from caa_cli.config.datasets import DATASETS
from caa_cli.config.methods import METHODS
from caa_cli.config.recipes import RECIPES
from caa_cli.config.train_plan import TrainPlan
from caa_cli.runtime.collector import importing

_MODEL, _RUN, _METHOD, _TRAINING = generate.DATA, generate.RUN, generate.METHOD, "Training"

# What `--augment auto` stands for, by data set.
_AUTO = ", ".join(f"{spec.augment} for {name}" for name, spec in DATASETS.items() if spec.augment != "none")


@running.guarded
@generate.with_options(generate.method_settings(), before="classifier")
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
    epochs: Annotated[int, option(help="Passes over the images.", panel=_TRAINING)] = TrainPlan.epochs,
    batch_size: Annotated[int, option(help="Images per step.", panel=_TRAINING)] = TrainPlan.batch_size,
    optimizer: Annotated[
        str, option(help=f"{' or '.join(OPTIMIZERS)}.", panel=_TRAINING, choices=OPTIMIZERS)
    ] = TrainPlan.optimizer,
    learning_rate: Annotated[
        float, option(help="Learning rate at the start.", panel=_TRAINING)
    ] = TrainPlan.learning_rate,
    momentum: Annotated[float, option(help="Momentum of sgd.", panel=_TRAINING)] = TrainPlan.momentum,
    weight_decay: Annotated[
        float, option(help="Weight decay (L2 penalty).", panel=_TRAINING)
    ] = TrainPlan.weight_decay,
    schedule: Annotated[
        str,
        option(help=f"Schedule of the learning rate: {', '.join(SCHEDULES)}.", panel=_TRAINING, choices=SCHEDULES),
    ] = TrainPlan.schedule,
    step_epochs: Annotated[
        int, option(help="With --schedule step: epochs between divisions of the rate by 10.", panel=_TRAINING)
    ] = TrainPlan.step_epochs,
    clip_norm: Annotated[
        float | None, option(help="Clip gradients to this L2 norm.", show_default="none", panel=_TRAINING)
    ] = None,
    augment: Annotated[
        str,
        option(
            help=f"Augmentation: {', '.join(AUGMENTATIONS)}; auto: {_AUTO}.",
            panel=_TRAINING,
            choices=AUGMENTATIONS,
        ),
    ] = TrainPlan.augment,
    heldout: Annotated[
        int | None,
        option(
            help="Training images kept back to choose the best epoch by; 0: keep the last epoch.",
            show_default="a tenth, at most 5000",
            panel=_TRAINING,
        ),
    ] = None,
    evaluate_samples: Annotated[
        int,
        option(
            help="Noise samples per test image, to measure smoothed accuracy at the end; 0: don't.",
            panel=_TRAINING,
        ),
    ] = TrainPlan.evaluate_samples,
    evaluate_limit: Annotated[
        int, option(help="How many test images to evaluate.", panel=_TRAINING)
    ] = TrainPlan.evaluate_limit,
    device: options.Device = "auto",
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
    ] = Path("model.safetensors"),
    seed: options.Seed = 0,
    config: options.Config = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
    **settings: Any,
) -> None:
    """Train a classifier for randomised smoothing, or a denoiser in front of one; the other commands read it."""
    given = locals()
    plan = layers.plan_of(TrainPlan, layers.with_recipe(context, given | given.pop("settings")))
    from caa_cli.display import Display

    with importing():
        from caa_cli.run.train import TrainRun

    code = TrainRun(plan, Display(quiet, json), running.resume_command()).execute()
    raise typer.Exit(code)

"""`caa train`"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from caa_cli.cli import options
from caa_cli.cli.options import option
from caa_cli.names import ARCHITECTURES, DATASETS, METHODS, SCHEDULES
from caa_cli.train_plan import TrainPlan

_MODEL, _RUN, _TRAINING = options.DATA, options.RUN, "Training"


@options.guarded
def train(
    dataset: Annotated[str, option(help=f"{' or '.join(DATASETS)}.", panel=_MODEL)] = TrainPlan.dataset,
    data_dir: options.DataDir = None,
    arch: Annotated[str, option(help=f"{' or '.join(ARCHITECTURES)}.", panel=_MODEL)] = TrainPlan.arch,
    sigma: Annotated[float, option(help="Noise to train for, pixel units.", panel=_MODEL)] = TrainPlan.sigma,
    method: Annotated[str, option(help=f"{', '.join(METHODS)}.", panel=_TRAINING)] = TrainPlan.method,
    epochs: Annotated[int, option(help="Passes over the images.", panel=_TRAINING)] = TrainPlan.epochs,
    batch_size: Annotated[int, option(help="Images a step.", panel=_TRAINING)] = TrainPlan.batch_size,
    learning_rate: Annotated[float, option(help="Adam's, at the start.", panel=_TRAINING)] = TrainPlan.learning_rate,
    schedule: Annotated[
        str, option(help=f"Of the learning rate: {' or '.join(SCHEDULES)}.", panel=_TRAINING)
    ] = TrainPlan.schedule,
    heldout: Annotated[
        int | None,
        option(
            help="Training images kept back to choose the best epoch by.",
            show_default="a tenth, at most 5000",
            panel=_TRAINING,
        ),
    ] = None,
    evaluate_samples: Annotated[
        int,
        option(
            help="Noise samples an image for the smoothed accuracy on the test images; 0: leave it out.",
            panel=_TRAINING,
        ),
    ] = TrainPlan.evaluate_samples,
    evaluate_limit: Annotated[
        int, option(help="How many test images to evaluate.", panel=_TRAINING)
    ] = TrainPlan.evaluate_limit,
    device: options.Device = "auto",
    output: Annotated[Path, option(metavar="FILE.safetensors", help="The checkpoint.", panel=_RUN)] = Path(
        "model.safetensors"
    ),
    seed: options.Seed = 0,
    config: options.Config = None,
    json: options.Json = False,
    quiet: options.Quiet = False,
    resume: options.Resume = False,
    overwrite: options.Overwrite = False,
    dry_run: options.DryRun = False,
) -> None:
    """Train a classifier for randomised smoothing, and write a checkpoint that the other commands read."""
    plan = options.plan_of(TrainPlan, locals())
    from caa_cli.display import Display
    from caa_cli.training.run import TrainRun

    code = TrainRun(plan, Display(quiet, json), options.resume_command()).execute()
    raise typer.Exit(code)

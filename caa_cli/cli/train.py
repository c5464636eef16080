"""`caa train`"""

from __future__ import annotations

from typing import Any

import typer

from caa_cli.cli import generate, layers, options, running
from caa_cli.cli.environment import is_typed
from caa_cli.cli.generate import COMPUTE, DATA, METHOD, RUN
from caa_cli.config.ranges import flag
from caa_cli.config.train_plan import TrainPlan
from caa_cli.errors import UsageError
from caa_cli.runtime.collector import importing

_DATA = ("recipe", "dataset", "data_dir", "download", "image_size", "arch", "normalisation", "sigma")
_CLASSIFIER = (
    *("classifier", "classifier_arch", "classifier_normalisation", "classifier_mean", "classifier_std"),
    *("classifier_size", "trust_checkpoint"),
)
_TRAINING = (
    *("epochs", "batch_size", "optimizer", "learning_rate", "momentum", "weight_decay", "schedule", "step_epochs"),
    *("clip_norm", "augment", "heldout", "evaluate_samples", "evaluate_limit"),
)


@running.guarded
@generate.with_options(
    options.of(TrainPlan, DATA, _DATA)
    | options.of(TrainPlan, METHOD, ("method",))
    | generate.method_settings()
    | options.of(TrainPlan, METHOD, _CLASSIFIER)
    | options.of(TrainPlan, "Training", _TRAINING)
    | options.of(TrainPlan, COMPUTE, ("device", "dtype", "channels_last", "workers"))
    | options.of(TrainPlan, RUN, ("output", "seed", "config", "json", "quiet", "resume", "overwrite", "dry_run"))
)
def train(context: typer.Context, **given: Any) -> None:
    """Train a classifier for randomised smoothing, or a denoiser in front of one; the other commands read it."""
    plan = layers.plan_of(TrainPlan, layers.with_recipe(context, given))
    _check_effect(context, plan, "momentum", "optimizer", "sgd")
    _check_effect(context, plan, "step_epochs", "schedule", "step")
    from caa_cli.display import Display

    with importing():
        from caa_cli.run.train import TrainRun

    display = Display(given["quiet"], given["json"])
    raise typer.Exit(TrainRun(plan, display, running.resume_command()).execute())


def _check_effect(context: typer.Context, plan: TrainPlan, name: str, choice: str, owner: str) -> None:
    """Raises UsageError for an option that was typed, but is of another choice; a recipe or a file may hold it."""
    chosen, of = getattr(plan, choice), f"{flag(choice)} {owner}"
    if chosen != owner and is_typed(context, name):
        raise UsageError(f"{flag(name)} is a setting of {of}, not of {chosen}", f"leave it out, or add {of}")

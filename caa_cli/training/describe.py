"""What the display says of a training run: its plan, its epochs and its result."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch

from caa_cli.config.recipes import RECIPES
from caa_cli.config.sizes import show_size
from caa_cli.config.train_plan import TrainPlan
from caa_cli.display import Rows, clock
from caa_cli.runtime.device import describe_device
from caa_cli.runtime.words import counted
from caa_cli.training.devices import Ranks
from caa_cli.training.progress import EpochReport, TrainingState
from caa_cli.training.trainee import Trainee


def plan_rows(
    plan: TrainPlan, training: int, heldout: int, trainee: Trainee, device: torch.device, ranks: Ranks
) -> Rows:
    """The rows of the plan, before training."""
    given = {name: value for name, value in vars(plan.settings).items() if value is not None}
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in given.items())
    optimizer = f"{plan.optimizer} at {plan.learning_rate:g}, {schedule(plan)}"
    if plan.optimizer == "sgd":
        optimizer += f", momentum {plan.momentum:g}"
    if plan.weight_decay:
        optimizer += f", weight decay {plan.weight_decay:g}"
    if plan.clip_norm:
        optimizer += f", gradients clipped to {plan.clip_norm:g}"
    processes = f", {counted(ranks.count, 'process')}" if ranks.count > 1 else ""
    images = f"{training} of {plan.dataset} to train on, {heldout} held out, augmentation {plan.augmentation}"
    rows = [
        *trainee.describe(),
        ("images", images),
        ("method", f"{plan.method}: σ = {plan.sigma:g}, {settings}"),
        ("optimizer", optimizer),
        ("epochs", f"{plan.epochs}, batches of {counted(plan.batch_size, 'image')}, seed {plan.seed}"),
        ("device", f"{describe_device(device)}, {plan.dtype}{processes}"),
        ("checkpoint", str(plan.output)),
    ]
    if plan.recipe is not None:
        recipe = RECIPES[plan.recipe]
        nearest = recipe.nearest(plan.sigma)
        other = "" if nearest in (None, plan.sigma) else f", with its settings for σ = {nearest:g}"
        rows.insert(0, ("recipe", f"{plan.recipe}: {recipe.source}{other}"))
    return rows


def schedule(plan: TrainPlan) -> str:
    """The schedule of the learning rate, in words."""
    return f"a tenth every {counted(plan.step_epochs, 'epoch')}" if plan.schedule == "step" else plan.schedule


def forecast_rows(steps: int, seconds: float, memory: int) -> Rows:
    """What a training would take, for a dry run."""
    return [
        ("steps", f"{steps:,}"),
        ("time", f"about {clock(seconds)} in one process, as one step took; evaluations left out"),
        ("memory", f"about {show_size(memory)}"),
    ]


def result_rows(
    plan: TrainPlan, state: TrainingState, training: dict[str, Any], seconds: float, size: int, log: Path
) -> Rows:
    """The rows of the result; training: the checkpoint's metadata, seconds: of the run, size: bytes."""
    heldout = heldout_words(state.best)
    if heldout:
        rows = [
            ("best epoch", f"{state.best_epoch} of {plan.epochs}"),
            ("held-out", f"{heldout} under one noise draw"),
        ]
    else:
        rows = [("epoch", f"{state.best_epoch} of {plan.epochs}, the last: no images were held out")]
    accuracy, samples = training.get("smoothed_accuracy"), counted(plan.evaluate_samples, "sample")
    if accuracy is not None:
        tested = counted(training["smoothed_accuracy_images"], "test image")
        rows.append(("smoothed", f"{100 * accuracy:.2f}% of {tested}, {samples} each"))
    return [
        *rows,
        ("time", clock(seconds)),
        ("checkpoint", f"{plan.output} ({size / 1e6:.2f} MB)"),
        ("log", str(log)),
    ]


def heldout_words(report: EpochReport | None) -> str:
    """What was measured on held-out images in an epoch, empty without any."""
    if report is None:
        return ""
    accuracy, mse = report.heldout_accuracy, report.heldout_mse
    right = [] if accuracy is None else [f"{100 * accuracy:.2f}% right"]
    return ", ".join(right + ([] if mse is None else [f"squared error {mse:.4g}"]))


def epoch_line(report: EpochReport, epochs: int) -> str:
    """A line on an epoch, for the display."""
    accuracy = "" if report.train_accuracy is None else f"noisy accuracy {100 * report.train_accuracy:.2f}%, "
    measured = heldout_words(report)
    heldout = f"held-out {measured}, " if measured else ""
    unreadable = f", {counted(report.unreadable, 'image')} unreadable" if report.unreadable else ""
    return (
        f"epoch {report.epoch}/{epochs}: loss {report.loss:.4g}, {accuracy}{heldout}"
        f"{report.seconds:.1f} s{unreadable}"
    )


def next_command(plan: TrainPlan) -> str:
    """The command that attacks what was trained, as far as it is known."""
    words = ["caa", "attack", "--checkpoint", str(plan.output)]
    if plan.denoises:
        words[3:] = [plan.classifier or "CLASSIFIER", "--denoiser", str(plan.output), "--sigma", f"{plan.sigma:g}"]
        words += ["--dataset", plan.dataset]
        words += ["--trust-checkpoint"] if plan.trust_checkpoint else []
        words += [] if plan.image_size is None else ["--image-size", str(plan.image_size)]
    for name in ("arch", "mean", "std", "size"):
        value = getattr(plan, f"classifier_{name}")
        if value is not None:
            option = "--classifier-size" if name == "size" else f"--{name}"
            words += [option, ",".join(map(str, value)) if isinstance(value, tuple) else str(value)]
    if ":" in plan.arch:  # a checkpoint may not cause an import of code by itself
        words += ["--arch", plan.arch]
    if plan.data_dir is not None:
        words += ["--data-dir", str(plan.data_dir)]
    return shlex.join([*words, "--limit", "20"])

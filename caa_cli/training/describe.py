"""Rows for the display that describe a training run: its plan and its result."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import torch
from torch import nn

from caa_cli.config.datasets import DATASETS
from caa_cli.config.recipes import RECIPES
from caa_cli.config.sizes import show_size
from caa_cli.config.train_plan import TrainPlan
from caa_cli.display import Rows, clock
from caa_cli.runtime.device import describe_device
from caa_cli.training.devices import Ranks
from caa_cli.training.loop import TrainingState


def augmentation(plan: TrainPlan) -> str:
    """The augmentation of a run; `auto` is the usual one of its data set."""
    return DATASETS[plan.dataset].augment if plan.augment == "auto" else plan.augment


def plan_rows(
    plan: TrainPlan, training: int, heldout: int, model: nn.Module, device: torch.device, ranks: Ranks
) -> Rows:
    """The rows of the plan, before training."""
    weights = sum(parameter.numel() for parameter in model.parameters())
    settings = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in vars(plan.settings).items())
    optimizer = f"{plan.optimizer} at {plan.learning_rate:g}, {schedule(plan)}"
    if plan.optimizer == "sgd":
        optimizer += f", momentum {plan.momentum:g}"
    if plan.weight_decay:
        optimizer += f", weight decay {plan.weight_decay:g}"
    if plan.clip_norm:
        optimizer += f", gradients clipped to {plan.clip_norm:g}"
    processes = f", {ranks.count} processes" if ranks.count > 1 else ""
    rows = [
        ("model", f"{plan.arch}, {weights:,} weights, normalisation {plan.normalisation}"),
        (
            "images",
            f"{training} of {plan.dataset} to train on, {heldout} held out, augmentation {augmentation(plan)}",
        ),
        ("method", f"{plan.method}: σ = {plan.sigma:g}, {settings}"),
        ("optimizer", optimizer),
        ("epochs", f"{plan.epochs}, batches of {plan.batch_size} images, seed {plan.seed}"),
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
    return f"a tenth every {plan.step_epochs} epochs" if plan.schedule == "step" else plan.schedule


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
    if state.best_accuracy is None:
        rows = [("epoch", f"{state.best_epoch} of {plan.epochs}, the last: no images were held out")]
    else:
        rows = [
            ("best epoch", f"{state.best_epoch} of {plan.epochs}"),
            ("held-out", f"{100 * state.best_accuracy:.2f}% right under one noise draw"),
        ]
    if training.get("smoothed_accuracy") is not None:
        rows.append(
            (
                "smoothed",
                f"{100 * training['smoothed_accuracy']:.2f}% of {training['smoothed_accuracy_images']} test images, "
                f"{plan.evaluate_samples} samples each",
            )
        )
    return [
        *rows,
        ("time", clock(seconds)),
        ("checkpoint", f"{plan.output} ({size / 1e6:.2f} MB)"),
        ("log", str(log)),
        ("next", _next_command(plan)),
    ]


def _next_command(plan: TrainPlan) -> str:
    words = ["caa", "attack", "--checkpoint", str(plan.output)]
    if ":" in plan.arch:  # a checkpoint may not cause an import of code by itself
        words += ["--arch", plan.arch]
    if plan.data_dir is not None:
        words += ["--data-dir", str(plan.data_dir)]
    return shlex.join([*words, "--limit", "20"])

"""The optimizer of a training, and its learning rate epoch by epoch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from caa_cli.config.train_plan import TrainPlan


def learning_rate_at(plan: TrainPlan, epochs: float) -> float:
    """The learning rate after a number of epochs, which may be fractional."""
    rate = plan.learning_rate * plan.settings.rate_share(math.floor(epochs))
    if plan.schedule == "cosine":
        return rate * 0.5 * (1.0 + math.cos(math.pi * epochs / plan.epochs))
    if plan.schedule == "step":
        return rate * 0.1 ** math.floor(epochs / plan.step_epochs)
    return rate


def build_optimizer(plan: TrainPlan, model: nn.Module) -> torch.optim.Optimizer:
    """The plan's optimizer, as one kernel over all weights."""
    shared: dict[str, Any] = {"lr": plan.learning_rate, "weight_decay": plan.weight_decay, "fused": True}
    if plan.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=plan.momentum, **shared)
    return torch.optim.Adam(model.parameters(), **shared)

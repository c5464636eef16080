"""The training loop: epochs of a method, the best one kept, every random draw a function of (seed, epoch).

Because no generator lives longer than an epoch, a run that was killed and resumed from its last epoch takes the
same steps as one that was not.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from caa_cli.errors import CaaError
from caa_cli.training.methods import METHODS


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a training run, beside the images and the architecture."""

    method: str = "gaussian"
    sigma: float = 0.5
    epochs: int = 50
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: str = "constant"
    seed: int = 0

    def learning_rate_at(self, progress: float) -> float:
        """`progress` runs from 0 at the first step to 1 at the last."""
        if self.schedule == "cosine":
            return self.learning_rate * 0.5 * (1.0 + math.cos(math.pi * progress))
        return self.learning_rate


@dataclass
class EpochReport:
    """One line of the training log; accuracies are under one noise draw an image."""

    epoch: int
    loss: float
    train_accuracy: float
    heldout_accuracy: float
    learning_rate: float
    seconds: float = 0.0


@dataclass
class TrainingState:
    """What a resumed run goes on from."""

    epoch: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[EpochReport] = field(default_factory=list)


class Trainer:
    """Trains `model` in place. Images: (N, *input_shape) uint8 on any device; labels: (N,) int64."""

    def __init__(
        self,
        model: nn.Module,
        recipe: Recipe,
        train: tuple[Tensor, Tensor],
        heldout: tuple[Tensor, Tensor],
        device: torch.device,
    ) -> None:
        self.model = model.to(device)
        self.recipe = recipe
        self.method = METHODS[recipe.method]
        self.train_images, self.train_labels = (t.to(device) for t in train)
        self.heldout_images, self.heldout_labels = (t.to(device) for t in heldout)
        self.device = device
        self.optimizer = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate)
        self.state = TrainingState()

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors and numbers, for torch.save."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "epoch": self.state.epoch,
            "best_epoch": self.state.best_epoch,
            "best_accuracy": self.state.best_accuracy,
            "best_weights": self.state.best_weights,
            "history": [vars(report) for report in self.state.history],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.state = TrainingState(
            saved["epoch"],
            saved["best_epoch"],
            saved["best_accuracy"],
            saved["best_weights"],
            [EpochReport(**line) for line in saved["history"]],
        )

    def batches(self) -> int:
        """Steps an epoch. A last batch of one image is left out: batch normalisation can't take it."""
        full, rest = divmod(len(self.train_images), self.recipe.batch_size)
        return full + (1 if rest > 1 else 0)

    def run_epoch(self, on_batch: Callable[[int, float, float], None]) -> EpochReport:
        """One epoch; `on_batch(step, mean loss, accuracy so far)` is called after each step."""
        recipe, epoch, steps = self.recipe, self.state.epoch, self.batches()
        order = torch.randperm(len(self.train_images), generator=self._generator("order", epoch, cpu=True))
        noise = self._generator("noise", epoch)
        self.model.train()
        loss_sum = torch.zeros((), device=self.device)
        correct = torch.zeros((), device=self.device, dtype=torch.int64)
        seen = 0
        rate = recipe.learning_rate
        for step in range(steps):
            rate = recipe.learning_rate_at((epoch * steps + step) / (recipe.epochs * steps))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size].to(self.device)
            images = self.train_images[chosen].float() / 255.0
            labels = self.train_labels[chosen]
            loss, logits = self.method.loss(self.model, images, labels, recipe.sigma, noise)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            loss_sum += loss.detach() * len(chosen)
            correct += (logits.detach().argmax(dim=1) == labels).sum()
            seen += len(chosen)
            if step % 20 == 19 or step == steps - 1:
                on_batch(step + 1, float(loss_sum) / seen, int(correct) / seen)
        mean_loss = float(loss_sum) / seen
        if not math.isfinite(mean_loss):
            raise CaaError(
                f"the loss became {mean_loss} in epoch {epoch + 1}: training diverged",
                "use a smaller step, for instance --learning-rate 1e-4",
            )
        report = EpochReport(epoch + 1, mean_loss, int(correct) / seen, self.heldout_accuracy(), rate)
        self._remember(report)
        return report

    def heldout_accuracy(self) -> float:
        """Under one noise draw an image, the same draw at every epoch."""
        noise = self._generator("heldout", 0)
        self.model.eval()
        correct = 0
        with torch.inference_mode():
            for images, labels in zip(self.heldout_images.split(256), self.heldout_labels.split(256), strict=True):
                pixels = images.float() / 255.0
                pixels += torch.empty_like(pixels).normal_(0.0, self.recipe.sigma, generator=noise)
                correct += int((self.model(pixels).argmax(dim=1) == labels).sum())
        return correct / len(self.heldout_images)

    def _remember(self, report: EpochReport) -> None:
        state = self.state
        state.epoch = report.epoch
        state.history.append(report)
        if report.heldout_accuracy > state.best_accuracy:
            state.best_epoch, state.best_accuracy = report.epoch, report.heldout_accuracy
            state.best_weights = {
                name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()
            }

    def _generator(self, purpose: str, epoch: int, cpu: bool = False) -> torch.Generator:
        packed = struct.pack("<qq", self.recipe.seed, epoch) + purpose.encode()
        seed = int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1
        return torch.Generator("cpu" if cpu else self.device).manual_seed(seed)

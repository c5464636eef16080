"""SmoothAdv: adversarial training of the smoothed classifier."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from caa_cli.config import methods as settings
from caa_cli.smoothing.objective import log_mean_probability
from caa_cli.training.step import Outcome, Step


@dataclass(frozen=True)
class SmoothAdv(settings.SmoothAdv):
    """Salman et al. (2019): images are first perturbed by an attack on the mean prediction over `draws` noise draws.

    inner_attack: `pgd` or `ddn`.  epsilon: the maximum L2 norm, pixel units; it grows to this over the first
    `warmup` epochs.  The same noise is used in the attack and in the training step.
    """

    def loss(self, step: Step) -> Outcome:
        noise = step.noise(self.draws)
        epsilon = self.epsilon * min(1.0, (step.epoch + 1) / max(1, self.warmup))
        attack = {"pgd": pgd, "ddn": ddn}[self.inner_attack]
        with step.frozen() as model:
            smoothed = MeanPrediction(model, noise, self.draws)
            images = attack(smoothed, step.images, step.labels, epsilon, self.attack_steps)
        logits = step.forward(images.repeat_interleave(self.draws, dim=0) + noise)
        return Outcome(F.cross_entropy(logits, step.labels.repeat_interleave(self.draws)), logits)


_SCALE = 1024.0
# DDN's relative change of the norm per step.
_GAMMA = 0.05


@dataclass(frozen=True)
class MeanPrediction:
    """The soft-smoothed classifier: log of the mean softmax over noise draws that are the same at every call."""

    model: Callable[[Tensor], Tensor]
    noise: Tensor
    draws: int

    def __call__(self, images: Tensor) -> Tensor:
        """Log-probabilities (batch, classes); images: (batch, *input_shape)."""
        logits = self.model(images.repeat_interleave(self.draws, dim=0) + self.noise)
        return log_mean_probability(logits.log_softmax(dim=1).unflatten(0, (-1, self.draws)))

    def ascent(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(unit vectors of each image's loss gradient, predictions (batch,) int64)."""
        images = images.detach().requires_grad_(True)
        log_p = self(images)
        # Only the direction matters. Scaling keeps small gradients from underflowing in mixed precision (float16).
        loss = _SCALE * F.nll_loss(log_p, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, images)
        return unit(torch.nan_to_num(gradient)), log_p.detach().argmax(dim=1)


def pgd(smoothed: MeanPrediction, images: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """Images after projected gradient ascent in the L2 ball, from the originals, in steps of 2·epsilon/steps."""
    moved = images
    for _ in range(steps):
        direction, _ = smoothed.ascent(moved, labels)
        moved = (moved + 2 * epsilon / steps * direction).clamp(0.0, 1.0)
        moved = images + shortened(moved - images, epsilon)
    return moved


def ddn(smoothed: MeanPrediction, images: Tensor, labels: Tensor, epsilon: float, steps: int) -> Tensor:
    """Images attacked with decoupled direction and norm (Rony et al., 2019): the nearest misclassified point, else
    the last, at most epsilon away.

    The norm starts at epsilon, shrinks by 5% where the prediction is wrong, and grows by as much where it is correct.
    """
    delta = torch.zeros_like(images)
    norm = images.new_full((len(images), *[1] * (images.dim() - 1)), epsilon)
    best, best_norm = torch.zeros_like(images), torch.full_like(norm, math.inf)
    for step in range(steps):
        direction, predictions = smoothed.ascent(images + delta, labels)
        wrong = (predictions != labels).view_as(norm)
        length = norms(delta)
        nearer = wrong & (length < best_norm)
        best, best_norm = torch.where(nearer, delta, best), torch.where(nearer, length, best_norm)
        norm = torch.where(wrong, norm * (1 - _GAMMA), norm * (1 + _GAMMA))
        rate = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps))
        delta = delta + rate * direction
        delta = delta * (norm / norms(delta).clamp_min(1e-12))
        delta = (images + delta).clamp(0.0, 1.0) - images
    best = torch.where(best_norm.isfinite(), best, delta)
    return images + shortened(best, epsilon)


def unit(x: Tensor) -> Tensor:
    """The vectors scaled to length 1, without underflow for small ones; 0 stays 0."""
    largest = x.flatten(1).abs().amax(dim=1).view(-1, *[1] * (x.dim() - 1))
    x = x / torch.where(largest > 0, largest, 1.0)
    return x / norms(x).clamp_min(1e-12)


def norms(x: Tensor) -> Tensor:
    """L2 norms (batch, 1, …, 1) of x (batch, *shape)."""
    lengths: Tensor = x.flatten(1).norm(dim=1)
    return lengths.view(-1, *[1] * (x.dim() - 1))


def shortened(x: Tensor, longest: float) -> Tensor:
    """The vectors, those longer than `longest` scaled down to it."""
    return x * (longest / norms(x).clamp_min(1e-12)).clamp_max(1.0)

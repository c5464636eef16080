"""The training loop: epochs of a method, every random draw a function of (seed, epoch).

As no generator is used beyond its epoch, a run that is killed and resumed from its last complete epoch takes the same
steps as an uninterrupted one.
"""

from __future__ import annotations

import hashlib
import math
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caa_cli.config.train_plan import TrainPlan
from caa_cli.errors import CaaError
from caa_cli.training.devices import Ranks
from caa_cli.training.feed import Feed
from caa_cli.training.optimizer import build_optimizer, learning_rate_at
from caa_cli.training.progress import EpochReport, TrainingState
from caa_cli.training.step import Forward, Method, Step
from caa_cli.training.trainee import Trainee


def _known(value: float) -> float | None:
    """None in place of NaN, which stands for what was not computed."""
    return None if math.isnan(value) else value


class Trainer:
    """Training of the trainee's network, in place, on `train`; `heldout` selects the best epoch."""

    def __init__(
        self,
        trainee: Trainee,
        method: Method,
        plan: TrainPlan,
        train: Feed,
        heldout: Feed,
        device: torch.device,
        ranks: Ranks | None = None,
    ) -> None:
        self.memory_format = torch.channels_last if plan.channels_last else torch.contiguous_format
        self.dtype: torch.dtype = getattr(torch, plan.dtype)  # of the network; weights and losses are float32
        self.device, self.ranks = device, ranks or Ranks()
        self.trainee = trainee
        self.model = self._placed(trainee.network, device)
        self.trained = [weight for weight in self.model.parameters() if weight.requires_grad]
        self.classify = None if trainee.frozen is None else self._forward(self._placed(trainee.frozen, device))
        self.method, self.plan, self.train, self.heldout = method, plan, train, heldout
        self.wrapped = self.ranks.wrapped(self.model, device)
        self.optimizer = build_optimizer(plan, self.model)
        # Small gradients would underflow in float16.
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        self.state = TrainingState()

    def state_dict(self) -> dict[str, Any]:
        """The state as plain tensors and numbers, for torch.save."""
        return {
            "model": self.model.state_dict(),
            "buffers": self._transient_buffers(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            **vars(self.state),
            "history": [vars(report) for report in self.state.history],
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        for name, buffer in saved.get("buffers", {}).items():  # up to 0.10.0 there were none
            owner, _, last = name.rpartition(".")
            setattr(self.model.get_submodule(owner), last, buffer.to(self.device))
        for group in saved["optimizer"]["param_groups"]:
            group["fused"] = True  # up to 0.7.0 it was not
        self.optimizer.load_state_dict(saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        self.state = TrainingState(**{f.name: saved[f.name] for f in fields(TrainingState)})
        self.state.history = [EpochReport(**line) for line in saved["history"]]

    def _transient_buffers(self) -> dict[str, Tensor]:
        """The buffers that no checkpoint has (persistent=False): the next epoch may go on with their values."""
        every, kept = self.model.named_buffers(remove_duplicate=False), self.model.state_dict()
        return {name: one for name, one in every if name not in kept and one.layout == torch.strided}

    def steps(self) -> int:
        """Steps per epoch. A last batch of one image per process is left out, as batch normalisation would fail."""
        full, rest = divmod(len(self.train), self.plan.batch_size)
        return full + (1 if rest >= 2 * self.ranks.count else 0)

    def seconds_a_step(self) -> float:
        """How long one step of the last epoch takes: the second of two, as the first loads kernels.

        Both change the weights.
        """
        batch = torch.arange(min(self.plan.batch_size, len(self.train)))
        noise = self._generator("noise", 0)
        self.model.train()
        times = []
        for images, labels in self.train.batches([batch, batch], self._generator("augmentation", 0, cpu=True)):
            began = time.perf_counter()
            self._step(images, labels, noise, self.plan.epochs - 1).cpu()  # which waits for a GPU
            times.append(time.perf_counter() - began)
        return times[-1]

    def run_epoch(self, on_batch: Callable[[int, float, float | None], None]) -> EpochReport:
        """Train one epoch; `on_batch(step, mean loss, accuracy so far or None)` is called every 20 steps.

        Raises CaaError if the loss, a weight or the error on held-out images is not finite.
        """
        plan, epoch, steps = self.plan, self.state.epoch, self.steps()
        shuffled = torch.randperm(
            len(self.train), generator=self._generator("order", epoch, per_process=False, cpu=True)
        )
        order = [self.ranks.part(batch) for batch in shuffled.split(plan.batch_size)[:steps]]
        noise = self._generator("noise", epoch)
        torch.manual_seed(self._seed("network", epoch))  # of a network's own draws, such as dropout
        self.model.train()
        sums = torch.zeros(3, device=self.device, dtype=torch.float64)  # summed loss, correct, images
        rate = learning_rate_at(plan, epoch)
        batches = self.train.batches(order, self._generator("augmentation", epoch, cpu=True))
        for step, (images, labels) in enumerate(batches):
            rate = learning_rate_at(plan, epoch + step / steps)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            sums += self._step(images, labels, noise, epoch)
            if step % 20 == 19 or step == steps - 1:
                loss, right, seen = sums.tolist()
                on_batch(step + 1, loss / seen, _known(right / seen))
                if not math.isfinite(loss) and self.ranks.count == 1:
                    break  # several processes must end the epoch together
        loss, right, seen = self.ranks.total(sums).tolist()
        self._require_finite("the loss", loss)
        # The last step's: no loss tells of them.
        lengths = [weight.detach().float().abs().sum() for weight in self.trained]
        self._require_finite("the length of the weights", float(torch.stack(lengths).sum()))
        self.ranks.mean_buffers(self.model)
        unreadable = self.ranks.total(torch.tensor(len(self.train.unreadable), device=self.device))
        accuracy, mse = self.heldout_scores()
        self._require_finite("the squared error of held-out images", mse or 0.0)
        report = EpochReport(
            epoch + 1, loss / seen, _known(right / seen), accuracy, rate, unreadable=int(unreadable), heldout_mse=mse
        )
        self._remember(report)
        return report

    def _require_finite(self, what: str, value: float) -> None:
        """Raise CaaError if this number, which an epoch led to, is infinite or NaN."""
        if not math.isfinite(value):
            raise CaaError(
                f"{what} became {value} in epoch {self.state.epoch + 1}: training diverged",
                "use a smaller step, for instance --learning-rate 1e-4, or --clip-norm 1",
            )

    def heldout_scores(self) -> tuple[float | None, float | None]:
        """(accuracy, mean squared error of denoised images) on held-out images under one noise draw each.

        The noise is equal at every epoch. None: without such images, without a classifier, or without a denoiser.
        """
        if not len(self.heldout):
            return None, None
        noise = self._generator("heldout", 0)
        batches = torch.arange(len(self.heldout)).split(256 * self.ranks.count)
        order = [part for part in map(self.ranks.part, batches) if len(part)]
        self.model.eval()
        sums = torch.zeros(3, device=self.device, dtype=torch.float64)  # correct, squared error, images
        with torch.no_grad():
            for images, labels in self.heldout.batches(order, torch.Generator().manual_seed(0)):
                noisy = images + torch.empty_like(images).normal_(0.0, self.plan.sigma, generator=noise)
                outputs = self._forward(self.model)(noisy)
                if self.trainee.denoises:
                    sums[1] += F.mse_loss(outputs, images) * len(labels)
                logits = self._logits(outputs)
                sums[0] += torch.nan if logits is None else (logits.argmax(dim=1) == labels).sum()
                sums[2] += len(labels)
        right, error, seen = self.ranks.total(sums).tolist()
        if not seen:
            return None, None
        return _known(right / seen), error / seen if self.trainee.denoises else None

    def _step(self, images: Tensor, labels: Tensor, noise: torch.Generator, epoch: int) -> Tensor:
        """Take one step of the optimizer; returns (loss times images, correct predictions, images) as float64."""
        step = Step(
            forward=self._forward(self.wrapped),
            frozen=self._frozen,
            images=images,
            labels=labels,
            sigma=self.plan.sigma,
            generator=noise,
            epoch=epoch,
            classify=self.classify,
        )
        outcome = self.method.loss(step)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(outcome.loss).backward()
        if self.plan.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.plan.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        count = len(labels)
        return torch.stack(
            [outcome.loss.detach() * count, outcome.correct(labels), labels.new_full((), count)]
        ).double()

    def _placed(self, network: nn.Module, device: torch.device) -> nn.Module:
        return network.to(device).to(memory_format=self.memory_format)

    def _forward(self, model: nn.Module) -> Forward:
        """The model in mixed precision, with float32 outputs."""
        dtype = self.dtype

        def forward(x: Tensor) -> Tensor:
            with torch.autocast(self.device.type, dtype=dtype, enabled=dtype != torch.float32):
                outputs = model(x.contiguous(memory_format=self.memory_format))
            if not isinstance(outputs, Tensor):
                raise CaaError(
                    f"{self.plan.arch} returns a {type(outputs).__name__} in training mode, where logits are wanted",
                    "let it return them alone, as in evaluation: torchvision's have aux_logits=False for that",
                )
            return outputs.float()

        return forward

    def _logits(self, outputs: Tensor) -> Tensor | None:
        """Logits from the outputs of the network that is trained; None for a denoiser without a classifier."""
        if not self.trainee.denoises:
            return outputs
        return None if self.classify is None else self.classify(outputs)

    @contextmanager
    def _frozen(self) -> Iterator[Forward]:
        """A context with the model in evaluation mode and without gradients for its weights."""
        self.model.eval()
        self.model.requires_grad_(False)
        try:
            yield self._forward(self.model)
        finally:
            for weight in self.trained:
                weight.requires_grad_(True)
            self.model.train()

    def _remember(self, report: EpochReport) -> None:
        """Add the report to the history, and keep the weights if they are the best so far."""
        state = self.state
        best = state.best
        state.epoch = report.epoch
        state.history.append(report)
        if best is None or report.better_than(best):
            state.best_epoch, state.best_accuracy = report.epoch, report.heldout_accuracy
            state.best_weights = {
                name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
                for name, tensor in self.model.state_dict().items()
            }

    def _generator(self, purpose: str, epoch: int, per_process: bool = True, cpu: bool = False) -> torch.Generator:
        """A generator seeded from (seed, epoch, purpose); per_process: with different draws in each process."""
        return torch.Generator("cpu" if cpu else self.device).manual_seed(self._seed(purpose, epoch, per_process))

    def _seed(self, purpose: str, epoch: int, per_process: bool = True) -> int:
        packed = struct.pack("<qq", self.plan.seed, epoch) + purpose.encode()
        if per_process and self.ranks.rank:
            packed += struct.pack("<q", self.ranks.rank)
        return int.from_bytes(hashlib.blake2b(packed, digest_size=8).digest(), "little") >> 1

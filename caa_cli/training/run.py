"""`caa train` from the plan to the checkpoint."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import torch

from caa_cli import __version__
from caa_cli.data.datasets import open_dataset
from caa_cli.data.images import ImageSet
from caa_cli.data.load import load
from caa_cli.device import describe_device, resolve_device
from caa_cli.display import Display, clock, number
from caa_cli.errors import DONE, INTERRUPTED, CaaError, UsageError
from caa_cli.models.architectures import NormalisedClassifier, build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import checkpoint_bytes, read_weights
from caa_cli.plan import differences
from caa_cli.results.files import check_writable, write_atomically
from caa_cli.signals import termination_interrupts
from caa_cli.smoothing.bounds import leader
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.tune import tune_chunks
from caa_cli.train_plan import TrainPlan
from caa_cli.training.loop import EpochReport, Recipe, Trainer

# Of the images in [0, 1]; the demo is made of MNIST.
NORMALISATION = {"mnist": ((0.1307,), (0.3081,)), "demo": ((0.1307,), (0.3081,))}
# Held-out images: a tenth of the training images, but no more than tell epochs apart.
HELDOUT_SHARE, HELDOUT_MOST = 10, 5000


@dataclass
class TrainRun:
    """One run. `resume_command` is the command that goes on with it after an interruption."""

    plan: TrainPlan
    display: Display
    resume_command: str

    def __post_init__(self) -> None:
        self.unfinished = self.plan.output.with_name(self.plan.output.name + ".training")

    def execute(self) -> int:
        """Trains, evaluates, writes; returns the exit code. Raises CaaError for what the user can mend."""
        plan = self.plan
        if not plan.dry_run:
            check_writable(plan.output, "--output")
            self._check_unfinished()
            if plan.resume and self._finished():
                self.display.note(f"{plan.output} is finished already: there is nothing to resume")
                return DONE
        device = resolve_device(plan.device)
        images = load(open_dataset(plan.dataset, plan.data_dir, "train"))
        heldout = plan.heldout or min(HELDOUT_MOST, len(images) // HELDOUT_SHARE)
        if heldout > len(images) - 2:
            raise UsageError(f"--heldout {heldout} leaves too few of the {len(images)} images to train on")
        card = self._card(images)
        torch.manual_seed(plan.seed)  # the initial weights; all that follows has generators of its own
        model = build(card)
        self.display.plan("caa train", self._described(images, heldout, model, device))
        if plan.dry_run:
            self.display.document({"config": plan.config()})
            return DONE
        split = len(images) - heldout
        trainer = Trainer(
            model,
            Recipe(
                method=plan.method,
                sigma=plan.sigma,
                epochs=plan.epochs,
                batch_size=plan.batch_size,
                learning_rate=plan.learning_rate,
                schedule=plan.schedule,
                seed=plan.seed,
            ),
            (images.images[:split], images.labels[:split]),
            (images.images[split:], images.labels[split:]),
            device,
        )
        if plan.resume and self.unfinished.exists():
            self._restore(trainer)
        began = time.perf_counter()
        try:
            with termination_interrupts():
                self._train(trainer)
                return self._finish(trainer, model, card, time.perf_counter() - began)
        except KeyboardInterrupt:
            done = trainer.state.epoch
            where = f"saved in {self.unfinished}" if self.unfinished.exists() else "done"
            self.display.warn(f"interrupted: {done} of {plan.epochs} epochs are {where}")
            self.display.warn(f"go on with: {self.resume_command}")
            return INTERRUPTED

    def _train(self, trainer: Trainer) -> None:
        plan = self.plan
        steps = trainer.batches()
        total = plan.epochs * steps
        with self.display.bar("steps", total, trainer.state.epoch * steps) as bar:
            while trainer.state.epoch < plan.epochs:
                before = trainer.state.epoch * steps

                def on_batch(step: int, loss: float, accuracy: float, before: int = before) -> None:
                    epoch = before // steps + 1
                    bar.update(
                        before + step,
                        f"epoch {epoch}/{plan.epochs} · loss {loss:.4f} · noisy accuracy {100 * accuracy:.1f}%",
                    )

                began = time.perf_counter()
                report = trainer.run_epoch(on_batch)
                report.seconds = time.perf_counter() - began
                self._save(trainer)
                self.display.note(_line(report, plan.epochs))

    def _finish(self, trainer: Trainer, model: NormalisedClassifier, card: ModelCard, seconds: float) -> int:
        plan, state = self.plan, trainer.state
        model.load_state_dict(state.best_weights)
        training: dict[str, Any] = {
            **{key: plan.config()[key] for key in plan.compared_keys()},
            "best_epoch": state.best_epoch,
            "heldout_noisy_accuracy": state.best_accuracy,
        }
        if plan.evaluate_samples:
            training.update(self._evaluate(trainer, model, card))
        card = replace(card, training=training)
        content = checkpoint_bytes(model, card)
        try:
            write_atomically(plan.output, content)
        except OSError as error:
            raise CaaError(
                f"can't write {plan.output} ({error.strerror})",
                f"the training is kept in {self.unfinished}: free some space and repeat the command with --resume",
            ) from error
        self.unfinished.unlink(missing_ok=True)
        rows = [
            ("best epoch", f"{state.best_epoch} of {plan.epochs}"),
            ("held-out", f"{100 * state.best_accuracy:.2f}% right under one noise draw"),
        ]
        if "smoothed_accuracy" in training:
            rows.append(
                (
                    "smoothed",
                    f"{100 * training['smoothed_accuracy']:.2f}% of {training['smoothed_accuracy_images']} test "
                    f"images, {plan.evaluate_samples} samples each",
                )
            )
        rows += [
            ("time", clock(seconds)),
            ("checkpoint", f"{plan.output} ({len(content) / 1e6:.2f} MB)"),
            ("next", self._next_command()),
        ]
        self.display.result("result", rows)
        self.display.document(
            {
                "command": "train",
                "config": plan.config(),
                "training": training,
                "history": [vars(report) for report in state.history],
                "seconds": seconds,
            }
        )
        return DONE

    def _evaluate(self, trainer: Trainer, model: NormalisedClassifier, card: ModelCard) -> dict[str, Any]:
        """Smoothed accuracy on the test images: the share whose majority vote is right."""
        plan = self.plan
        images = open_dataset(plan.dataset, plan.data_dir, "test")
        count = min(len(images), plan.evaluate_limit)
        classifier = SmoothedClassifier(
            model,
            sigma=plan.sigma,
            num_classes=card.num_classes,
            input_shape=card.input_shape,
            device=trainer.device,
        )
        tune_chunks(classifier, seconds=0.5)
        right = 0
        with self.display.bar("test images", count) as bar:
            for first in range(0, count, 50):
                batch = range(first, min(first + 50, count))
                x = torch.stack([images.image(index) for index in batch]).to(trainer.device)
                keys = [Key(plan.seed, index, Purpose.EVALUATION) for index in batch]
                winners = leader(classifier.votes(x, keys, plan.evaluate_samples).cpu().numpy())
                right += sum(int(w) == images.label(i) for w, i in zip(winners, batch, strict=True))
                bar.update(batch.stop, f"smoothed accuracy {number(100 * right / batch.stop, 2)}%")
        return {
            "smoothed_accuracy": right / count,
            "smoothed_accuracy_images": count,
            "smoothed_accuracy_samples": plan.evaluate_samples,
        }

    def _card(self, images: ImageSet) -> ModelCard:
        mean, std = NORMALISATION[images.name]
        return ModelCard(
            arch=self.plan.arch,
            num_classes=images.num_classes,
            input_shape=images.input_shape,
            mean=mean,
            std=std,
            dataset=images.name,
            sigma=self.plan.sigma,
            method=self.plan.method,
            tool_version=__version__,
        )

    def _described(
        self, images: ImageSet, heldout: int, model: NormalisedClassifier, device: torch.device
    ) -> list[tuple[str, str]]:
        plan = self.plan
        weights = sum(parameter.numel() for parameter in model.parameters())
        return [
            ("model", f"{plan.arch}, {weights:,} weights"),
            ("images", f"{len(images) - heldout} of {images.name} to train on, {heldout} held out"),
            ("method", f"{plan.method}, σ = {plan.sigma:g}"),
            (
                "schedule",
                f"{plan.epochs} epochs of batches of {plan.batch_size}, Adam at {plan.learning_rate:g}, "
                f"{plan.schedule}, seed {plan.seed}",
            ),
            ("device", describe_device(device)),
            ("checkpoint", str(plan.output)),
        ]

    def _next_command(self) -> str:
        words = ["caa", "attack", "--checkpoint", str(self.plan.output)]
        if self.plan.data_dir is not None:
            words += ["--data-dir", str(self.plan.data_dir)]
        return shlex.join([*words, "--limit", "20"])

    def _check_unfinished(self) -> None:
        if self.unfinished.exists() and not self.plan.resume:
            if not self.plan.overwrite:
                raise UsageError(
                    f"{self.unfinished} holds a training that was cut short",
                    "add --resume to go on with it, or --overwrite to begin anew",
                )
            self.unfinished.unlink()

    def _finished(self) -> bool:
        """Whether the checkpoint is there already, made with these settings."""
        if self.unfinished.exists() or not self.plan.output.exists():
            return False
        card = read_weights(self.plan.output).card
        return card is not None and not differences(card.training, self.plan.config(), self.plan.compared_keys())

    def _save(self, trainer: Trainer) -> None:
        """The whole state after each epoch, so that a kill costs no more than the epoch it fell in."""
        buffer = BytesIO()
        torch.save({"config": self.plan.config(), **trainer.state_dict()}, buffer)
        try:
            write_atomically(self.unfinished, buffer.getvalue())
        except OSError as error:
            raise CaaError(
                f"can't write {self.unfinished} ({error.strerror})",
                "free some space and repeat the command with --resume",
            ) from error

    def _restore(self, trainer: Trainer) -> None:
        damaged = CaaError(
            f"{self.unfinished} can't be read: it is damaged", "use --overwrite to begin the training anew"
        )
        try:
            saved = torch.load(self.unfinished, map_location=trainer.device, weights_only=True)
            there = dict(saved["config"])
        except Exception as error:  # torch.load raises whatever the first wrong byte leads to
            raise damaged from error
        differing = differences(there, self.plan.config(), self.plan.compared_keys())
        if differing:
            raise UsageError(
                f"{self.unfinished} belongs to a training with other settings: {', '.join(differing)}",
                "repeat the command with the settings of that training, or choose another --output",
            )
        try:
            trainer.load_state_dict(saved)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise damaged from error
        self.display.note(f"going on after epoch {trainer.state.epoch} of {self.unfinished}")


def _line(report: EpochReport, epochs: int) -> str:
    return (
        f"epoch {report.epoch}/{epochs}: loss {report.loss:.4f}, noisy accuracy {100 * report.train_accuracy:.2f}%, "
        f"held-out {100 * report.heldout_accuracy:.2f}%, {report.seconds:.1f} s"
    )

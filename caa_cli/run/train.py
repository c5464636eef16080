"""`caa train` from the plan to the checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from caa_cli import __version__
from caa_cli.config.choices import NORMALISATIONS
from caa_cli.config.differences import differences
from caa_cli.config.methods import METHODS
from caa_cli.config.settings import load
from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.images import Images
from caa_cli.display import Display
from caa_cli.errors import DONE, INTERRUPTED, CaaError, UsageError
from caa_cli.models.architectures import NormalisedClassifier, build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import checkpoint_bytes, trained_with
from caa_cli.models.load import probe
from caa_cli.results.store.files import check_writable, write_atomically, written
from caa_cli.results.store.locks import locked
from caa_cli.results.store.ownership import foreign, something_at
from caa_cli.runtime.device import resolve_device
from caa_cli.runtime.memory import is_out_of_memory, memory_held
from caa_cli.training.describe import forecast_rows, plan_rows, result_rows
from caa_cli.training.devices import Ranks
from caa_cli.training.evaluate import smoothed_accuracy
from caa_cli.training.loop import Trainer
from caa_cli.training.sources import Sources, open_sources
from caa_cli.training.state import Unfinished, epoch_line
from caa_cli.training.step import Method


@dataclass
class TrainRun:
    """One run, in one process or in one of several. `resume_command` is the command that goes on with it."""

    plan: TrainPlan
    display: Display
    resume_command: str

    def __post_init__(self) -> None:
        self.ranks = Ranks.from_environment()
        self.unfinished = Unfinished(self.plan)

    def execute(self) -> int:
        """Trains, evaluates, writes; returns the exit code. Raises CaaError for what the user can mend."""
        if self.ranks.rank == 0:
            return self._execute()
        self.display = Display(quiet=True)
        try:
            return self._execute()
        except CaaError as error:  # it may be this process's alone, which the first process can't show
            self.display.error(f"process {self.ranks.rank}: {error.problem}", error.hint)
            return error.exit_code

    def _execute(self) -> int:
        plan = self.plan
        if plan.dry_run:
            return self._begin()
        check_writable(plan.output, "--output")
        # One process writes; the others would find the file locked by it.
        with locked({"--output": plan.output} if self.ranks.rank == 0 else {}):
            self.unfinished.check()
            return DONE if self._finished() else self._begin()

    def _begin(self) -> int:
        plan = self.plan
        device = self.ranks.device(resolve_device(plan.device))
        if plan.download and self.ranks.count > 1:
            raise UsageError("several processes would all --download at once", "download first, with one process")
        sources = open_sources(plan, device)
        for note in sources.notes:
            self.display.warn(note)
        card = self._card(sources.images)
        torch.manual_seed(plan.seed)  # the initial weights; all that follows has generators of its own
        model = self._model(card)
        described = plan_rows(plan, len(sources.train), len(sources.heldout), model, device, self.ranks)
        self.display.plan("caa train", described)
        if plan.dry_run:
            self._forecast(Trainer(model, self._method(), plan, sources.train, sources.heldout, device))
            return DONE
        self.ranks.join(device)
        try:
            trainer = Trainer(model, self._method(), plan, sources.train, sources.heldout, device, self.ranks)
            return self._work(trainer, sources, card)
        finally:
            self.ranks.leave()

    def _forecast(self, trainer: Trainer) -> None:
        """Shows how long the training would take in one process, as one step does; what is held out is left out."""
        try:
            seconds = trainer.seconds_a_step() * trainer.steps() * self.plan.epochs
        except RuntimeError as error:
            raise self._explained(error, trainer) from error
        memory = memory_held(trainer.device)
        self.display.plan("what it takes", forecast_rows(self.plan.epochs * trainer.steps(), seconds, memory))
        self.display.document({"config": self.plan.config(), "seconds_typical": seconds, "memory_bytes": memory})

    def _model(self, card: ModelCard) -> NormalisedClassifier:
        """A new, untrained model. Raises CaaError if it does not take these images, or batches of this size."""
        try:
            model = build(card)
        except RuntimeError as error:
            size = "×".join(map(str, card.input_shape))
            raise UsageError(
                f"no {card.arch} can be built for {size} images ({error})", "use another --arch, or --image-size"
            ) from error
        classes, model.repeat = probe(model.network, card.input_shape, card.arch)
        if classes != card.num_classes:
            raise UsageError(f"{card.arch} has {classes} classes, {card.dataset} has {card.num_classes}")
        least = self.ranks.count * (2 if any(isinstance(m, _BatchNorm) for m in model.modules()) else 1)
        if self.plan.batch_size < least:
            raise UsageError(
                f"--batch-size {self.plan.batch_size} is too small for {card.arch} in {self.ranks.count} processes",
                f"use at least --batch-size {least}",
            )
        return model

    def _work(self, trainer: Trainer, sources: Sources, card: ModelCard) -> int:
        plan = self.plan
        if not trainer.steps():
            raise UsageError(
                f"{len(trainer.train)} images are too few for {self.ranks.count} processes", "start fewer processes"
            )
        if plan.resume and self.unfinished.path.exists():
            for note in self.unfinished.restore(trainer, sources.identity()):
                self.display.warn(note)
            if self.ranks.rank == 0:
                self.unfinished.write_log(trainer)
            self.display.note(f"going on after epoch {trainer.state.epoch} of {self.unfinished.path}")
        if not self.ranks.agree(trainer.state.epoch, trainer.device):
            raise CaaError(
                f"the processes don't all see the same {self.unfinished.path}",
                "keep --output in a folder that all machines share",
            )
        if not plan.resume and self.ranks.rank == 0:
            self.unfinished.discard()
        began = time.perf_counter()
        try:
            self._train(trainer, sources)
            if self.ranks.rank == 0:
                self._finish(trainer, sources.test, card, time.perf_counter() - began)
            return DONE
        except KeyboardInterrupt:
            done = trainer.state.epoch
            where = f"saved in {self.unfinished.path}" if self.unfinished.path.exists() else "done"
            again = self.resume_command if self.ranks.count == 1 else "the same torchrun command and --resume"
            self.display.warn(f"interrupted: {done} of {plan.epochs} epochs are {where}")
            self.display.warn(f"go on with: {again}")
            return INTERRUPTED

    def _train(self, trainer: Trainer, sources: Sources) -> None:
        plan = self.plan
        steps = trainer.steps()
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
                try:
                    report = trainer.run_epoch(on_batch)
                except RuntimeError as error:
                    raise self._explained(error, trainer) from error
                report.seconds = time.perf_counter() - began
                if self.ranks.rank == 0:
                    self.unfinished.save(trainer, sources.identity())
                self.display.progress(epoch_line(report, plan.epochs))

    def _explained(self, error: RuntimeError, trainer: Trainer) -> Exception:
        """What a user can do about an error out of an epoch; the error itself where it is of another kind."""
        again = "; repeat the command with --resume" if self.unfinished.path.exists() else ""
        if is_out_of_memory(error):
            return CaaError(f"{trainer.device} is out of memory", "use a smaller --batch-size, or --dtype bfloat16")
        if self.ranks.count > 1:  # waiting for a process that has ended raises various errors
            return CaaError(
                f"the processes of this training lost each other in epoch {trainer.state.epoch + 1} "
                f"({str(error).splitlines()[0]})",
                f"see what the others said above{again}",
            )
        return error

    def _finish(self, trainer: Trainer, test: Images | None, card: ModelCard, seconds: float) -> None:
        plan, state, model = self.plan, trainer.state, trainer.model
        model.load_state_dict(state.best_weights)
        training: dict[str, Any] = {
            **{key: plan.config()[key] for key in plan.compared_keys()},
            "recipe": plan.recipe,
            "best_epoch": state.best_epoch,
            "heldout_noisy_accuracy": state.best_accuracy,
        }
        if test is not None:
            training |= smoothed_accuracy(model, card, test, trainer.device, plan, self.display)
        card = replace(card, training=training)
        content = checkpoint_bytes(model, card)
        kept = f"{self.unfinished.path} keeps the training: free some space and repeat the command with --resume"
        with written(plan.output, kept):
            write_atomically(plan.output, content)
        self.unfinished.discard()
        self.display.result("result", result_rows(plan, state, training, seconds, len(content), self.unfinished.log))
        self._show_document(training, [vars(report) for report in state.history], seconds)

    def _show_document(self, training: dict[str, Any], history: list[dict[str, Any]], seconds: float) -> None:
        facts = {"config": self.plan.config(), "training": training, "history": history, "seconds": seconds}
        self.display.document({"command": "train", **facts})

    def _method(self) -> Method:
        method: Method = load(METHODS[self.plan.method].runs)(**vars(self.plan.settings))
        return method

    def _card(self, images: Images) -> ModelCard:
        plan = self.plan
        mean, std = NORMALISATIONS[plan.normalisation or "none"]
        if len(mean) not in (1, images.input_shape[0]):
            raise UsageError(
                f"--normalisation {plan.normalisation} is for {len(mean)} channels, {images.name} has "
                f"{images.input_shape[0]}",
                "use --normalisation none",
            )
        return ModelCard(
            arch=plan.arch,
            num_classes=images.num_classes,
            input_shape=images.input_shape,
            mean=mean,
            std=std,
            dataset=images.name,
            sigma=plan.sigma,
            method=plan.method,
            tool_version=__version__,
            class_names=images.class_names,
        )

    def _finished(self) -> bool:
        """Whether the checkpoint of these settings is there already; shows that it is.

        Raises UsageError for a checkpoint of another training, or a file that is not caa's: it must not be lost.
        """
        plan = self.plan
        if not something_at(plan.output):
            return False
        there = trained_with(plan.output)
        if there is None:
            raise foreign("--output", plan.output, "a checkpoint")
        # An unfinished training at this path has the same settings, or was begun with --overwrite.
        if plan.overwrite or self.unfinished.path.exists():
            return False
        differing = differences(there, plan.config(), plan.compared_keys())
        if differing:
            raise UsageError(
                f"{plan.output} is finished, and was made with other settings: {', '.join(differing)}",
                "choose another --output, or add --overwrite to replace it",
            )
        self.display.note(f"{plan.output} is finished already: there is nothing to do")
        self._show_document(there, self.unfinished.history(), 0.0)
        return True

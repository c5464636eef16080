"""`caa train` from the plan to the checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from pkgutil import resolve_name
from typing import Any

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from caa_cli.config.differences import differences
from caa_cli.config.methods import METHODS
from caa_cli.config.train_plan import TrainPlan
from caa_cli.data.images import Images
from caa_cli.display import Bar, Display
from caa_cli.errors import DONE, INTERRUPTED, CaaError, UsageError
from caa_cli.models.architectures import runs_foreign_code
from caa_cli.models.checkpoint import trained_with
from caa_cli.models.limits import last_line
from caa_cli.results.store.files import REPEAT, check_writable, write_atomically, writing
from caa_cli.results.store.locks import locked
from caa_cli.results.store.ownership import foreign_file, something_at
from caa_cli.runtime.device import open_device, resolve_device
from caa_cli.runtime.memory import is_out_of_memory, memory_held
from caa_cli.runtime.signals import uninterrupted
from caa_cli.runtime.words import counted
from caa_cli.training.describe import epoch_line, forecast_rows, next_command, plan_rows, result_rows
from caa_cli.training.devices import Ranks
from caa_cli.training.evaluate import smoothed_accuracy
from caa_cli.training.loop import Trainer
from caa_cli.training.new_classifier import new_classifier
from caa_cli.training.new_denoiser import classifier_digest, new_denoiser
from caa_cli.training.progress import EpochReport
from caa_cli.training.sources import Sources, open_sources
from caa_cli.training.state import Unfinished
from caa_cli.training.step import Method
from caa_cli.training.trainee import Trainee


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
        open_device(device)
        if plan.download and self.ranks.count > 1:
            raise UsageError("several processes would all --download at once", "download first, with one process")
        sources = open_sources(plan, device, self.display.note)
        torch.manual_seed(plan.seed)  # the initial weights; all that follows has generators of its own
        trainee = (new_denoiser if plan.denoises else new_classifier)(plan, sources.images)
        self._check_batch_size(trainee)
        for note in (*sources.notes, *trainee.notes):
            self.display.warn(note)
        described = plan_rows(plan, len(sources.train), len(sources.heldout), trainee, device, self.ranks)
        self.display.plan("caa train", described)
        trainer = partial(Trainer, trainee, self._method(), plan, sources.train, sources.heldout, device)
        if plan.dry_run:
            self._forecast(trainer())
            return DONE
        with self.ranks.joined(device):  # the trainer, which holds the process group, gets no name and so ends within
            return self._work(trainer(self.ranks), sources)

    def _forecast(self, trainer: Trainer) -> None:
        """Shows how long the training would take in one process, as one step does; what is held out is left out."""
        try:
            seconds = trainer.seconds_a_step() * trainer.steps() * self.plan.epochs
        except Exception as error:  # the network may be the user's code
            raise self._explained(error, trainer) from error
        memory = memory_held(trainer.device)
        self.display.forecast("what it takes", forecast_rows(self.plan.epochs * trainer.steps(), seconds, memory))
        self.display.document({"config": self.plan.config(), "seconds_typical": seconds, "memory_bytes": memory})

    def _check_batch_size(self, trainee: Trainee) -> None:
        plan, normalised = self.plan, any(isinstance(m, _BatchNorm) for m in trainee.network.modules())
        least = self.ranks.count * (2 if normalised else 1)
        if plan.batch_size < least:
            raise UsageError(
                f"--batch-size {plan.batch_size} is too small for {plan.arch} in "
                f"{counted(self.ranks.count, 'process')}",
                f"use at least --batch-size {least}",
            )

    def _work(self, trainer: Trainer, sources: Sources) -> int:
        plan = self.plan
        if not trainer.steps():
            raise UsageError(
                f"too few images ({len(trainer.train)}) for {counted(self.ranks.count, 'process')}",
                "start fewer processes",
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
                self._finish(trainer, sources.test, time.perf_counter() - began)
            return DONE
        except KeyboardInterrupt:
            done = trainer.state.epoch
            where = f"saved in {self.unfinished.path}" if self.unfinished.path.exists() else "done"
            again = self.resume_command if self.ranks.count == 1 else "the same torchrun command and --resume"
            self.display.warn(f"interrupted: {done} of {counted(plan.epochs, 'epoch')} {where}")
            self.display.warn(f"go on with: {again}")
            return INTERRUPTED

    def _train(self, trainer: Trainer, sources: Sources) -> None:
        epochs, steps = self.plan.epochs, trainer.steps()
        with self.display.bar("steps", epochs * steps, trainer.state.epoch * steps) as bar:
            while trainer.state.epoch < epochs:
                report = self._run_epoch(trainer, bar)
                if self.ranks.rank == 0:
                    with uninterrupted():
                        self.unfinished.save(trainer, sources.identity())
                self.display.progress(epoch_line(report, epochs))

    def _run_epoch(self, trainer: Trainer, bar: Bar) -> EpochReport:
        epoch, steps = trainer.state.epoch, trainer.steps()

        def on_batch(step: int, loss: float, accuracy: float | None) -> None:
            right = "" if accuracy is None else f" · noisy accuracy {100 * accuracy:.1f}%"
            bar.update(epoch * steps + step, f"epoch {epoch + 1}/{self.plan.epochs} · loss {loss:.4g}{right}")

        began = time.perf_counter()
        try:
            report = trainer.run_epoch(on_batch)
        except Exception as error:  # the network may be the user's code
            raise self._explained(error, trainer) from error
        report.seconds = time.perf_counter() - began
        return report

    def _explained(self, error: Exception, trainer: Trainer) -> Exception:
        """The error of an epoch as a CaaError with advice; the error itself where there is no advice."""
        if isinstance(error, CaaError):
            return error
        again = "; repeat the command with --resume" if self.unfinished.path.exists() else ""
        if is_out_of_memory(error):
            half = ", or --dtype bfloat16" if self.plan.dtype == "float32" else ""
            return CaaError(f"{trainer.device} is out of memory", f"use a smaller --batch-size{half}")
        # Waiting for a process that has ended raises various of these.
        if self.ranks.count > 1 and isinstance(error, RuntimeError):
            return CaaError(
                f"the processes of this training lost each other in epoch {trainer.state.epoch + 1} "
                f"({str(error).splitlines()[0]})",
                f"see what the others said above{again}",
            )
        foreign = self.plan.classifier or (self.plan.arch if runs_foreign_code(self.plan.arch) else None)
        if foreign is None:
            return error
        layout = self.plan.channels_last and "view size is not compatible" in str(error)
        return CaaError(
            f"a step of training with {foreign} failed ({type(error).__name__}: {last_line(error)})",
            "add --no-channels-last, or let the network call reshape in place of view"
            if layout
            else "try a step in Python, in training mode: network.train()",
        )

    def _finish(self, trainer: Trainer, test: Images | None, seconds: float) -> None:
        plan, state, trainee = self.plan, trainer.state, trainer.trainee
        trainee.network.load_state_dict(state.best_weights)
        training: dict[str, Any] = {
            **{key: plan.config()[key] for key in plan.compared_keys()},
            **trainee.identity(),
            "recipe": plan.recipe,
            "best_epoch": state.best_epoch,
            "heldout_noisy_accuracy": state.best_accuracy,
            "heldout_mse": state.best.heldout_mse if state.best else None,
        }
        base = trainee.base_classifier
        if test is not None and base is not None:
            training |= smoothed_accuracy(base, trainee.num_classes, test, trainer.device, plan, self.display)
        content = trainee.content(training)
        with writing(plan.output, REPEAT):
            write_atomically(plan.output, content)
        self.unfinished.discard()
        rows = result_rows(plan, state, training, seconds, len(content), self.unfinished.log)
        self.display.result("result", rows, [("next", next_command(plan))])
        self._show_document(training, [vars(report) for report in state.history], seconds)

    def _show_document(self, training: dict[str, Any], history: list[dict[str, Any]], seconds: float) -> None:
        facts = {"config": self.plan.config(), "training": training, "history": history, "seconds": seconds}
        self.display.document({"command": "train", **facts})

    def _method(self) -> Method:
        method: Method = resolve_name(METHODS[self.plan.method].runs)(**vars(self.plan.settings))
        return method

    def _finished(self) -> bool:
        """Whether the checkpoint of these settings is there already; shows that it is.

        Raises UsageError for a checkpoint of another training, or a file that is not caa's: it must not be lost.
        """
        plan = self.plan
        if not something_at(plan.output):
            return False
        there = trained_with(plan.output)
        if there is None:
            raise foreign_file("--output", plan.output, "a checkpoint")
        # An unfinished training at this path has the same settings, or was begun with --overwrite.
        if self.unfinished.path.exists() or (plan.overwrite and not plan.resume):
            return False
        requested = {**plan.config(), "classifier_sha256": classifier_digest(plan)}
        differing = differences(there, requested, [*plan.compared_keys(), "classifier_sha256"])
        if differing:
            if plan.overwrite:
                return False
            raise UsageError(
                f"{plan.output} is finished, and was made with other settings: {', '.join(differing)}",
                "choose another --output, or add --overwrite to replace it",
            )
        self.display.note(f"{plan.output} is finished already: there is nothing to do")
        self._show_document(there, self.unfinished.history(), 0.0)
        return True

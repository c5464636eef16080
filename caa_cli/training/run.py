"""`caa train` from the plan to the checkpoint."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, fields, replace
from typing import Any

import torch

from caa_cli import __version__
from caa_cli.data.datasets import open_dataset
from caa_cli.data.files import ImageFiles
from caa_cli.data.images import Images, ImageSet
from caa_cli.data.load import load
from caa_cli.device import resolve_device
from caa_cli.display import Display
from caa_cli.errors import DONE, INTERRUPTED, CaaError, UsageError
from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import checkpoint_bytes, read_weights
from caa_cli.names import NORMALISATIONS
from caa_cli.plan import differences
from caa_cli.results.files import check_writable, write_atomically
from caa_cli.signals import termination_interrupts
from caa_cli.smoothing.classifier import is_out_of_memory
from caa_cli.train_plan import TrainPlan
from caa_cli.training.describe import augmentation, plan_rows, result_rows
from caa_cli.training.devices import Ranks
from caa_cli.training.evaluate import smoothed_accuracy, spread
from caa_cli.training.feed import Feed, FileFeed, MemoryFeed
from caa_cli.training.loop import Recipe, Trainer
from caa_cli.training.methods import build_method
from caa_cli.training.state import Unfinished, epoch_line
from caa_cli.training.step import Method

# Held-out images: a tenth of the training images, but no more than tell epochs apart.
HELDOUT_SHARE, HELDOUT_MOST = 10, 5000
# Image files are held in memory where all their pixels take no more bytes than this. ImageNet's never are: its crops
# are cut out of the whole pictures.
MEMORY = 4 * 2**30


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
        except CaaError as error:  # which the first process says
            return error.exit_code

    def _execute(self) -> int:
        plan = self.plan
        if not plan.dry_run:
            check_writable(plan.output, "--output")
            self.unfinished.check()
            if plan.resume and self._finished():
                self.display.note(f"{plan.output} is finished already: there is nothing to resume")
                return DONE
        device = self.ranks.device(resolve_device(plan.device))
        if plan.download and self.ranks.count > 1:
            raise UsageError("several processes would all --download at once", "download first, with one process")
        images = self._open("train")
        for note in images.notes:
            self.display.warn(note)
        train, heldout = self._feeds(images, device)
        card = self._card(images)
        torch.manual_seed(plan.seed)  # the initial weights; all that follows has generators of its own
        model = build(card)
        described = plan_rows(plan, len(train), len(heldout), model, device, self.ranks)
        self.display.plan("caa train", described)
        if plan.dry_run:
            self.display.document({"config": plan.config()})
            return DONE
        self.ranks.join(device)
        try:
            return self._work(
                Trainer(model, self._method(), self._recipe(), train, heldout, device, self.ranks), card
            )
        finally:
            self.ranks.leave()

    def _work(self, trainer: Trainer, card: ModelCard) -> int:
        plan = self.plan
        if not trainer.steps() or plan.batch_size < 2 * self.ranks.count > 2:
            raise UsageError(
                f"{len(trainer.train)} images in batches of {plan.batch_size} are too few for {self.ranks.count} "
                "processes: each needs two a step",
                "raise --batch-size, or start fewer processes",
            )
        if plan.resume and self.unfinished.path.exists():
            self.unfinished.restore(trainer)
            self.display.note(f"going on after epoch {trainer.state.epoch} of {self.unfinished.path}")
        self.ranks.wait()
        if not plan.resume and self.ranks.rank == 0:
            self.unfinished.discard()
        began = time.perf_counter()
        try:
            with termination_interrupts():
                self._train(trainer)
                if self.ranks.rank == 0:
                    self._finish(trainer, card, time.perf_counter() - began)
                return DONE
        except KeyboardInterrupt:
            done = trainer.state.epoch
            where = f"saved in {self.unfinished.path}" if self.unfinished.path.exists() else "done"
            self.display.warn(f"interrupted: {done} of {plan.epochs} epochs are {where}")
            self.display.warn(f"go on with: {self.resume_command}")
            return INTERRUPTED

    def _train(self, trainer: Trainer) -> None:
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
                    self.unfinished.save(trainer)
                self.display.note(epoch_line(report, plan.epochs))

    def _explained(self, error: RuntimeError, trainer: Trainer) -> Exception:
        """What a user can do about an error out of an epoch; the error itself where it is of another kind."""
        again = "; repeat the command with --resume" if self.unfinished.path.exists() else ""
        if is_out_of_memory(error):
            return CaaError(f"{trainer.device} is out of memory", "use a smaller --batch-size, or --dtype bfloat16")
        if self.ranks.count > 1:  # a process that waits for one that is gone gets many kinds of errors
            return CaaError(
                f"the processes of this training lost each other in epoch {trainer.state.epoch + 1} "
                f"({str(error).splitlines()[0]})",
                f"see what the others said above{again}",
            )
        return error

    def _finish(self, trainer: Trainer, card: ModelCard, seconds: float) -> None:
        plan, state, model = self.plan, trainer.state, trainer.model
        model.load_state_dict(state.best_weights)
        training: dict[str, Any] = {
            **{key: plan.config()[key] for key in plan.compared_keys()},
            "recipe": plan.recipe,
            "best_epoch": state.best_epoch,
            "heldout_noisy_accuracy": state.best_accuracy,
        }
        if plan.evaluate_samples:
            images = self._open("test")
            training |= smoothed_accuracy(
                model,
                card,
                images,
                trainer.device,
                plan.evaluate_limit,
                plan.evaluate_samples,
                plan.seed,
                self.display,
            )
        card = replace(card, training=training)
        content = checkpoint_bytes(model, card)
        try:
            write_atomically(plan.output, content)
        except OSError as error:
            raise CaaError(
                f"can't write {plan.output} ({error.strerror})",
                f"{self.unfinished.path} keeps the training: free some space and repeat the command with --resume",
            ) from error
        self.unfinished.discard()
        self.display.result("result", result_rows(plan, state, training, seconds, len(content), self.unfinished.log))
        self.display.document(
            {
                "command": "train",
                "config": plan.config(),
                "training": training,
                "history": [vars(report) for report in state.history],
                "seconds": seconds,
            }
        )

    def _open(self, split: str) -> ImageSet | ImageFiles:
        plan = self.plan
        return open_dataset(plan.dataset, plan.data_dir, split, image_size=plan.image_size, download=plan.download)

    def _feeds(self, images: ImageSet | ImageFiles, device: torch.device) -> tuple[Feed, Feed]:
        """(the images to train on, those held out). The latter are spread evenly: files are sorted by class."""
        plan, total = self.plan, len(images)
        count = min(HELDOUT_MOST, total // HELDOUT_SHARE) if plan.heldout is None else plan.heldout
        if count > total - 2:
            raise UsageError(
                f"--heldout {count} leaves too few of the {total} images to train on", "use a smaller --heldout"
            )
        held = torch.zeros(total, dtype=torch.bool)
        held[spread(total, count)] = True
        chosen = augmentation(plan)
        if isinstance(images, ImageFiles) and (plan.dataset == "imagenet" or _bytes(images) > MEMORY):
            training, kept = torch.nonzero(~held)[:, 0].tolist(), torch.nonzero(held)[:, 0].tolist()
            return (
                FileFeed(images, training, device, chosen, plan.workers),
                FileFeed(images, kept, device, "none", plan.workers),
            )
        found = load(images)
        return (
            MemoryFeed(found.images[~held], found.labels[~held], device, chosen),
            MemoryFeed(found.images[held], found.labels[held], device),
        )

    def _method(self) -> Method:
        return build_method(self.plan.method, self.plan.method_settings())

    def _recipe(self) -> Recipe:
        """The plan's settings that the loop needs, by the same names."""
        settings = {setting.name: getattr(self.plan, setting.name) for setting in fields(Recipe)}
        return Recipe(**{**settings, "dtype": getattr(torch, self.plan.dtype)})

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
        )

    def _finished(self) -> bool:
        """Whether the checkpoint is there already, made with these settings."""
        if self.unfinished.path.exists() or not self.plan.output.exists():
            return False
        card = read_weights(self.plan.output).card
        return card is not None and not differences(card.training, self.plan.config(), self.plan.compared_keys())


def _bytes(images: ImageFiles) -> int:
    return len(images) * math.prod(images.input_shape)

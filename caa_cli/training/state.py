"""Files of a training in progress, next to its checkpoint: its state and a log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from caa_cli.config.differences import differences
from caa_cli.config.paths import TRAINING, TRAINING_LOG, sidecar
from caa_cli.config.train_plan import TrainPlan
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.checkpoint_file import read_file
from caa_cli.models.confined import read_confined
from caa_cli.models.pickled import read_training
from caa_cli.results.store.files import REPEAT, write_atomically, writing
from caa_cli.results.store.ownership import foreign_file
from caa_cli.training.loop import Trainer


@dataclass(frozen=True)
class Unfinished:
    """The files `<output>.training`, from which a run resumes, and `<output>.log.jsonl`, with a line per epoch."""

    plan: TrainPlan

    @property
    def path(self) -> Path:
        return sidecar(self.plan.output, TRAINING)

    @property
    def log(self) -> Path:
        return sidecar(self.plan.output, TRAINING_LOG)

    def check(self) -> None:
        """Raise UsageError if the files exist already and are not to be continued or overwritten."""
        for path, beginning in ((self.path, _ARCHIVE), (self.log, _LOG)):
            if path.exists() and not (path.is_file() and _begins(path, beginning)):
                raise foreign_file("--output", path, "a training" if path == self.path else "the log of a training")
        if self.plan.resume or self.plan.overwrite:
            return
        if self.path.exists():
            raise UsageError(
                f"{self.path} holds a training that was cut short",
                "add --resume to go on with it, or --overwrite to begin anew",
            )
        if self.log.exists() and not self.plan.output.exists():
            raise UsageError(
                f"{self.log} is the log of another training",
                "choose another --output, move it away, or add --overwrite",
            )

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)

    def history(self) -> list[dict[str, Any]]:
        """The lines of the log; empty without a readable log."""
        try:
            return [json.loads(line) for line in self.log.read_text(encoding="utf-8").splitlines()]
        except (OSError, ValueError):
            return []

    def save(self, trainer: Trainer, images: dict[str, Any]) -> None:
        """Save the state and the log, after each epoch; images: their identification."""
        buffer = BytesIO()
        about = {
            "config": self.plan.config(),
            "processes": trainer.ranks.count,
            **images,
            **trainer.trainee.identity(),
        }
        try:
            torch.save({**about, **trainer.state_dict()}, buffer)
        except RuntimeError as error:
            if isinstance(error.__context__, MemoryError):  # over which PyTorch's writer fails once more
                raise MemoryError from error
            raise
        self._write(self.path, buffer.getvalue())
        self.write_log(trainer)

    def write_log(self, trainer: Trainer) -> None:
        """Write the log of all epochs so far; also after `restore`, as a kill may come between state and log."""
        lines = "".join(json.dumps(vars(report), allow_nan=False) + "\n" for report in trainer.state.history)
        self._write(self.log, lines.encode())

    @staticmethod
    def _write(path: Path, content: bytes) -> None:
        with writing(path, REPEAT):
            write_atomically(path, content)

    def restore(self, trainer: Trainer, images: dict[str, Any]) -> list[str]:
        """Restore the saved state in `trainer`; returns notes for the user.

        Raises UsageError for a training with other settings, images or classifier, CaaError for a damaged file.
        """
        anew = "use --overwrite to begin the training anew"
        damaged = CaaError(f"{self.path} can't be read: it is damaged", anew)
        try:
            content, _ = read_file(self.path)
            saved = read_confined(read_training, self.path, content, damaged)
            config = dict(saved["config"])
        except CaaError as error:
            if error is damaged:
                raise
            raise error.with_advice(f"or {anew}") from error  # the reason may pass, such as a want of memory
        except (TypeError, KeyError, ValueError) as error:
            raise damaged from error
        differing = differences(config, self.plan.config(), self.plan.compared_keys())
        if differing:
            raise UsageError(
                f"{self.path} belongs to a training with other settings: {', '.join(differing)}",
                "repeat the command with the settings of that training, or choose another --output",
            )
        if any(saved.get(key) != value for key, value in images.items()):
            raise UsageError(
                f"{self.path} belongs to a training on other images: files came or went since",
                "restore the data set, or use --overwrite to begin the training anew",
            )
        if any(saved.get(key) != value for key, value in trainer.trainee.identity().items()):
            raise UsageError(
                f"{self.path} belongs to a training for another --classifier",
                "name the classifier of that training, or use --overwrite to begin the training anew",
            )
        try:
            trainer.load_state_dict(saved)
        except (RuntimeError, ValueError, KeyError, TypeError) as error:
            raise damaged from error
        before, now = saved.get("processes"), trainer.ranks.count
        return [] if before == now else [f"processes of this training: {before} before, {now} now, with other noise"]


# The first bytes of a file of torch.save, and of a line of the log.
_ARCHIVE, _LOG = b"PK\x03\x04", b'{"epoch"'


def _begins(path: Path, beginning: bytes) -> bool:
    """Whether the file begins with these bytes or is empty."""
    with path.open("rb") as file:
        return file.read(len(beginning)) in (beginning, b"")

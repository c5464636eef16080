"""How far a training has come: a report an epoch, and what a resumed run continues from."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor


@dataclass
class EpochReport:
    """A line of the training log. Accuracies are under single noise draws; None if not known.

    heldout_mse: the mean squared error of a denoiser's images, over images and pixels.
    """

    epoch: int
    loss: float
    train_accuracy: float | None
    heldout_accuracy: float | None
    learning_rate: float
    seconds: float = 0.0
    unreadable: int = 0
    heldout_mse: float | None = None

    def better_than(self, other: EpochReport) -> bool:
        """Whether the weights of this later epoch are preferred: by accuracy, else by error, else as the later."""
        if self.heldout_accuracy is not None and other.heldout_accuracy is not None:
            return self.heldout_accuracy > other.heldout_accuracy
        if self.heldout_mse is not None and other.heldout_mse is not None:
            return self.heldout_mse < other.heldout_mse
        return True


@dataclass
class TrainingState:
    """The state that a resumed run continues from. Without held-out images the best epoch is the last one."""

    epoch: int = 0
    best_epoch: int = 0
    best_accuracy: float | None = None
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[EpochReport] = field(default_factory=list)

    @property
    def best(self) -> EpochReport | None:
        """The report of the best epoch; None before the first."""
        return self.history[self.best_epoch - 1] if self.history else None

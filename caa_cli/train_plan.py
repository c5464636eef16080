"""What a training run will do: frozen, checked, and free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from caa_cli import checks
from caa_cli.names import METHODS, SCHEDULES
from caa_cli.plan import Plan


@dataclass(frozen=True, kw_only=True)
class TrainPlan(Plan):
    """One run of `caa train`."""

    dataset: str = "mnist"
    data_dir: Path | None = None
    arch: str = "small-cnn"
    sigma: float = 0.5
    method: str = "gaussian"
    epochs: int = 50
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: str = "constant"
    seed: int = 0
    heldout: int | None = None
    evaluate_samples: int = 100
    evaluate_limit: int = 1000
    device: str = "auto"
    output: Path = Path("model.safetensors")
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    # An interrupted run may be resumed elsewhere, and its evaluation is no part of the training.
    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset(
        ["data_dir", "device", "output", "resume", "overwrite", "dry_run", "evaluate_samples", "evaluate_limit"]
    )

    def __post_init__(self) -> None:
        checks.one_of("--method", self.method, METHODS)
        checks.one_of("--schedule", self.schedule, SCHEDULES)
        checks.at_least_one("--epochs", self.epochs)
        checks.at_least_one("--batch-size", self.batch_size)
        checks.at_least_one("--heldout", self.heldout)
        checks.not_negative("--evaluate-samples", self.evaluate_samples)
        checks.at_least_one("--evaluate-limit", self.evaluate_limit)
        checks.positive("--sigma", self.sigma)
        checks.positive("--learning-rate", self.learning_rate)
        checks.seed_in_range(self.seed)

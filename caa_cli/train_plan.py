"""What a training run will do: frozen, checked, and free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from caa_cli import checks
from caa_cli.errors import UsageError
from caa_cli.names import (
    AUGMENTATIONS,
    INNER_ATTACKS,
    METHODS,
    NORMALISATION_OF,
    NORMALISATIONS,
    OPTIMIZERS,
    SCHEDULES,
    TRAINING_DTYPES,
)
from caa_cli.paths import check_distinct, check_file_name, sidecar
from caa_cli.plan import Plan

# The settings that belong to a method, with their defaults; None elsewhere.
METHOD_SETTINGS: dict[str, dict[str, Any]] = {
    "gaussian": {"draws": 1},
    "stability": {"weight": 2.0},
    "smoothadv": {"draws": 2, "inner_attack": "pgd", "epsilon": 1.0, "attack_steps": 10, "warmup": 10},
    "macer": {"draws": 16, "weight": 12.0, "gamma": 8.0, "beta": 16.0, "defer": 0},
    "consistency": {"draws": 2, "weight": 10.0, "eta": 0.5},
}


@dataclass(frozen=True, kw_only=True)
class TrainPlan(Plan):
    """One run of `caa train`. Settings of the method and the normalisation that are None get their defaults here."""

    dataset: str = "mnist"
    data_dir: Path | None = None
    download: bool = False
    image_size: int | None = None
    arch: str = "small-cnn"
    normalisation: str | None = None
    sigma: float = 0.5

    method: str = "gaussian"
    draws: int | None = None
    weight: float | None = None
    eta: float | None = None
    gamma: float | None = None
    beta: float | None = None
    defer: int | None = None
    inner_attack: str | None = None
    epsilon: float | None = None
    attack_steps: int | None = None
    warmup: int | None = None

    recipe: str | None = None
    epochs: int = 50
    batch_size: int = 128
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 0.0
    schedule: str = "constant"
    step_epochs: int = 30
    clip_norm: float | None = None
    augment: str = "auto"
    heldout: int | None = None

    evaluate_samples: int = 100
    evaluate_limit: int = 1000

    seed: int = 0
    device: str = "auto"
    dtype: str = "float32"
    channels_last: bool = True
    workers: int = 4
    output: Path = Path("model.safetensors")
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    # An interrupted run may be resumed elsewhere, and its evaluation is no part of the training.
    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset(
        "data_dir download recipe evaluate_samples evaluate_limit device workers output".split()  # noqa: SIM905
    ) | {"resume", "overwrite", "dry_run"}

    def __post_init__(self) -> None:
        checks.one_of("--method", self.method, METHODS)
        for name in sorted({name for settings in METHOD_SETTINGS.values() for name in settings}):
            if name in METHOD_SETTINGS[self.method]:
                self._default(name, METHOD_SETTINGS[self.method][name])
            elif getattr(self, name) is not None:
                raise UsageError(
                    f"{checks.flag(name)} is no setting of the method {self.method}",
                    f"leave it out; {self.method} has " + ", ".join(map(checks.flag, METHOD_SETTINGS[self.method])),
                )
        self._default("normalisation", NORMALISATION_OF.get(self.dataset, "none"))
        checks.one_of("--normalisation", str(self.normalisation), NORMALISATIONS)
        checks.one_of("--schedule", self.schedule, SCHEDULES)
        checks.one_of("--optimizer", self.optimizer, OPTIMIZERS)
        checks.one_of("--augment", self.augment, AUGMENTATIONS)
        checks.one_of("--dtype", self.dtype, TRAINING_DTYPES)
        if self.inner_attack is not None:
            checks.one_of("--inner-attack", self.inner_attack, INNER_ATTACKS)
        for name in ("epochs", "batch_size", "image_size", "step_epochs", "evaluate_limit", "draws", "attack_steps"):
            checks.at_least_one(checks.flag(name), getattr(self, name))
        for name in ("heldout", "evaluate_samples", "workers", "defer", "warmup"):
            checks.not_negative(checks.flag(name), getattr(self, name) or 0)
        for name in ("sigma", "learning_rate", "clip_norm", "epsilon", "gamma", "beta"):
            checks.positive(checks.flag(name), getattr(self, name))
        for name in ("weight", "eta", "weight_decay", "momentum"):
            checks.at_least_zero(checks.flag(name), getattr(self, name))
        if self.method in ("macer", "consistency") and (self.draws or 0) < 2:
            raise UsageError(
                f"--draws {self.draws}: {self.method} compares several noises of an image", "use at least --draws 2"
            )
        if self.momentum >= 1:
            raise UsageError(f"--momentum must be below 1, not {self.momentum:g}", "for instance --momentum 0.9")
        checks.seed_in_range(self.seed)
        check_file_name("--output", self.output)
        check_distinct([("--data-dir", self.data_dir)], self.writes().items())

    def writes(self) -> dict[str, Path | None]:
        """All that the run writes, by what it is."""
        return {
            "--output": self.output,
            "the state of --output": sidecar(self.output, ".training"),
            "the log of --output": sidecar(self.output, ".log.jsonl"),
        }

    def method_settings(self) -> dict[str, Any]:
        """The settings of the method, none of them None."""
        return {name: getattr(self, name) for name in METHOD_SETTINGS[self.method]}

    def _default(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)  # frozen from here on

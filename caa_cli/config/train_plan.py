"""What a training run will do: frozen, checked, and free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from caa_cli.config import methods
from caa_cli.config.choices import AUGMENTATIONS, NORMALISATIONS, OPTIMIZERS, SCHEDULES, TRAINING_DTYPES
from caa_cli.config.datasets import DATASETS
from caa_cli.config.methods import METHODS
from caa_cli.config.paths import check_distinct, sidecar
from caa_cli.config.plan import Plan
from caa_cli.config.ranges import (
    IMAGE_SIZE,
    MOST_STEPS,
    SEED,
    SIGMA,
    Count,
    FileName,
    NotNegative,
    OneOf,
    Positive,
    Range,
)
from caa_cli.config.settings import Settings


@dataclass(frozen=True, kw_only=True)
class TrainPlan(Plan):
    """One run of `caa train`. settings: the method's own; None: its defaults. normalisation: None: the data set's."""

    dataset: Annotated[str, OneOf(DATASETS)] = "mnist"
    data_dir: Path | None = None
    download: bool = False
    image_size: Annotated[int | None, IMAGE_SIZE] = None
    arch: str = "small-cnn"
    normalisation: Annotated[str | None, OneOf(NORMALISATIONS)] = None
    sigma: Annotated[float, SIGMA] = 0.5

    method: Annotated[str, OneOf(METHODS)] = "gaussian"
    settings: Settings = None  # type: ignore[assignment]  # filled in below

    recipe: str | None = None
    epochs: Annotated[int, Count(most=MOST_STEPS)] = 50
    batch_size: Annotated[int, Count(most=MOST_STEPS)] = 128
    optimizer: Annotated[str, OneOf(OPTIMIZERS)] = "adam"
    learning_rate: Annotated[float, Positive()] = 1e-3
    momentum: Annotated[float, Range(0, 1, below=True, hint="for instance --momentum 0.9")] = 0.9
    weight_decay: Annotated[float, NotNegative()] = 0.0
    schedule: Annotated[str, OneOf(SCHEDULES)] = "constant"
    step_epochs: Annotated[int, Count(most=MOST_STEPS)] = 30
    clip_norm: Annotated[float | None, Positive()] = None
    augment: Annotated[str, OneOf(AUGMENTATIONS)] = "auto"
    heldout: Annotated[int | None, Count(0)] = None

    evaluate_samples: Annotated[int, Count(0)] = 100
    evaluate_limit: Annotated[int, Count()] = 1000

    seed: Annotated[int, SEED] = 0
    device: str = "auto"
    dtype: Annotated[str, OneOf(TRAINING_DTYPES)] = "float32"
    channels_last: bool = True
    workers: Annotated[int, Count(0, 1024)] = 4
    output: Annotated[Path, FileName()] = Path("model.safetensors")
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    # An interrupted run may be resumed elsewhere, and its evaluation is no part of the training.
    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset(
        "data_dir download recipe evaluate_samples evaluate_limit device workers output".split()  # noqa: SIM905
    ) | {"resume", "overwrite", "dry_run"}

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The plan of values by users' names, the method's settings among them. Raises UsageError."""
        return super().of(**{**given, "settings": methods.chosen(given.get("method", cls.method), given)})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.normalisation is None:
            object.__setattr__(self, "normalisation", DATASETS[self.dataset].normalisation)
        if self.settings is None:
            object.__setattr__(self, "settings", METHODS[self.method].settings())  # frozen from here on
        methods.check(self.method, self.settings)
        check_distinct([("--data-dir", self.data_dir)], self.writes().items())

    def writes(self) -> dict[str, Path | None]:
        """All that the run writes, by what it is."""
        return {
            "--output": self.output,
            "the state of --output": sidecar(self.output, ".training"),
            "the log of --output": sidecar(self.output, ".log.jsonl"),
        }

    def config(self) -> dict[str, Any]:
        """Every setting, as JSON; those of all methods by name, where `settings` stands."""
        config: dict[str, Any] = {}
        for name, value in super().config().items():
            config |= methods.flat(self.settings) if name == "settings" else {name: value}
        return config

    def compared_keys(self) -> list[str]:
        names = super().compared_keys()
        place = names.index("settings")
        return [*names[:place], *methods.every_setting(), *names[place + 1 :]]

"""What a training run will do: frozen, checked, and free of torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from caa_cli.config import methods
from caa_cli.config.choices import (
    ARCHITECTURES,
    AUGMENTATIONS,
    DENOISER_ARCHITECTURES,
    MSE,
    NORMALISATIONS,
    OPTIMIZERS,
    SCHEDULES,
    TRAINING_DTYPES,
)
from caa_cli.config.datasets import DATASETS
from caa_cli.config.methods import METHODS, MethodSettings
from caa_cli.config.paths import TRAINING, TRAINING_LOG, check_distinct, sidecar
from caa_cli.config.plan import Plan
from caa_cli.config.ranges import (
    IMAGE_SIZE,
    MEAN,
    MOST_STEPS,
    SEED,
    SIGMA,
    STD,
    Count,
    FileName,
    NotNegative,
    OneOf,
    Positive,
    Range,
    flag,
)
from caa_cli.config.recipes import RECIPES
from caa_cli.config.settings import Shown, Suggested, Takes
from caa_cli.errors import UsageError

# What `--augment auto` stands for, by data set.
_AUGMENT_AUTO = ", ".join(f"{spec.augment} for {name}" for name, spec in DATASETS.items() if spec.augment != "none")


@dataclass(frozen=True, kw_only=True)
class TrainPlan(Plan):
    """One run of `caa train`.

    arch: of what is trained; None: the method's default.  normalisation: None: the data set's, `none` of a denoiser.
    settings: the method's own; None: its defaults.  classifier…: behind a denoiser, which alone is trained.
    """

    dataset: Annotated[str, OneOf(DATASETS), f"One of: {', '.join(DATASETS)}."] = "mnist"
    data_dir: Path | None = None
    download: bool = False
    image_size: Annotated[int | None, IMAGE_SIZE] = None
    arch: Annotated[
        str,
        f"Architecture: {', '.join(ARCHITECTURES)}, or package.module:factory; of a denoiser: "
        f"{', '.join(DENOISER_ARCHITECTURES)}.",
        Suggested((*ARCHITECTURES, *DENOISER_ARCHITECTURES)),
        Shown(f"small-cnn; of a denoiser {DENOISER_ARCHITECTURES[0]}"),
    ] = None  # type: ignore[assignment]  # filled in below
    normalisation: Annotated[
        str | None,
        OneOf(NORMALISATIONS),
        f"How images are normalised, after noise is added: {', '.join(NORMALISATIONS)}.",
        Shown("the data set's"),
    ] = None
    sigma: Annotated[float, SIGMA, "Standard deviation of the noise to train for, for pixels in [0, 1]."] = 0.5

    method: Annotated[str, OneOf(METHODS), f"Training method: {', '.join(METHODS)}."] = "gaussian"
    settings: MethodSettings = None  # type: ignore[assignment]  # filled in below
    classifier: str | None = None
    classifier_arch: Annotated[
        str | None,
        "denoiser: the classifier's architecture.",
        Takes("NAME"),
        Suggested(ARCHITECTURES),
        Shown("the checkpoint's, or recognised"),
    ] = None
    classifier_mean: Annotated[tuple[float, ...] | None, MEAN] = None
    classifier_std: Annotated[tuple[float, ...] | None, STD] = None
    classifier_size: Annotated[int | None, IMAGE_SIZE] = None
    trust_checkpoint: bool = False

    recipe: Annotated[
        str | None,
        OneOf(RECIPES),
        f"Settings of a published model, for options that are not given: {', '.join(RECIPES)}.",
        Shown("none"),
    ] = None
    epochs: Annotated[int, Count(most=MOST_STEPS), "Passes over the images."] = 50
    batch_size: Annotated[int, Count(most=MOST_STEPS), "Images per step."] = 128
    optimizer: Annotated[str, OneOf(OPTIMIZERS), f"{' or '.join(OPTIMIZERS)}."] = "adam"
    learning_rate: Annotated[float, Positive(), "Learning rate at the start."] = 1e-3
    momentum: Annotated[float, Range(0, 1, below=True, hint="for instance --momentum 0.9"), "Momentum of sgd."] = 0.9
    weight_decay: Annotated[float, NotNegative(), "Weight decay (L2 penalty)."] = 0.0
    schedule: Annotated[str, OneOf(SCHEDULES), f"Schedule of the learning rate: {', '.join(SCHEDULES)}."] = "constant"
    step_epochs: Annotated[
        int, Count(most=MOST_STEPS), "With --schedule step: epochs between divisions of the rate by 10."
    ] = 30
    clip_norm: Annotated[float | None, Positive(), "Clip gradients to this L2 norm.", Shown("none")] = None
    augment: Annotated[
        str, OneOf(AUGMENTATIONS), f"Augmentation: {', '.join(AUGMENTATIONS)}; auto: {_AUGMENT_AUTO}."
    ] = "auto"
    heldout: Annotated[
        int | None,
        Count(0),
        "Training images kept back to choose the best epoch by; 0: keep the last epoch.",
        Shown("a tenth, at most 5000"),
    ] = None

    evaluate_samples: Annotated[
        int, Count(0), "Noise samples per test image, to measure smoothed accuracy at the end; 0: don't."
    ] = 100
    evaluate_limit: Annotated[int, Count(), "How many test images to evaluate."] = 1000

    seed: Annotated[int, SEED] = 0
    device: str = "auto"
    dtype: Annotated[
        str, OneOf(TRAINING_DTYPES), f"Precision of forward and backward passes: {', '.join(TRAINING_DTYPES)}."
    ] = "float32"
    channels_last: Annotated[bool, "Memory layout of images."] = True
    workers: Annotated[
        int, Count(0, 1024), "Processes that decode images, for data sets that are not held in memory."
    ] = 4
    output: Annotated[Path, FileName(), "Where to write the checkpoint.", Takes("FILE.safetensors")] = Path(
        "model.safetensors"
    )
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    # An interrupted run may be resumed elsewhere, and its evaluation is no part of the training. Of a classifier the
    # content is compared, not the path.
    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset(
        "data_dir download recipe evaluate_samples evaluate_limit device workers output classifier".split()  # noqa: SIM905
    ) | {"trust_checkpoint", "resume", "overwrite", "dry_run"}

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The plan of values by users' names, the method's settings among them. Raises UsageError."""
        return super().of(**{**given, "settings": methods.chosen(given.get("method", cls.method), given)})

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fill_in({"settings": METHODS[self.method].settings()})
        methods.check(self.method, self.settings)
        if self.denoises:
            self._check_denoiser()
        else:
            self._check_no_classifier()
        defaults = {
            "arch": DENOISER_ARCHITECTURES[0] if self.denoises else "small-cnn",
            "normalisation": "none" if self.denoises else DATASETS[self.dataset].normalisation,
        }
        self.fill_in(defaults)
        check_distinct(self.reads(), self.writes().items())

    @property
    def denoises(self) -> bool:
        """Whether what is trained is a denoiser."""
        return METHODS[self.method].denoises

    @property
    def augmentation(self) -> str:
        """What `augment` stands for: `auto` is the usual one of the data set."""
        return DATASETS[self.dataset].augment if self.augment == "auto" else self.augment

    def reads(self) -> list[tuple[str, Path | None]]:
        """The files and folders that options name to be read, each with its option."""
        classifier = None if self.classifier in (None, "demo") else Path(str(self.classifier))
        return [("--data-dir", self.data_dir), ("--classifier", classifier)]

    def writes(self) -> dict[str, Path | None]:
        """All that the run writes, by what it is."""
        return {
            "--output": self.output,
            "the state of --output": sidecar(self.output, TRAINING),
            "the log of --output": sidecar(self.output, TRAINING_LOG),
        }

    def _check_denoiser(self) -> None:
        """Raises UsageError where the options of a denoiser's training are incompatible."""
        settings = self.settings
        assert isinstance(settings, methods.Denoiser)
        if self.arch not in (None, *DENOISER_ARCHITECTURES):
            raise UsageError(
                f"--arch {self.arch} is no denoiser (known: {', '.join(DENOISER_ARCHITECTURES)})",
                f"--classifier-arch {self.arch}, if it is the classifier's",
            )
        if self.normalisation not in (None, "none"):
            raise UsageError(
                f"--normalisation {self.normalisation}: a denoiser takes images as they are",
                f"--classifier-normalisation {self.normalisation}, if it is the classifier's",
            )
        if settings.objective == MSE and settings.mse_epochs is not None:
            raise UsageError("--objective mse: all epochs are of squared error already", "leave --mse-epochs out")
        if settings.objective != MSE and settings.on_pixels(self.epochs - 1):
            raise UsageError(
                f"no epoch of {self.epochs} is left for --objective {settings.objective}: the first "
                f"{settings.pixel_epochs} are of mse",
                "use more --epochs, fewer --mse-epochs, or --objective mse",
            )
        if settings.objective != MSE and self.classifier is None:
            raise UsageError(
                f"--objective {settings.objective} is about the predictions of a classifier, and none is given",
                "add --classifier FILE; or --objective mse, which needs none",
            )
        if self.classifier is None:
            self._check_no_classifier()

    def _check_no_classifier(self) -> None:
        """Raises UsageError for options of a classifier that this run does not have."""
        described = [f"classifier_{name}" for name in ("arch", "mean", "std", "size")]
        for name in ("classifier", *described, "trust_checkpoint"):
            if getattr(self, name) not in (None, False):
                raise UsageError(
                    f"{flag(name)} is about the classifier behind a denoiser, and there is none in this training",
                    "add --classifier FILE" if self.denoises else "add --method denoiser, or leave it out",
                )

    def flat_settings(self) -> dict[str, Any]:
        """Those of all methods, None where this one lacks them."""
        return methods.flat(self.settings)

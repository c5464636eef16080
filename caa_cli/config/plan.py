"""What a run will do: frozen, checked, and free of torch, so that a wrong one is refused at once.

Values come from defaults < preset < TOML file < environment (CAA_ATTACK_SAMPLES=…) < flags; the command line puts the
layers together (`cli.layers`), a plan only checks the outcome. What the command line leaves to the checkpoint is
None until `resolve`: `run.session` calls it once, before a model is on its device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from caa_cli.config import attacks
from caa_cli.config.attacks import ATTACKS, AttackName
from caa_cli.config.bounds import BOUNDS, GOODMAN
from caa_cli.config.certificates import CERTIFICATES, COHEN
from caa_cli.config.choices import (
    DTYPES,
    ENSEMBLES,
    EXACT,
    FINISHES,
    GRADIENTS,
    LINE_SEARCH,
    MODEL,
    SPLITS,
    SURROGATE_MODEL,
    VERIFICATIONS,
    VOTES,
)
from caa_cli.config.datasets import DATASETS
from caa_cli.config.differences import AS_ANOTHER, decisive, formerly
from caa_cli.config.paths import check_distinct, sidecar
from caa_cli.config.presets import PRESETS
from caa_cli.config.ranges import (
    ALPHA,
    IMAGE_SIZE,
    MEAN,
    MOST_STEPS,
    SEED,
    SIGMA,
    STD,
    Count,
    FileName,
    OneOf,
    Positive,
    Word,
    flag,
)
from caa_cli.config.selection import default_limit, select
from caa_cli.config.settings import Called, Settings, check_each
from caa_cli.config.targets import TARGET_RULES, Classes, TargetText, file_digest
from caa_cli.errors import UsageError
from caa_cli.runtime.sharding import Shard


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every plan can do. NOT_COMPARED names the settings that change nothing in a result."""

    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The plan of values by users' names, of which it takes those that are its settings. Raises UsageError."""
        return cls(**{f.name: given[f.name] for f in fields(cls) if f.name in given})

    def __post_init__(self) -> None:
        check_each(self)

    def config(self) -> dict[str, Any]:
        """Every setting, as JSON."""

        def plain(value: Any) -> Any:
            return str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value

        return {name: plain(value) for name, value in asdict(self).items()}

    def compared_keys(self) -> list[str]:
        """The settings that decide a result: two runs that differ in one of them must not be mixed."""
        return [f.name for f in fields(self) if f.name not in self.NOT_COMPARED]

    def fingerprint(self, checkpoint_sha256: str) -> str:
        """A short digest of all that decides a result."""
        config = self.config()
        settings = {key: decisive(key, config[key]) for key in self.compared_keys() if key in config}
        # As a run of before there was the setting.
        before = formerly(config)
        settings = {key: value for key, value in settings.items() if key not in before or before[key] != value}
        text = json.dumps([checkpoint_sha256, settings], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class ModelPlan(Plan):
    """A run over the images of a data set with a smoothed model: what `attack` and `certify` share.

    members: the further checkpoints of an ensemble.  denoiser: the file or folder of the one in front.
    classifier_size: height and width of the images that the classifiers see; None: as those of the data set.
    image_resize, interpolation: how images are resized before the crop to --image-size where the network's origin
    says so; None: as always.
    """

    checkpoint: str
    members: tuple[str, ...] = ()
    ensemble: Annotated[str | None, OneOf(ENSEMBLES)] = None
    denoiser: Path | None = None
    denoiser_arch: str | None = None
    classifier_size: Annotated[int | None, IMAGE_SIZE] = None
    arch: str | None = None
    sigma: Annotated[float | None, SIGMA] = None
    mean: Annotated[tuple[float, ...] | None, MEAN] = None
    std: Annotated[tuple[float, ...] | None, STD] = None
    trust_checkpoint: bool = False
    dataset: Annotated[str | None, OneOf(DATASETS)] = None
    data_dir: Path | None = None
    split: Annotated[str, OneOf(SPLITS)] = "test"
    image_size: Annotated[int | None, IMAGE_SIZE] = None
    image_resize: int | None = None
    interpolation: str | None = None
    download: bool = False
    limit: Annotated[int | None, Count()] = None
    skip: Annotated[int, Count(0)] = 0
    every: Annotated[int, Count()] = 1
    indices_file: Annotated[Path | None, Called("indices")] = None
    indices_list: Annotated[str | None, Called("indices")] = None
    shard: Shard = field(default_factory=Shard)

    alpha: Annotated[float, ALPHA] = 0.005
    bound: Annotated[str, OneOf(BOUNDS)] = GOODMAN
    certificate: Annotated[str, OneOf(CERTIFICATES)] = COHEN
    seed: Annotated[int, SEED] = 0

    device: str = "auto"
    dtype: Annotated[str, OneOf(DTYPES)] = "float32"
    chunk_size: Annotated[int | None, Count()] = None
    measure_chunks: bool = False
    max_memory: Annotated[int | None, Count(most=2**63)] = None

    output: Annotated[Path, FileName()]
    figure: Annotated[Path | None, FileName()] = None
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    # Where things are, which images, how work is cut up; another kind of device draws other noise of the same law.
    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset(
        "checkpoint members denoiser data_dir download limit skip every indices_file shard device chunk_size".split()  # noqa: SIM905
    ) | frozenset(
        "indices_list trust_checkpoint measure_chunks max_memory output figure resume overwrite dry_run".split()  # noqa: SIM905
    )
    # The settings that name files to write beside `output`.
    WRITTEN: ClassVar[tuple[str, ...]] = ("figure",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ensemble is not None and not self.members:
            raise UsageError(
                f"--ensemble {self.ensemble} needs several checkpoints",
                f"add them: --checkpoint {self.checkpoint} --checkpoint OTHER",
            )
        listed = self.indices_file or self.indices_list
        if listed is not None and (self.skip or self.every > 1):
            raise UsageError(f"--indices {listed} says which images to take", "leave --skip and --every out")
        self._check_files()

    def resolve(self, sigma: float | None, **from_checkpoint: Any) -> Self:
        """The plan with what checkpoint and data set say in place of None: what runs, and what results record.

        from_checkpoint: arch, mean, std, ensemble, classifier_size, dataset, image_size, image_resize and
        interpolation.
        """
        return replace(self, sigma=sigma, **from_checkpoint)

    def with_classes(self, classes: Classes) -> Self:
        """The plan with the classes that it names in the form in which results record them. Raises UsageError."""
        return self

    def indices(self, size: int) -> Sequence[int]:
        """The global indices of the examples to work on, out of a split of `size`. Raises UsageError, for a file."""
        limit = default_limit(self.limit, self.dataset, bool(self.indices_file or self.indices_list))
        chosen = select(size, self.skip, self.every, limit, self.indices_file, self.indices_list)
        return chosen[self.shard.index :: self.shard.count]

    def written(self) -> dict[str, Path | None]:
        """The files that options name beside --output."""
        return {flag(name): getattr(self, name) for name in self.WRITTEN}

    def with_shard_paths(self) -> Self:
        """Every file that is written under a name of this shard's own."""
        files = {name: getattr(self, name) for name in ("output", *self.WRITTEN)}
        paths: dict[str, Any] = {name: self.shard.path_for(path) for name, path in files.items() if path is not None}
        return replace(self, **paths)

    def reads(self) -> list[tuple[str, Path | None]]:
        """The files and folders that options name to be read, each with its option."""
        return [
            *(("--checkpoint", Path(path)) for path in (self.checkpoint, *self.members) if path != "demo"),
            ("--denoiser", self.denoiser),
            ("--indices", self.indices_file),
            ("--data-dir", self.data_dir),
        ]

    def writes(self) -> dict[str, Path | None]:
        """All that the run writes, by what it is: with what it keeps beside the result while it works."""
        return {
            "--output": self.output,
            "the record of --output": sidecar(self.output, ".jsonl"),
            "the images of --output": sidecar(self.output, ".images"),
            **self.written(),
        }

    def _check_files(self) -> None:
        """No file of a run may be overwritten by another."""
        check_distinct(self.reads(), self.writes().items())


@dataclass(frozen=True, kw_only=True)
class AttackPlan(ModelPlan):
    """One run of `caa attack`. Lengths are L2 in [0, 1] pixel units; sizes are counts of noise samples.

    name: what comparisons call it.  preset: where values that were not given come from.  settings, samples: None: the
    attack's defaults.  attack_sigma: what the search takes σ to be; None: the true one.  gradient: where the search's
    gradients come from.  search_dtype: of the search alone; None: as dtype.  target: the class to reach, or the rule
    that chooses it; None: any but the label.  target_file: lists a class for each image.  selection_samples,
    certify_samples, verify_samples: None: as `default_samples` says.
    """

    attack: Annotated[str, AttackName()] = "caa"
    name: Annotated[str | None, Word(taken=ATTACKS)] = None
    preset: Annotated[str | None, OneOf(PRESETS)] = None
    settings: Settings = None  # type: ignore[assignment]  # filled in below
    samples: Annotated[int, Count()] = None  # type: ignore[assignment]  # filled in below
    iterations: Annotated[int, Count(most=MOST_STEPS)] = 100
    attack_sigma: Annotated[float | None, SIGMA] = None
    gradient: str = MODEL
    target: Annotated[str | None, TargetText()] = None
    target_file: Annotated[Path | None, Called("target"), FileName()] = None
    search_dtype: Annotated[str, OneOf(DTYPES)] = None  # type: ignore[assignment]
    selection_samples: Annotated[int, Count()] = None  # type: ignore[assignment]
    certify_samples: Annotated[int, Count()] = None  # type: ignore[assignment]
    verify_samples: Annotated[int, Count()] = None  # type: ignore[assignment]
    verification: Annotated[str, OneOf(VERIFICATIONS)] = EXACT
    finish: Annotated[str, OneOf(FINISHES)] = LINE_SEARCH
    batch_size: Annotated[int | None, Count()] = None
    output: Annotated[Path, FileName()] = Path("attack.json")
    save_adversarial: Annotated[Path | None, FileName()] = None

    NOT_COMPARED: ClassVar[frozenset[str]] = ModelPlan.NOT_COMPARED | {
        "name",
        "preset",
        "batch_size",
        "save_adversarial",
        "target_file",
    }
    WRITTEN = ("save_adversarial", *ModelPlan.WRITTEN)

    @classmethod
    def of(cls, **given: Any) -> Self:
        """The plan of values by users' names, the attack's settings among them (`ddn_gamma`); None: not given.

        Raises UsageError, also for a setting of another attack.
        """
        return super().of(**attacks.completed({"attack": cls.attack, **given}))

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, count in default_samples(vars(self)).items():
            object.__setattr__(self, name, count)
        if self.samples is None:
            by_default = attacks.samples_by_default(self.attack, self.gradient == VOTES)
            object.__setattr__(self, "samples", by_default)
        for name, other in AS_ANOTHER.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, getattr(self, other))
        if self.settings is None:
            object.__setattr__(self, "settings", attacks.spec_of(self.attack).settings())  # frozen from here on
        self._check_gradient()
        attacks.check(self.attack, self.settings, self.gradient == VOTES, self.targeted)

    @property
    def targeted(self) -> bool:
        """Whether one class of each image is to be reached, not any but the label."""
        return self.target is not None or self.target_file is not None

    def resolve(self, sigma: float | None, **from_checkpoint: Any) -> Self:
        """As of any run; the search takes σ to be the true one unless the plan says otherwise."""
        return super().resolve(sigma, attack_sigma=self.attack_sigma or sigma, **from_checkpoint)

    def with_classes(self, classes: Classes) -> Self:
        """`target` as results record it: a rule, the number of a class, or of a file of targets its digest."""
        if self.target_file is not None:
            return replace(self, target=file_digest(self.target_file))
        if self.target is None or self.target in TARGET_RULES:
            return self
        return replace(self, target=str(classes.number_of(f"--target {self.target}", self.target)))

    def config(self) -> dict[str, Any]:
        """Every setting, as JSON; those of the attack by users' names, where `settings` stands."""
        config: dict[str, Any] = {}
        for name, value in super().config().items():
            config |= attacks.flat(self.attack, self.settings) if name == "settings" else {name: value}
        return config

    def compared_keys(self) -> list[str]:
        names = [name for name in super().compared_keys() if name != "settings"]
        return [*names, *attacks.flat(self.attack, self.settings)]

    @property
    def surrogate_model(self) -> str | None:
        """The checkpoint that --gradient surrogate-model=… names."""
        kind, equals, checkpoint = self.gradient.partition("=")
        return checkpoint if equals and kind == SURROGATE_MODEL else None

    def reads(self) -> list[tuple[str, Path | None]]:
        """As of any run, and the surrogate's checkpoint."""
        surrogate = self.surrogate_model
        gradient = None if surrogate in (None, "demo") else Path(str(surrogate))
        return [*super().reads(), ("--gradient", gradient), ("--target", self.target_file)]

    def _check_gradient(self) -> None:
        kind, equals, checkpoint = self.gradient.partition("=")
        if kind == SURROGATE_MODEL and not checkpoint:
            raise UsageError(
                f"--gradient {self.gradient} names no checkpoint", f"--gradient {SURROGATE_MODEL}=FILE, or {VOTES}"
            )
        if kind not in GRADIENTS or (equals and kind != SURROGATE_MODEL):
            raise UsageError(
                f"--gradient {self.gradient!r} is not known",
                f"use one of: {MODEL}, {SURROGATE_MODEL}=CHECKPOINT, {VOTES}",
            )
        if kind == VOTES and attacks.spec_of(self.attack).by_votes is None:
            able = [name for name, spec in ATTACKS.items() if spec.by_votes]
            raise UsageError(
                f"{self.attack} begins at the clean image, where votes alone show no direction (--gradient {VOTES})",
                f"use --attack {' or '.join(able)}, or --gradient {SURROGATE_MODEL}=CHECKPOINT",
            )


@dataclass(frozen=True, kw_only=True)
class CertifyPlan(ModelPlan):
    """One run of `caa certify`. radius: decide only whether each image is certified at this L2 radius."""

    samples: Annotated[int, Count()] = 100_000
    selection_samples: Annotated[int, Count()] = 100
    alpha: Annotated[float, ALPHA] = 0.001
    radius: Annotated[float | None, Positive()] = None
    output: Annotated[Path, FileName()] = Path("certify.json")
    tsv: Annotated[Path | None, FileName()] = None

    NOT_COMPARED: ClassVar[frozenset[str]] = ModelPlan.NOT_COMPARED | {"tsv"}
    WRITTEN = ("tsv", *ModelPlan.WRITTEN)


def default_samples(given: Mapping[str, Any]) -> dict[str, int]:
    """The sample counts of certificate and verification, by setting; those that are None follow from others. They are
    the same for every attack, unless --samples is given."""
    samples = attacks.SAMPLES if given["samples"] is None else given["samples"]
    counts = {"selection_samples": samples, "verify_samples": max(10 * samples, 10_000)}
    counts |= {name: given[name] for name in counts if given[name] is not None}
    certify = given["certify_samples"]
    return {**counts, "certify_samples": counts["verify_samples"] if certify is None else certify}

"""What a run will do: frozen, checked, and free of torch, so that a wrong one is refused at once.

Values come from defaults < TOML file < environment (CAA_ATTACK_SAMPLES=…) < flags; the command line puts the
layers together (`cli.options`), a plan only checks the outcome.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, Self

from caa_cli import checks
from caa_cli.attack_settings import AttackSettings, foreign
from caa_cli.errors import UsageError
from caa_cli.names import BOUNDS, DTYPES, FINISHES, GRADIENTS, MODEL, SPLITS, SURROGATE_MODEL, VOTES, WALKING
from caa_cli.paths import check_distinct, check_file_name, sidecar
from caa_cli.selection import default_limit, select
from caa_cli.sharding import Shard


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every plan can do. NOT_COMPARED names the settings that change nothing in a result."""

    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset()

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
        text = json.dumps([checkpoint_sha256, settings], sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class ModelPlan(Plan):
    """A run over the images of a data set with a smoothed model: what `attack` and `certify` share."""

    checkpoint: str
    arch: str | None = None
    sigma: float | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    trust_checkpoint: bool = False
    dataset: str | None = None
    data_dir: Path | None = None
    split: str = "test"
    image_size: int | None = None
    download: bool = False
    limit: int | None = None
    skip: int = 0
    every: int = 1
    indices_file: Path | None = None
    shard: Shard = field(default_factory=Shard)

    alpha: float = 0.005
    bound: str = "goodman"
    seed: int = 0

    device: str = "auto"
    dtype: str = "float32"
    chunk_size: int | None = None
    measure_chunks: bool = False
    max_memory: int | None = None

    output: Path
    figure: Path | None = None
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    # Where things are, which images, and how the work is cut up. (Another kind of device draws other noise of the
    # same law, so a run may go on elsewhere.)
    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset(
        "checkpoint data_dir download limit skip every indices_file shard device chunk_size output figure".split()  # noqa: SIM905
    ) | {"trust_checkpoint", "measure_chunks", "max_memory", "resume", "overwrite", "dry_run"}
    # The settings that name files to write beside `output`.
    WRITTEN: ClassVar[tuple[str, ...]] = ("figure",)

    def __post_init__(self) -> None:
        checks.one_of("--bound", self.bound, BOUNDS)
        checks.one_of("--dtype", self.dtype, DTYPES)
        checks.one_of("--split", self.split, SPLITS)
        checks.at_least_one("--chunk-size", self.chunk_size)
        checks.at_least_one("--max-memory", self.max_memory)
        checks.at_least_one("--limit", self.limit)
        checks.not_negative("--skip", self.skip)
        checks.at_least_one("--every", self.every)
        checks.at_least_one("--image-size", self.image_size)
        if self.indices_file is not None and (self.skip or self.every > 1):
            raise UsageError(
                f"--indices {self.indices_file} says which images to take", "leave --skip and --every out"
            )
        checks.positive("--sigma", self.sigma)
        checks.fraction("--alpha", self.alpha)
        checks.seed_in_range(self.seed)
        checks.normalisation(self.mean, self.std)
        self._check_files()

    def indices(self, size: int) -> Sequence[int]:
        """The global indices of the examples to work on, out of a split of `size`. Raises UsageError, for a file."""
        limit = default_limit(self.limit, self.dataset, self.indices_file)
        chosen = select(size, self.skip, self.every, limit, self.indices_file)
        return chosen[self.shard.index :: self.shard.count]

    def written(self) -> dict[str, Path | None]:
        """The files that options name beside --output."""
        return {checks.flag(name): getattr(self, name) for name in self.WRITTEN}

    def with_own_files(self) -> Self:
        """Every file that is written under a name of this shard's own."""
        files = {name: getattr(self, name) for name in ("output", *self.WRITTEN)}
        own: dict[str, Any] = {name: self.shard.own(path) for name, path in files.items() if path is not None}
        return replace(self, **own)

    def reads(self) -> dict[str, Path | None]:
        """The files and folders that options name to be read."""
        checkpoint = None if self.checkpoint == "demo" else Path(self.checkpoint)
        return {"--checkpoint": checkpoint, "--indices": self.indices_file, "--data-dir": self.data_dir}

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
        for option, path in {"--output": self.output, **self.written()}.items():
            if path is not None:
                check_file_name(option, path)
        check_distinct(self.reads().items(), self.writes().items())


@dataclass(frozen=True, kw_only=True)
class AttackPlan(AttackSettings, ModelPlan):
    """One run of `caa attack`. Lengths are L2 in [0, 1] pixel units; sizes are counts of noise samples.

    attack_sigma: what the search takes σ to be; None: the true one. gradient: where the search's gradients come from.
    """

    samples: int = 1500
    iterations: int = 100
    attack_sigma: float | None = None
    gradient: str = MODEL
    selection_samples: int | None = None
    certify_samples: int | None = None
    verify_samples: int | None = None
    finish: str = "ray"
    batch_size: int | None = None
    output: Path = Path("attack.json")
    save_adversarial: Path | None = None

    NOT_COMPARED: ClassVar[frozenset[str]] = ModelPlan.NOT_COMPARED | {"batch_size", "save_adversarial"}
    WRITTEN = ("save_adversarial", *ModelPlan.WRITTEN)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_attack()
        checks.one_of("--finish", self.finish, FINISHES)
        checks.at_least_one("--samples", self.samples)
        checks.at_least_one("--iterations", self.iterations)
        checks.positive("--attack-sigma", self.attack_sigma)
        self._check_gradient()
        checks.at_least_one("--selection-samples", self.selection_samples)
        checks.at_least_one("--certify-samples", self.certify_samples)
        checks.at_least_one("--verify-samples", self.verify_samples)
        checks.at_least_one("--batch-size", self.batch_size)

    def config(self) -> dict[str, Any]:
        """Every setting, as JSON, but those of the attacks that are not run."""
        others = foreign(self.attack)
        return {name: value for name, value in super().config().items() if name not in others}

    @property
    def surrogate_model(self) -> str | None:
        """The checkpoint that --gradient surrogate-model=… names."""
        kind, equals, checkpoint = self.gradient.partition("=")
        return checkpoint if equals and kind == SURROGATE_MODEL else None

    def reads(self) -> dict[str, Path | None]:
        """As of any run, and the surrogate's checkpoint."""
        surrogate = self.surrogate_model
        return {**super().reads(), "--gradient": None if surrogate in (None, "demo") else Path(str(surrogate))}

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
        if kind == VOTES and self.attack not in WALKING:
            raise UsageError(
                f"{self.attack} begins at the clean image, where votes alone show no direction (--gradient {VOTES})",
                f"use --attack {' or '.join(WALKING)}, or --gradient {SURROGATE_MODEL}=CHECKPOINT",
            )
        if kind == VOTES and (self.rivals or 1) > 1:
            raise UsageError(
                f"--rivals {self.rivals} begins every run at the clean image, where votes alone show no direction",
                f"leave --rivals out, or use --attack {WALKING[1]}, which follows several classes by votes too",
            )

    @property
    def selection_draws(self) -> int:
        """As many as a step of the search, unless told otherwise."""
        return self.selection_samples or self.samples

    @property
    def certification_draws(self) -> int:
        """As many as verification, unless told otherwise."""
        return self.certify_samples or self.verification_draws

    @property
    def verification_draws(self) -> int:
        return self.verify_samples or max(10 * self.samples, 10_000)


@dataclass(frozen=True, kw_only=True)
class CertifyPlan(ModelPlan):
    """One run of `caa certify`. radius: decide only whether each image is certified at this L2 radius."""

    samples: int = 100_000
    selection_samples: int = 100
    alpha: float = 0.001
    radius: float | None = None
    output: Path = Path("certify.json")
    tsv: Path | None = None

    NOT_COMPARED: ClassVar[frozenset[str]] = ModelPlan.NOT_COMPARED | {"tsv"}
    WRITTEN = ("tsv", *ModelPlan.WRITTEN)

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.at_least_one("--samples", self.samples)
        checks.at_least_one("--selection-samples", self.selection_samples)
        checks.positive("--radius", self.radius)


def decisive(name: str, value: Any) -> Any:
    """What of a setting decides results: of a surrogate's checkpoint not its path (its content is compared apart)."""
    return value.partition("=")[0] if name == "gradient" and isinstance(value, str) else value


def differences(theirs: dict[str, Any], ours: dict[str, Any], compared: list[str]) -> list[str]:
    """Where two configurations differ in a setting that decides results, in words.

    Of two attacks that are not the same, the settings that only one of them has are left out.
    """
    if theirs.get("attack") != ours.get("attack"):
        compared = ["attack", *(key for key in compared if key != "attack" and key in theirs and key in ours)]
    return [
        f"{key} ({theirs.get(key)} there, {ours.get(key)} here)"
        for key in compared
        if decisive(key, theirs.get(key)) != decisive(key, ours.get(key))
    ]

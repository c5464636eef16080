"""What a run over the images of a data set with a smoothed model will do: what `attack` and `certify` share."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from caa_cli.config.bounds import BOUNDS, GOODMAN
from caa_cli.config.certificates import CERTIFICATES, COHEN
from caa_cli.config.choices import ARCHITECTURES, DEMO_LIMIT, DTYPES, ENSEMBLES, LOGITS, SPLITS
from caa_cli.config.datasets import DATASETS
from caa_cli.config.denoisers import DENOISERS
from caa_cli.config.paths import IMAGES, JOURNAL, check_distinct, sidecar
from caa_cli.config.plan import Plan
from caa_cli.config.ranges import ALPHA, IMAGE_SIZE, MEAN, SEED, SIGMA, STD, Count, FileName, OneOf, flag
from caa_cli.config.selection import default_limit, select
from caa_cli.config.settings import Called, Shown, Suggested, Takes
from caa_cli.config.targets import Classes
from caa_cli.errors import UsageError
from caa_cli.runtime.sharding import Shard


@dataclass(frozen=True, kw_only=True)
class ModelPlan(Plan):
    """A run over the images of a data set with a smoothed model: what `attack` and `certify` share.

    members: the further checkpoints of an ensemble.  denoiser: the file or folder of the denoiser in front.
    classifier_size: height and width of the images that the classifiers see; None: those of the data set.
    image_resize, interpolation: how images are resized before the crop to --image-size, if the checkpoint's library
    prescribes it; None: as usual.
    """

    checkpoint: str
    members: tuple[str, ...] = ()
    ensemble: Annotated[
        str | None,
        OneOf(ENSEMBLES),
        "What several checkpoints make together: the mean of their logits or softmax, or the majority.",
        Takes("|".join(ENSEMBLES)),
        Shown(LOGITS),
    ] = None
    denoiser: Annotated[
        Path | None,
        f"A denoiser in front of the model, recognised by content: {', '.join(DENOISERS)}.",
        Takes("FILE|FOLDER"),
    ] = None
    denoiser_arch: Annotated[
        str | None,
        "A denoiser of your own (or file.py:factory), with the weights of --denoiser or its own.",
        Takes("package.module:factory"),
    ] = None
    classifier_size: Annotated[int | None, IMAGE_SIZE] = None
    arch: Annotated[
        str | None,
        f"Architecture: {', '.join(ARCHITECTURES)}, timm:NAME, torchvision:NAME, or package.module:factory.",
        Suggested(ARCHITECTURES),
        Shown("the checkpoint's, or recognised"),
    ] = None
    sigma: Annotated[
        float | None,
        SIGMA,
        "Standard deviation of the smoothing noise, for pixels in [0, 1].",
        Shown("the checkpoint's"),
    ] = None
    mean: Annotated[tuple[float, ...] | None, MEAN] = None
    std: Annotated[tuple[float, ...] | None, STD] = None
    trust_checkpoint: bool = False
    dataset: Annotated[str | None, OneOf(DATASETS), f"One of: {', '.join(DATASETS)}.", Shown("the checkpoint's")] = (
        None
    )
    data_dir: Path | None = None
    split: Annotated[str, OneOf(SPLITS), "test (for ImageNet, the validation images) or train."] = "test"
    image_size: Annotated[int | None, IMAGE_SIZE] = None
    image_resize: int | None = None
    interpolation: str | None = None
    download: bool = False
    limit: Annotated[int | None, Count(), "Most images to work on.", Shown(f"all; {DEMO_LIMIT} of the demo")] = None
    skip: Annotated[int, Count(0), "Leave out this many images at the start."] = 0
    every: Annotated[int, Count(), "Only every N-th image, from --skip on.", Takes("N")] = 1
    indices_file: Annotated[Path | None, Called("indices")] = None
    indices_list: Annotated[str | None, Called("indices")] = None
    shard: Shard = field(default_factory=Shard)

    alpha: Annotated[
        float, ALPHA, "Error probability allowed per image, for the certificate and for the verification."
    ] = 0.005
    bound: Annotated[str, OneOf(BOUNDS), f"Confidence bound: {', '.join(BOUNDS)}."] = GOODMAN
    certificate: Annotated[str, OneOf(CERTIFICATES), f"Radius that the bounds give: {', '.join(CERTIFICATES)}."] = (
        COHEN
    )
    seed: Annotated[int, SEED] = 0

    device: str = "auto"
    dtype: Annotated[str, OneOf(DTYPES), f"Precision of the model: {', '.join(DTYPES)}."] = "float32"
    chunk_size: Annotated[int | None, Count()] = None
    measure_chunks: bool = False
    max_memory: Annotated[int | None, Count(most=2**63)] = None

    output: Annotated[Path, FileName()]
    figure: Annotated[Path | None, FileName()] = None
    resume: bool = False
    overwrite: bool = False
    dry_run: bool = False

    # Paths, the selection of images, how the work is divided, and the device: another kind of device draws other
    # noise of the same distribution.
    NOT_COMPARED: ClassVar[frozenset[str]] = frozenset(
        "checkpoint members denoiser data_dir download limit skip every indices_file shard device chunk_size".split()  # noqa: SIM905
    ) | frozenset(
        "indices_list trust_checkpoint measure_chunks max_memory output figure resume overwrite dry_run".split()  # noqa: SIM905
    )
    # Settings without an option: their values come from the checkpoint alone.
    WITHOUT_OPTION: ClassVar[frozenset[str]] = frozenset({"image_resize", "interpolation"})
    # The settings that name files to write beside `output`.
    WRITTEN: ClassVar[tuple[str, ...]] = ("figure",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ensemble is not None and not self.members:
            raise UsageError(
                f"--ensemble {self.ensemble} needs several checkpoints",
                f"add them: --checkpoint {shlex.quote(self.checkpoint)} --checkpoint OTHER",
            )
        listed = self.indices_file or self.indices_list
        if listed is not None and (self.skip or self.every > 1):
            raise UsageError(f"--indices {listed} says which images to take", "leave --skip and --every out")
        check_distinct(self.reads(), self.writes().items())

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
        """The plan with this shard's number in the names of all files that it writes."""
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
        """All files that the run writes, by description; those next to the result exist while it works."""
        return {
            "--output": self.output,
            "the record of --output": sidecar(self.output, JOURNAL),
            "the images of --output": sidecar(self.output, IMAGES),
            **self.written(),
        }

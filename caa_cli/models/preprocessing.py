"""How images are prepared for a network, where its origin says so."""

from __future__ import annotations

from dataclasses import dataclass

from caa_cli.config.choices import INTERPOLATIONS
from caa_cli.config.datasets import DATASETS
from caa_cli.config.ranges import MEAN, STD


@dataclass(frozen=True)
class Preprocessing:
    """mean, std: per channel, of pixels in [0, 1].  size: height and width of the input.  resize: the length that the
    shorter side is resized to before a centre crop.  interpolation: one of `INTERPOLATIONS`.
    Raises ValueError for numbers that can't normalise."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    resize: int
    interpolation: str

    def __post_init__(self) -> None:
        for name, values, numbers in (("mean", self.mean, MEAN.range), ("std", self.std, STD.range)):
            if not all(value in numbers for value in values):
                raise ValueError(f"images can't be normalised by a {name} of {values}")
        # timm has `random` of some, for training; torchvision tells two kinds of nearest.
        if self.interpolation not in INTERPOLATIONS:
            object.__setattr__(self, "interpolation", "bilinear")

    def image_size(self, dataset: str | None) -> int | None:
        """The --image-size that gives images of `dataset` the network's input size; None: images keep their size."""
        return self.size if dataset in DATASETS and DATASETS[dataset].resized else None


@dataclass(frozen=True)
class Origin:
    """Where a network comes from that is no file of weights. arch: as in records.  class_names: by label."""

    arch: str
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()

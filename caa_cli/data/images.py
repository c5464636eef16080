"""What every data set has, and data sets held in memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from caa_cli.data.decoding import ImageError


class Images(ABC):
    """A split of a data set. An example's index is its position in the split, the same in every run and shard.

    labels: (N,) int64, available without reading an image.  notes: for the user.  class_names: by label; empty where
    there are none.
    """

    name: str
    split: str
    labels: Tensor
    num_classes: int
    notes: tuple[str, ...]
    class_names: tuple[str, ...]

    @property
    def files_sha256(self) -> str | None:
        """The digest of the file names, which determine the indices; None without files."""
        return None

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""

    @property
    def indices(self) -> Sequence[int]:
        """The index of every image."""
        return range(len(self))

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def image(self, index: int) -> Tensor:
        """Pixels (channels, height, width) float32 in [0, 1]. Raises ImageError for an unusable file."""

    def label(self, index: int) -> int:
        return int(self.labels[index])


@dataclass(frozen=True)
class ImageSet(Images):
    """A split held in memory.

    images: (N, channels, height, width) uint8.  labels: (N,) int64.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    num_classes: int
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    @property
    def input_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def image(self, index: int) -> Tensor:
        return self.images[index].float() / 255.0


@dataclass(frozen=True)
class ImageArrays(ImageSet):
    """Images float32 in [0, 1] that a caller holds. numbers: N different indices, by which he knows them."""

    numbers: Sequence[int] = ()

    @property
    def indices(self) -> Sequence[int]:
        return self.numbers

    def image(self, index: int) -> Tensor:
        return self.images[self._positions[index]]

    def label(self, index: int) -> int:
        return int(self.labels[self._positions[index]])

    @cached_property
    def _positions(self) -> dict[int, int]:
        """Where the image of each index is: a list would be looked through for every one."""
        return {index: position for position, index in enumerate(self.numbers)}


def read_example(images: Images, index: int, classes: int) -> tuple[Tensor, int]:
    """(image, label) for a model of this many classes. Raises ImageError if the file or the label is unusable."""
    label = images.label(index)
    if not 0 <= label < classes:
        raise ImageError(f"image {index} has the label {label}, and the model knows the classes 0 to {classes - 1}")
    return images.image(index), label


def readable(images: Images, indices: Iterable[int]) -> Iterator[tuple[int, Tensor]]:
    """(index, image) of those of these images that can be read."""
    for index in indices:
        with suppress(ImageError):
            yield index, images.image(index)


def spread(total: int, count: int) -> list[int]:
    """`count` evenly spaced positions out of `total`, because data sets of files are sorted by class."""
    count = min(count, total)
    return [position * total // count for position in range(count)]

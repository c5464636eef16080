"""Data sets whose images stay in their files until they are asked for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from caa_cli.data.decoding import ImageError, Recipe, decode, measure, open_image
from caa_cli.errors import UsageError

# What torchvision's ImageFolder takes for images.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class ImageFiles:
    """A split of image files in class folders.

    Files are in the order of torchvision's ImageFolder: by class, then by name. An image is decoded in the process
    that asks for it, and dropped after: 0.14 ms for a CIFAR-10 JPEG, 1 to 5 ms for an ImageNet one, against seconds
    for an attack on it. Training asks for each many times, and has `load`.

    files: below `root`.  labels: (N,) int64.  recipe: how a file becomes pixels.
    """

    name: str
    split: str
    root: Path
    files: list[str]
    labels: Tensor
    num_classes: int
    recipe: Recipe
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.files)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.recipe.shape

    @property
    def files_sha256(self) -> str:
        return hashlib.sha256("\n".join(self.files).encode(errors="surrogateescape")).hexdigest()

    def path(self, index: int) -> Path:
        return self.root / self.files[index]

    def pil(self, index: int) -> Image.Image:
        """The decoded picture in the data set's mode ("L" or "RGB"), before any resizing. Raises ImageError."""
        return open_image(str(self.path(index)), self.recipe.mode)

    def image(self, index: int) -> Tensor:
        """(channels, height, width) float32 in [0, 1]. Raises ImageError where the file can't be used."""
        return torch.from_numpy(decode(str(self.path(index)), self.recipe)).float() / 255.0

    def label(self, index: int) -> int:
        return int(self.labels[index])


def class_folders(root: Path) -> list[str]:
    """The names of the folders in `root`, sorted. Raises OSError where it can't be read."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def has_folders(root: Path) -> bool:
    return root.is_dir() and bool(class_folders(root))


def labelled_files(root: Path, classes: Iterable[tuple[str, int]]) -> tuple[list[str], Tensor]:
    """(files below `root`, their labels) of these class folders, sorted by class and name, with folders in folders.

    Raises UsageError where a folder holds no image, OSError where one can't be read: its images would be missing
    unnoticed, and the indices of all that follow would be others.
    """
    files: list[str] = []
    labels: list[int] = []
    for name, label in sorted(classes):
        found = _files(root, name)
        if not found:
            raise UsageError(
                f"the class folder {root / name} holds no images",
                f"delete that folder or fill it; an image's name ends in one of {', '.join(EXTENSIONS)}",
            )
        files += found
        labels += [label] * len(found)
    return files, torch.tensor(labels, dtype=torch.int64)


def first_readable(root: Path, files: list[str]) -> tuple[str, int, int]:
    """(mode, height, width) of the first file whose header can be read. Raises UsageError where none can."""
    first: ImageError | None = None
    for file in files:
        try:
            return measure(str(root / file))
        except ImageError as error:
            first = first or error
    raise UsageError(f"none of the {len(files)} images in {root} can be read", "check the files") from first


def _files(root: Path, name: str) -> list[str]:
    def stop(error: OSError) -> None:
        raise error

    # Texts, not paths: a tenth of the time. Sorted as torchvision does: folders first, then the names in each.
    base = os.path.join(root, "")  # noqa: PTH118
    return [
        os.path.join(parent, file)[len(base) :]  # noqa: PTH118
        for parent, _, names in sorted(os.walk(base + name, onerror=stop, followlinks=True), key=lambda at: at[0])
        for file in sorted(names)
        if file.lower().endswith(EXTENSIONS)
    ]

"""Data sets of image files, each decoded when it is requested."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from caa_cli.data.decoding import COLOUR, GREY, ImageError, Recipe, decode, measure, open_image
from caa_cli.data.images import Images, spread
from caa_cli.errors import UsageError
from caa_cli.runtime.words import counted

# The extensions of torchvision's ImageFolder.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
# How many images decide whether a folder is of grey images.
_LOOKED_AT = 32


@dataclass(frozen=True)
class ImageFiles(Images):
    """A split of image files in class folders.

    Files are in the order of torchvision's ImageFolder: by class, then by name. An image is decoded on every request
    and not cached: 0.14 ms for a CIFAR-10 JPEG, 1 to 5 ms for an ImageNet JPEG, compared with seconds for an attack.
    Training requests each image many times and uses `load` instead.

    files: paths relative to `root`.  labels: (N,) int64.  recipe: the preprocessing of a file.
    """

    name: str
    split: str
    root: Path
    files: list[str]
    labels: Tensor
    num_classes: int
    recipe: Recipe
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()

    def prepared(self, resize: int, interpolation: str) -> ImageFiles:
        """The same images cropped from others: with the shorter side resized to `resize`, interpolated so."""
        return replace(self, recipe=replace(self.recipe, resize=resize, interpolation=interpolation))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return self.recipe.shape

    @property
    def files_sha256(self) -> str:
        return hashlib.sha256("\n".join(self.files).encode(errors="surrogateescape")).hexdigest()

    def path(self, index: int) -> Path:
        return self.root / self.files[index]

    def pil(self, index: int) -> Image.Image:
        """The decoded image in the data set's mode ("L" or "RGB"), before resizing. Raises ImageError."""
        return open_image(str(self.path(index)), self.recipe.mode)

    def image(self, index: int) -> Tensor:
        return torch.from_numpy(decode(str(self.path(index)), self.recipe)).float() / 255.0


def class_folders(root: Path) -> list[str]:
    """The sorted names of the folders in `root`. Raises OSError if it can't be read."""
    with os.scandir(root) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir())


def has_folders(root: Path) -> bool:
    return root.is_dir() and bool(class_folders(root))


def labelled_files(root: Path, classes: Iterable[tuple[str, int]]) -> tuple[list[str], Tensor]:
    """(paths relative to `root`, labels (N,) int64) of the images in these class folders, nested folders included.

    classes: (name of the folder, label).  Sorted by class and path. Raises UsageError if a folder has no image, and
    OSError if one can't be read: skipping it would shift the indices of all later images.
    """
    files: list[str] = []
    labels: list[int] = []
    for name, label in sorted(classes):
        images = _files(root, name)
        if not images:
            raise UsageError(
                f"the class folder {root / name} holds no images",
                f"delete that folder or fill it; an image's name ends in one of {', '.join(EXTENSIONS)}",
            )
        files += images
        labels += [label] * len(images)
    return files, torch.tensor(labels, dtype=torch.int64)


def measured(root: Path, files: list[str]) -> tuple[str, int, int]:
    """(mode, height, width) of the first file whose header can be read; "RGB" also if others are in colour, as data
    sets of photographs hold a few grey ones. Raises UsageError if no file can be read."""
    first: ImageError | None = None
    for file in files:
        try:
            mode, height, width = measure(str(root / file))
        except ImageError as error:
            first = first or error
            continue
        some = (str(root / files[position]) for position in spread(len(files), _LOOKED_AT))
        return (GREY if mode == GREY and not any(map(_is_coloured, some)) else COLOUR), height, width
    raise UsageError(f"none of {counted(len(files), 'image')} in {root} can be read", "check the files") from first


def _is_coloured(path: str) -> bool:
    try:
        return measure(path)[0] == COLOUR
    except ImageError:
        return False


def _files(root: Path, name: str) -> list[str]:
    """Paths relative to `root` of all images in the folder `name`, sorted."""

    def stop(error: OSError) -> None:
        raise error

    # Strings take a tenth of the time of Path objects. Sorted as by torchvision: by folder, then by name.
    base = os.path.join(root, "")  # noqa: PTH118
    return [
        os.path.join(parent, file)[len(base) :]  # noqa: PTH118
        for parent, _, names in sorted(os.walk(base + name, onerror=stop, followlinks=True), key=lambda at: at[0])
        for file in sorted(names)
        if file.lower().endswith(EXTENSIONS)
    ]

"""CIFAR-10, from torchvision's batches or a tree of image files."""

from __future__ import annotations

import shlex
import tarfile
from pathlib import Path
from typing import Any

import torch

from caa_cli.data.decoding import COLOUR, Recipe
from caa_cli.data.download import DOWNLOAD, fetch, torchvision_line
from caa_cli.data.files import ImageFiles, class_folders, has_folders, labelled_files
from caa_cli.data.images import ImageSet
from caa_cli.errors import UsageError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = "cifar-10-batches-py"
TREES = ("cifar10-jpeg", "cifar10", ".")


def open_cifar10(data_dir: Path, split: str, download: bool) -> ImageSet | ImageFiles:
    """A split of CIFAR-10: from DIR/cifar-10-batches-py, else from image files in {train,test}/<class>/ below
    DIR/cifar10-jpeg, DIR/cifar10 or DIR.

    Raises UsageError if there is none, or it is damaged, and OSError if it can't be read.
    """
    if download:
        fetch("CIFAR10", data_dir)
    if (data_dir / BATCHES).is_dir():
        from torchvision.datasets import CIFAR10  # takes a second, and is not needed for image files

        try:
            # CIFAR10 verifies all checksums before it unpickles anything.
            return from_batches(CIFAR10(str(data_dir), train=split == "train", download=False), split)
        except OSError:  # files that may not be read are not damaged
            raise
        except Exception as error:  # damaged data may raise anything
            raise UsageError(
                f"the CIFAR-10 files in {data_dir / BATCHES} are incomplete or damaged",
                "delete that folder and repeat the command with --download",
            ) from error
    for tree in TREES:
        if has_folders(data_dir / tree / split):
            return _from_tree(data_dir / tree / split, split)
    archive = data_dir / "cifar-10-python.tar.gz"
    if archive.is_file() and tarfile.is_tarfile(archive):
        raise UsageError(f"{archive} is still packed", shlex.join(["tar", "-xzf", str(archive), "-C", str(data_dir)]))
    raise UsageError(
        f"no CIFAR-10 in {data_dir}: looked for {BATCHES}/ and for image files in cifar10-jpeg/{split}/<class>/, "
        f"cifar10/{split}/<class>/ and {split}/<class>/",
        f"repeat the command with --download, or once: {torchvision_line('CIFAR10', data_dir, DOWNLOAD)}",
    )


def from_batches(dataset: Any, split: str) -> ImageSet:
    """The images of torchvision's data set, whose `data` are (N, 32, 32, 3) uint8."""
    images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet("cifar10", split, images, torch.tensor(dataset.targets), len(CLASSES), class_names=CLASSES)


def _from_tree(root: Path, split: str) -> ImageFiles:
    """The images of class folders; a label is the index of the class in CLASSES, even if folders are missing."""
    names = class_folders(root)
    strange = [name for name in names if name not in CLASSES]
    if strange:
        raise UsageError(
            f"{root / strange[0]} is named after no class of CIFAR-10",
            f"the classes are {', '.join(CLASSES)}; a data set of your own is --dataset folder",
        )
    files, labels = labelled_files(root, [(name, CLASSES.index(name)) for name in names])
    notes: tuple[str, ...] = ()
    if any(file.lower().endswith((".jpg", ".jpeg")) for file in files):
        notes = (
            f"{root} holds JPEG files: their pixels are near those of CIFAR-10, not the same, "
            "so published figures are met only nearly",
        )
    return ImageFiles("cifar10", split, root, files, labels, len(CLASSES), Recipe(COLOUR, 32, 32), notes, CLASSES)

"""CIFAR-10: torchvision's batches, or a tree of image files."""

from __future__ import annotations

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
    """DIR/cifar-10-batches-py, else DIR/cifar10-jpeg, DIR/cifar10 or DIR itself with {train,test}/<class>/.

    Raises UsageError where none is there, or what is there can't be read.
    """
    if download:
        fetch("CIFAR10", data_dir)
    if (data_dir / BATCHES).is_dir():
        from torchvision.datasets import CIFAR10  # takes a second, which a tree of files needs not

        try:
            # It compares all checksums before it unpickles anything.
            return from_batches(CIFAR10(str(data_dir), train=split == "train", download=False), split)
        except Exception as error:  # whatever the first wrong byte leads to
            raise UsageError(
                f"the CIFAR-10 files in {data_dir / BATCHES} are incomplete or damaged",
                "delete that folder and repeat the command with --download",
            ) from error
    for tree in TREES:
        if has_folders(data_dir / tree / split):
            return _from_tree(data_dir / tree / split, split)
    archive = data_dir / "cifar-10-python.tar.gz"
    if archive.is_file() and tarfile.is_tarfile(archive):
        raise UsageError(f"{archive} is still packed", f"unpack it: tar -xzf {archive} -C {data_dir}")
    raise UsageError(
        f"no CIFAR-10 in {data_dir}: looked for {BATCHES}/ and for image files in cifar10-jpeg/{split}/<class>/, "
        f"cifar10/{split}/<class>/ and {split}/<class>/",
        f"repeat the command with --download, or once: {torchvision_line('CIFAR10', data_dir, DOWNLOAD)}",
    )


def from_batches(found: Any, split: str) -> ImageSet:
    """From torchvision's data set, whose `data` are (N, 32, 32, 3) uint8."""
    images = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
    return ImageSet("cifar10", split, images, torch.tensor(found.targets), num_classes=len(CLASSES))


def _from_tree(root: Path, split: str) -> ImageFiles:
    """A class's label is its place among the ten names, also where the tree holds only some of them."""
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
    return ImageFiles("cifar10", split, root, files, labels, len(CLASSES), Recipe(COLOUR, 32, 32), notes)

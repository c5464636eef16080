"""Data sets by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from caa_cli.data.cifar10 import open_cifar10
from caa_cli.data.files import ImageFiles
from caa_cli.data.folder import open_folder
from caa_cli.data.imagenet import open_imagenet
from caa_cli.data.images import ImageSet
from caa_cli.data.mnist import MNIST_KINDS, open_mnist
from caa_cli.errors import UsageError
from caa_cli.names import DATASETS, RESIZED

DEMO_FILE = Path(__file__).with_name("demo.npz")
DOWNLOADED = ("mnist", "fashion-mnist", "cifar10")
# What --data-dir has to hold, for whoever left it out.
LAYOUTS = {
    "mnist": "DIR/MNIST/raw has the four MNIST files",
    "fashion-mnist": "DIR/FashionMNIST/raw has the four Fashion-MNIST files",
    "cifar10": "DIR has cifar-10-batches-py, or image files in test/<class>/",
    "imagenet": "DIR/val has a folder for each wnid",
    "folder": "DIR has a folder for each class",
}


def open_dataset(
    name: str, data_dir: Path | None, split: str, *, image_size: int | None = None, download: bool = False
) -> ImageSet | ImageFiles:
    """A split ("test" or "train"): small sets in memory, trees of image files read one by one.

    image_size: of the square that the images of `imagenet` and `folder` are brought to.  download: first fetch what
    is missing.  Raises UsageError for an unknown name, and where the files are not there or can't be used.
    """
    if name not in DATASETS:
        raise UsageError(f"unknown data set {name!r}", f"use --dataset with one of {', '.join(DATASETS)}")
    if image_size is not None and name not in RESIZED:
        raise UsageError(f"--image-size is not for {name}, whose images are all of one size", "leave it out")
    if name == "demo":
        return _demo(split)
    if data_dir is None:
        raise UsageError(
            f"the data set {name} needs the folder that holds it",
            f"add --data-dir DIR, where {LAYOUTS[name]}, or use --dataset demo",
        )
    if download and name not in DOWNLOADED:
        raise UsageError(
            f"{name} can't be downloaded automatically",
            f"leave --download out, and name a folder with --data-dir DIR, where {LAYOUTS[name]}",
        )
    try:
        return _open(name, data_dir, split, image_size, download)
    except OSError as error:
        raise UsageError(
            f"{error.filename or data_dir} can't be read ({error.strerror or error})",
            "check --data-dir, and that you may read what is in it",
        ) from error


def _open(name: str, data_dir: Path, split: str, image_size: int | None, download: bool) -> ImageSet | ImageFiles:
    if not download and not data_dir.is_dir():
        what = "is no folder" if data_dir.exists() else "does not exist"
        again = "repeat the command with --download, or " if name in DOWNLOADED else ""
        raise UsageError(
            f"--data-dir {data_dir} {what}",
            f"{again}name a folder where {LAYOUTS[name]}, or use --dataset demo",
        )
    if name in MNIST_KINDS:
        return open_mnist(name, data_dir, split, download)
    if name == "cifar10":
        return open_cifar10(data_dir, split, download)
    if name == "imagenet":
        return open_imagenet(data_dir, split, image_size)
    return open_folder(data_dir, split, image_size)


def _demo(split: str) -> ImageSet:
    """The first 100 MNIST test images, and 600 of its training images; they ship inside the package."""
    with np.load(DEMO_FILE) as arrays:
        images = torch.from_numpy(arrays[f"{split}_images"])[:, None]
        labels = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64))
    return ImageSet("demo", split, images, labels, num_classes=10)

"""Data sets by name. An example's index is its position in its split: the same in every run and shard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caa_cli.errors import UsageError
from caa_cli.names import DATASETS

DEMO_FILE = Path(__file__).with_name("demo.npz")


@dataclass(frozen=True)
class ImageSet:
    """A split held in memory.

    images: (N, channels, height, width) uint8.  labels: (N,) int64.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    num_classes: int

    def __len__(self) -> int:
        return len(self.images)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        _, channels, height, width = self.images.shape
        return channels, height, width

    def image(self, index: int) -> Tensor:
        """(channels, height, width) float32 in [0, 1]."""
        return self.images[index].float() / 255.0

    def label(self, index: int) -> int:
        return int(self.labels[index])


def open_dataset(name: str, data_dir: Path | None, split: str) -> ImageSet:
    """Raises UsageError for an unknown name, and where the files are not there."""
    if name == "demo":
        return _demo(split)
    if name == "mnist":
        return _mnist(data_dir, split)
    raise UsageError(f"unknown data set {name!r}", f"use --dataset with one of {', '.join(DATASETS)}")


def _demo(split: str) -> ImageSet:
    """The first 100 MNIST test images, and 600 of its training images; they ship inside the package."""
    with np.load(DEMO_FILE) as arrays:
        images = torch.from_numpy(arrays[f"{split}_images"])[:, None]
        labels = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64))
    return ImageSet("demo", split, images, labels, num_classes=10)


def _mnist(data_dir: Path | None, split: str) -> ImageSet:
    if data_dir is None:
        raise UsageError(
            "the data set mnist needs the folder that holds it",
            "add --data-dir DIR, where DIR/MNIST/raw has the four MNIST files, or use --dataset demo",
        )
    from torchvision.datasets import MNIST

    raw = data_dir / "MNIST" / "raw"
    prefix = "train" if split == "train" else "t10k"
    if not (raw / f"{prefix}-images-idx3-ubyte").is_file() or not (raw / f"{prefix}-labels-idx1-ubyte").is_file():
        if list(raw.glob(f"{prefix}*.gz")):
            raise UsageError(f"the MNIST files in {raw} are still packed", f"unpack them: gunzip {raw}/*.gz")
        raise UsageError(
            f"no MNIST in {data_dir}: looked for {raw}/{prefix}-images-idx3-ubyte and its labels",
            f'download it once with: python -c "from torchvision.datasets import MNIST; '
            f"MNIST('{data_dir}', download=True)\"  or use --dataset demo",
        )
    try:
        found = MNIST(str(data_dir), train=split == "train", download=False)
        fits = found.data.shape[1:] == (28, 28) and len(found.data) == len(found.targets) > 0
    except Exception as error:  # torchvision raises whatever the first wrong byte leads to
        raise _damaged(raw, f" ({error})" if str(error) else "") from error
    if not fits:
        raise _damaged(raw, f": {len(found.data)} images, {len(found.targets)} labels")
    return ImageSet("mnist", split, found.data[:, None], found.targets, num_classes=10)


def _damaged(raw: Path, why: str) -> UsageError:
    return UsageError(
        f"the MNIST files in {raw} can't be read{why}", "delete that folder and unpack or download MNIST again"
    )

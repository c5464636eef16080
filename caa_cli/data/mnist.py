"""MNIST and Fashion-MNIST: idx files, two for each split."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caa_cli.data.download import DOWNLOAD, fetch, torchvision_line
from caa_cli.data.images import ImageSet
from caa_cli.errors import UsageError
from caa_cli.runtime.words import counted, sizes

DIGITS = tuple(f"digit {number}" for number in range(10))
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def open_mnist(data_dir: Path, split: str, download: bool) -> ImageSet:
    """A split of MNIST from DIR/MNIST/raw. Raises UsageError if the files are missing or damaged, and OSError
    if they can't be read."""
    return _open("mnist", "MNIST", DIGITS, data_dir, split, download)


def open_fashion_mnist(data_dir: Path, split: str, download: bool) -> ImageSet:
    """A split of Fashion-MNIST from DIR/FashionMNIST/raw. Raises UsageError as `open_mnist`."""
    return _open("fashion-mnist", "FashionMNIST", CLOTHES, data_dir, split, download)


def _open(name: str, kind: str, class_names: tuple[str, ...], data_dir: Path, split: str, download: bool) -> ImageSet:
    """A split of the data set; kind: the name of torchvision's class and of the folder of its files."""
    if download:
        fetch(kind, data_dir)
    raw = data_dir / kind / "raw"
    prefix = "train" if split == "train" else "t10k"
    files = raw / f"{prefix}-images-idx3-ubyte", raw / f"{prefix}-labels-idx1-ubyte"
    if not all(file.is_file() for file in files):
        if list(raw.glob(f"{prefix}*.gz")):
            raise UsageError(
                f"the {kind} files in {raw} are still packed", f"unpack them: gunzip {shlex.quote(str(raw))}/*.gz"
            )
        above = [folder for folder in data_dir.resolve().parents[:2] if (folder / kind / "raw").is_dir()]
        if above:
            raise UsageError(f"--data-dir {data_dir} is inside the {kind} folder", f"--data-dir {above[0]}")
        raise UsageError(
            f"no {kind} in {data_dir}: looked for {files[0]} and its labels",
            f"repeat the command with --download, or once: {torchvision_line(kind, data_dir, DOWNLOAD)}  "
            "or use --dataset demo",
        )
    try:
        images, labels = _read(files[0], rank=3), _read(files[1], rank=1)
    except ValueError as error:
        raise _damaged(kind, raw, f" ({error})") from error
    if images.shape[1:] != (28, 28) or not len(images) == len(labels) > 0:
        held = f"{counted(len(images), 'image')} of {sizes(images.shape[1:])} pixels"
        raise _damaged(kind, raw, f": {held}, {counted(len(labels), 'label')}")
    return ImageSet(name, split, images[:, None], labels.long(), len(class_names), class_names=class_names)


def _read(file: Path, rank: int) -> Tensor:
    """The bytes in an idx file, in the shape that its header says. Raises ValueError for a damaged file."""
    content = file.read_bytes()
    length = 4 * (1 + rank)
    # Unsigned bytes (8) of so many dimensions, and the size of each.
    kind, *shape = np.frombuffer(content[:length].ljust(length, b"\0"), ">u4").tolist()
    if kind != 0x800 + rank:
        raise ValueError(f"{file.name} is no idx file of {counted(rank, 'dimension')}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=length).reshape(shape).copy())


def _damaged(kind: str, raw: Path, why: str) -> UsageError:
    return UsageError(
        f"the {kind} files in {raw} can't be read{why}",
        f"delete that folder, and unpack {kind} again or repeat the command with --download",
    )

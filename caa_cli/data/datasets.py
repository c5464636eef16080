"""Data sets by name."""

from __future__ import annotations

from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import numpy as np
import torch

from caa_cli.config.choices import SPLITS
from caa_cli.config.datasets import DATASETS, DEMO, DatasetSpec
from caa_cli.config.paths import exists
from caa_cli.config.ranges import OneOf
from caa_cli.data.files import ImageFiles
from caa_cli.data.images import ImageSet
from caa_cli.data.mnist import DIGITS
from caa_cli.errors import UsageError

DEMO_FILE = Path(__file__).with_name("demo.npz")


def open_dataset(
    name: str,
    data_dir: Path | None,
    split: str,
    *,
    image_size: int | None = None,
    download: bool = False,
    dry_run: bool = False,
) -> ImageSet | ImageFiles:
    """A split ("test" or "train") of a data set: in memory, or as image files that are read one by one.

    image_size: pixels of the square that images are resized to, for data sets of image files.  download: fetch
    missing files first, unless it is a dry_run.  Raises UsageError for an unknown name or split, and if the files are
    missing or unusable.
    """
    OneOf(DATASETS).check("--dataset", name)
    OneOf(SPLITS).check("--split", split)
    spec = DATASETS[name]
    if image_size is not None and not spec.resized:
        raise UsageError(f"--image-size is not for {name}, whose images are all of one size", "leave it out")
    if spec.layout is None:
        return _opened(spec, split)
    if data_dir is None:
        raise UsageError(
            f"the data set {name} needs the folder that holds it",
            f"add --data-dir DIR, where {spec.layout}, or use --dataset {DEMO}",
        )
    if download and not spec.downloads:
        raise UsageError(
            f"{name} can't be downloaded automatically",
            f"leave --download out, and name a folder with --data-dir DIR, where {spec.layout}",
        )
    fetches = download and not dry_run
    settings: dict[str, Any] = {"data_dir": data_dir}
    settings |= {"download": fetches} if spec.downloads else {}
    settings |= {"image_size": image_size} if spec.resized else {}
    try:
        there = exists(data_dir)
        if not fetches and not data_dir.is_dir():
            what = "is no folder" if there else "does not exist"
            again = "repeat the command with --download, or " if spec.downloads else ""
            raise UsageError(
                f"--data-dir {data_dir} {what}",
                f"{again}name a folder where {spec.layout}, or use --dataset {DEMO}",
            )
        return _opened(spec, split, **settings)
    except UsageError as error:
        if not (download and dry_run):
            raise
        raise error.with_advice("leave --dry-run out, which downloads nothing") from error
    except OSError as error:
        raise UsageError(
            f"{error.filename or data_dir} can't be read ({error.strerror or error})",
            "check --data-dir, and that you may read what is in it",
        ) from error


def class_names(name: str) -> tuple[str, ...]:
    """The names of a data set's classes; empty where its files have them."""
    place = DATASETS[name].class_names
    names = () if place is None else resolve_name(place)
    return tuple(names() if callable(names) else names)


def _opened(spec: DatasetSpec, split: str, **settings: Any) -> ImageSet | ImageFiles:
    images: ImageSet | ImageFiles = resolve_name(spec.opens)(split=split, **settings)
    return images


def open_demo(split: str) -> ImageSet:
    """A split of the packaged demo data: the first 100 MNIST test images, and 600 of its training images."""
    with np.load(DEMO_FILE) as arrays:
        images = torch.from_numpy(arrays[f"{split}_images"])[:, None]
        labels = torch.from_numpy(arrays[f"{split}_labels"].astype(np.int64))
    return ImageSet("demo", split, images, labels, num_classes=10, class_names=DIGITS)

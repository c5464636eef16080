"""The data sets: a row of `DATASETS` each. Nothing else in the package lists them."""

from __future__ import annotations

from dataclasses import dataclass

DEMO, IMAGENET, FOLDER = "demo", "imagenet", "folder"


@dataclass(frozen=True)
class DatasetSpec:
    """opens: `module:function` of a split, and of data_dir, download and image_size where the fields below say so.

    shape, classes: (channels, height, width) of its images and their number of classes; None: as the files are.
    layout: what --data-dir has to hold; None: the images come with caa.  downloads: whether they can be fetched.
    resized: whether --image-size resizes the images.  open_classes: whether its classes may be a subset of a
    model's classes.  normalisation, augment: the defaults of `caa train`.  class_names: `module:name` of a tuple, or
    of a function that returns one; None: as the files have them.
    """

    opens: str
    shape: tuple[int, int, int] | None = None
    classes: int | None = None
    layout: str | None = None
    downloads: bool = False
    resized: bool = False
    open_classes: bool = False
    normalisation: str = "none"
    augment: str = "none"
    class_names: str | None = None


DATASETS: dict[str, DatasetSpec] = {
    DEMO: DatasetSpec(
        "caa_cli.data.datasets:open_demo",
        (1, 28, 28),
        10,
        normalisation="mnist",
        class_names="caa_cli.data.mnist:DIGITS",
    ),
    "mnist": DatasetSpec(
        "caa_cli.data.mnist:open_mnist",
        (1, 28, 28),
        10,
        "DIR/MNIST/raw has the four MNIST files",
        downloads=True,
        normalisation="mnist",
        class_names="caa_cli.data.mnist:DIGITS",
    ),
    "fashion-mnist": DatasetSpec(
        "caa_cli.data.mnist:open_fashion_mnist",
        (1, 28, 28),
        10,
        "DIR/FashionMNIST/raw has the four Fashion-MNIST files",
        downloads=True,
        normalisation="fashion-mnist",
        class_names="caa_cli.data.mnist:CLOTHES",
    ),
    "cifar10": DatasetSpec(
        "caa_cli.data.cifar10:open_cifar10",
        (3, 32, 32),
        10,
        "DIR has cifar-10-batches-py, or image files in test/<class>/",
        downloads=True,
        normalisation="cifar10",
        augment="crop-flip",
        class_names="caa_cli.data.cifar10:CLASSES",
    ),
    IMAGENET: DatasetSpec(
        "caa_cli.data.imagenet:open_imagenet",
        (3, 224, 224),
        1000,
        "DIR/val has a folder for each wnid",
        resized=True,
        open_classes=True,
        normalisation="imagenet",
        augment="resized-crop-flip",
        class_names="caa_cli.data.imagenet:class_names",
    ),
    FOLDER: DatasetSpec(
        "caa_cli.data.folder:open_folder", layout="DIR has a folder for each class", resized=True, open_classes=True
    ),
}


def those_that(trait: str) -> str:
    """The names of the data sets whose row has this trait, as the help lists them."""
    return ", ".join(name for name, spec in DATASETS.items() if getattr(spec, trait))

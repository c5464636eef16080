"""MNIST and Fashion-MNIST, four idx files each, read by torchvision."""

from __future__ import annotations

from pathlib import Path

from caa_cli.data.download import DOWNLOAD, fetch, torchvision_line
from caa_cli.data.images import ImageSet
from caa_cli.errors import UsageError
from caa_cli.runtime.words import counted

DIGITS = tuple(f"digit {number}" for number in range(10))
CLOTHES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def open_mnist(data_dir: Path, split: str, download: bool) -> ImageSet:
    """A split of MNIST from DIR/MNIST/raw. Raises UsageError if the files are missing or can't be read."""
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
    if not (raw / f"{prefix}-images-idx3-ubyte").is_file() or not (raw / f"{prefix}-labels-idx1-ubyte").is_file():
        if list(raw.glob(f"{prefix}*.gz")):
            raise UsageError(f"the {kind} files in {raw} are still packed", f"unpack them: gunzip {raw}/*.gz")
        above = [folder for folder in data_dir.resolve().parents[:2] if (folder / kind / "raw").is_dir()]
        if above:
            raise UsageError(f"--data-dir {data_dir} is inside the {kind} folder", f"--data-dir {above[0]}")
        raise UsageError(
            f"no {kind} in {data_dir}: looked for {raw}/{prefix}-images-idx3-ubyte and its labels",
            f"repeat the command with --download, or once: {torchvision_line(kind, data_dir, DOWNLOAD)}  "
            "or use --dataset demo",
        )
    import torchvision

    try:
        dataset = getattr(torchvision.datasets, kind)(str(data_dir), train=split == "train", download=False)
        fits = dataset.data.shape[1:] == (28, 28) and len(dataset.data) == len(dataset.targets) > 0
    except Exception as error:  # torchvision may raise anything for damaged data
        raise _damaged(kind, raw, f" ({error})" if str(error) else "") from error
    if not fits:
        raise _damaged(
            kind, raw, f": {counted(len(dataset.data), 'image')}, {counted(len(dataset.targets), 'label')}"
        )
    return ImageSet(name, split, dataset.data[:, None], dataset.targets, len(class_names), class_names=class_names)


def _damaged(kind: str, raw: Path, why: str) -> UsageError:
    return UsageError(
        f"the {kind} files in {raw} can't be read{why}",
        f"delete that folder and unpack {kind} again, or repeat the command with --download",
    )

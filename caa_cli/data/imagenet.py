"""ImageNet (ILSVRC2012) or a part of it, in folders named after its 1,000 wnids."""

from __future__ import annotations

import re
from pathlib import Path

from caa_cli.data.decoding import COLOUR, Recipe
from caa_cli.data.download import torchvision_line
from caa_cli.data.files import ImageFiles, class_folders, labelled_files
from caa_cli.errors import UsageError

# A class a line: its wnid and the name that torchvision gives it, in the order of the labels.
CLASSES_FILE = Path(__file__).with_name("imagenet-classes.txt")
IMAGE_SIZE = 224
# The usual pipeline resizes the shorter side to 256 and crops 224; other sizes keep this ratio.
RESIZE_SHARE = 256 / 224
# Folders to search, below --data-dir. Wnids directly in --data-dir are assumed to be validation images.
PLACES = {
    "test": ("val", "imagenet/val", "imagenet-sample/val", "."),
    "train": ("train", "imagenet/train"),
}


def cropped(size: int, mode: str = COLOUR) -> Recipe:
    """The recipe that resizes the shorter side to size · 256/224 and crops the centre."""
    return Recipe(mode, size, size, resize=round(size * RESIZE_SHARE))


def wnids() -> list[str]:
    """The 1,000 wnids, sorted; the index of a wnid is its label."""
    return [wnid for wnid, _ in _classes()]


def class_names() -> tuple[str, ...]:
    """The names of the 1,000 classes, by label; two pairs of classes share a name."""
    return tuple(name for _, name in _classes())


def _classes() -> list[tuple[str, str]]:
    lines = CLASSES_FILE.read_text(encoding="ascii").splitlines()
    return [(wnid, name) for wnid, _, name in (line.partition(" ") for line in lines)]


def open_imagenet(data_dir: Path, split: str, image_size: int | None) -> ImageFiles:
    """A split of ImageNet. Raises UsageError if no folder holds it, or a class folder is not a wnid."""
    label_of = {wnid: label for label, wnid in enumerate(wnids())}
    for place in PLACES[split]:
        root = data_dir / place
        names = class_folders(root) if root.is_dir() else []
        # --data-dir itself counts as ImageNet only if it contains a wnid.
        if not names or (place == "." and not any(name in label_of for name in names)):
            continue
        strange = [name for name in names if name not in label_of]
        if strange:
            raise UsageError(
                f"{root / strange[0]} is named after none of the 1,000 ImageNet classes",
                "each folder is a wnid, as n01440764, of ILSVRC2012; a data set of your own is --dataset folder",
            )
        files, labels = labelled_files(root, [(name, label_of[name]) for name in names])
        recipe = cropped(image_size or IMAGE_SIZE)
        return ImageFiles("imagenet", split, root, files, labels, len(label_of), recipe, class_names=class_names())
    raise _missing(data_dir, split)


def _missing(data_dir: Path, split: str) -> UsageError:
    part = "val" if split == "test" else "train"
    archive = f"ILSVRC2012_img_{part}.tar"
    sort = (
        f"put {archive} and ILSVRC2012_devkit_t12.tar.gz (image-net.org) in {data_dir} and sort them once: "
        + torchvision_line("ImageNet", data_dir, f'split="{part}"')
    )
    for flat in (data_dir / part, data_dir / f"ILSVRC2012_img_{part}", data_dir):
        if flat.is_dir() and any(re.match(r"ILSVRC2012_val_\d+", path.name) for path in flat.iterdir()):
            return UsageError(f"the images in {flat} are not sorted into a folder for each class", sort)
    looked = ", ".join(str(Path(place) / "<wnid>/") for place in PLACES[split])
    return UsageError(f"no ImageNet in {data_dir}: looked for {looked}", sort)

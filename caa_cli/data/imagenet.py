"""ImageNet (ILSVRC2012) in folders named after its 1,000 wnids, the whole of it or a part."""

from __future__ import annotations

import re
from pathlib import Path

from caa_cli.data.decoding import COLOUR, Recipe
from caa_cli.data.download import torchvision_line
from caa_cli.data.files import ImageFiles, class_folders, labelled_files
from caa_cli.errors import UsageError

WNIDS_FILE = Path(__file__).with_name("imagenet-wnids.txt")
IMAGE_SIZE = 224
# The usual pipeline resizes the shorter side to 256 and crops 224: other sizes keep that proportion.
RESIZE_SHARE = 256 / 224
# Where to look, below --data-dir; a folder of wnids with no split above it is taken for the validation images.
PLACES = {
    "test": ("val", "imagenet/val", "imagenet-sample/val", "."),
    "train": ("train", "imagenet/train"),
}


def cropped(size: int, mode: str = COLOUR) -> Recipe:
    """Resize the shorter side to size · 256/224, cut out the centre."""
    return Recipe(mode, size, size, resize=round(size * RESIZE_SHARE))


def wnids() -> list[str]:
    """The 1,000, sorted: a wnid's position is its label."""
    return WNIDS_FILE.read_text(encoding="ascii").split()


def open_imagenet(data_dir: Path, split: str, image_size: int | None) -> ImageFiles:
    """Raises UsageError where no such folder is there, or one is named after no class."""
    label_of = {wnid: label for label, wnid in enumerate(wnids())}
    for place in PLACES[split]:
        root = data_dir / place
        names = class_folders(root) if root.is_dir() else []
        # --data-dir itself is only taken for ImageNet if some class is in it.
        if not names or (place == "." and not any(name in label_of for name in names)):
            continue
        strange = [name for name in names if name not in label_of]
        if strange:
            raise UsageError(
                f"{root / strange[0]} is named after none of the 1,000 ImageNet classes",
                "each folder is a wnid, as n01440764, of ILSVRC2012; a data set of your own is --dataset folder",
            )
        files, labels = labelled_files(root, [(name, label_of[name]) for name in names])
        return ImageFiles("imagenet", split, root, files, labels, len(label_of), cropped(image_size or IMAGE_SIZE))
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

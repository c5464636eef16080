"""Any data set of one's own: a folder of class folders, as torchvision's ImageFolder takes it."""

from __future__ import annotations

from pathlib import Path

from caa_cli.data.decoding import Recipe
from caa_cli.data.files import ImageFiles, class_folders, first_readable, has_folders, labelled_files
from caa_cli.data.imagenet import cropped
from caa_cli.errors import UsageError

SPLIT_FOLDERS = {"test": ("test", "val"), "train": ("train",)}


def open_folder(data_dir: Path, split: str, image_size: int | None) -> ImageFiles:
    """DIR/<split>/<class>/ (for `test` also DIR/val), else DIR/<class>/. A label is the class's place by name.

    The first image decides whether all are grey, and without `image_size` how large they have to be.
    Raises UsageError where there are no images.
    """
    root, notes = _root(data_dir, split)
    names = class_folders(root)
    if not names:
        raise UsageError(
            f"{root} holds no class folders",
            "--dataset folder takes DIR/<class>/<image>, or DIR/test/<class>/<image>: check --data-dir",
        )
    files, labels = labelled_files(root, [(name, label) for label, name in enumerate(names)])
    mode, height, width = first_readable(root, files)
    recipe = Recipe(mode, height, width) if image_size is None else cropped(image_size, mode)
    return ImageFiles("folder", split, root, files, labels, len(names), recipe, notes)


def _root(data_dir: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """(the folder of the class folders, notes)."""
    there = [name for names in SPLIT_FOLDERS.values() for name in names if has_folders(data_dir / name)]
    own = [name for name in SPLIT_FOLDERS[split] if name in there]
    if own:
        root = data_dir / own[0]
        if "train" in there and class_folders(root) != class_folders(data_dir / "train"):
            return root, (f"{root} and {data_dir / 'train'} have other classes: labels go by those of {root}",)
        return root, ()
    if not there or set(class_folders(data_dir)) - {"train", "test", "val"}:
        return data_dir, ()
    raise UsageError(
        f"{data_dir} holds {' and '.join(there)}, and nothing for --split {split}",
        f"name the other split with --split, or add {data_dir / SPLIT_FOLDERS[split][0]}",
    )

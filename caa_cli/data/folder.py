"""Any data set of one's own: a folder of class folders, as torchvision's ImageFolder takes it."""

from __future__ import annotations

from pathlib import Path

from caa_cli.data.decoding import Recipe
from caa_cli.data.files import ImageFiles, class_folders, first_readable, has_folders, labelled_files
from caa_cli.data.imagenet import cropped
from caa_cli.errors import UsageError

SPLIT_FOLDERS = {"test": ("test", "val"), "train": ("train",)}


def open_folder(data_dir: Path, split: str, image_size: int | None) -> ImageFiles:
    """DIR/<split>/<class>/ (for `test` also DIR/val), or DIR/<class>/ for a folder without splits.

    A label is the class's place by name among those of DIR/train, if there is one, else among the folder's own. The
    first image decides whether all are grey, and without `image_size` how large they have to be.
    Raises UsageError where there are no images, or a class that training did not have.
    """
    root, notes = _root(data_dir, split)
    own = class_folders(root)
    if not own:
        raise UsageError(
            f"{root} holds no class folders",
            "--dataset folder takes DIR/<class>/<image>, or DIR/test/<class>/<image>: check --data-dir",
        )
    train = data_dir / "train"
    names = class_folders(train) if root != data_dir and has_folders(train) else own
    strange = [name for name in own if name not in names]
    if strange:
        raise UsageError(
            f"{root / strange[0]} is no class of {train}, by whose classes labels go",
            "give both the same class folders, or move the images to folders of those names",
        )
    files, labels = labelled_files(root, [(name, names.index(name)) for name in own])
    mode, height, width = first_readable(root, files)
    recipe = Recipe(mode, height, width) if image_size is None else cropped(image_size, mode)
    return ImageFiles("folder", split, root, files, labels, len(names), recipe, notes)


def _root(data_dir: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """(the folder of the class folders, notes)."""
    there = [name for names in SPLIT_FOLDERS.values() for name in names if has_folders(data_dir / name)]
    own = [name for name in SPLIT_FOLDERS[split] if name in there]
    if own:
        return data_dir / own[0], ()
    if there:  # and so no class of that name
        raise UsageError(
            f"{data_dir} holds {' and '.join(there)}, and nothing for --split {split}",
            f"add {data_dir / SPLIT_FOLDERS[split][0]}, or name the other split",
        )
    return data_dir, (f"{data_dir} has no train and test folders: all its images are those of either split",)

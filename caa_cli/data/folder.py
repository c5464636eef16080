"""A user's data set: a folder of class folders, in the layout of torchvision's ImageFolder."""

from __future__ import annotations

from pathlib import Path

from caa_cli.data.decoding import Recipe
from caa_cli.data.files import ImageFiles, class_folders, has_folders, labelled_files, measured
from caa_cli.data.imagenet import cropped
from caa_cli.errors import UsageError

SPLIT_FOLDERS = {"test": ("test", "val"), "train": ("train",)}


def open_folder(data_dir: Path, split: str, image_size: int | None) -> ImageFiles:
    """The images in DIR/<split>/<class>/ (for `test` also DIR/val), or in DIR/<class>/ for a folder without splits.

    Labels number the class names in sorted order: those in DIR/train if it exists, else those in the folder itself.
    Images are grey if some from all over the folder are; without `image_size`, their size is that of the first.
    Raises UsageError if there are no images, or a class is missing from DIR/train.
    """
    root, notes = _root(data_dir, split)
    classes = class_folders(root)
    if not classes:
        raise UsageError(
            f"{root} holds no class folders",
            "--dataset folder takes DIR/<class>/<image>, or DIR/test/<class>/<image>: check --data-dir",
        )
    train = data_dir / "train"
    names = class_folders(train) if has_folders(train) else classes
    strange = [name for name in classes if name not in names]
    if strange:
        raise UsageError(
            f"{root / strange[0]} is no class of {train}, by whose classes labels go",
            "give both the same class folders, or move the images to folders of those names",
        )
    if all(name.isdecimal() for name in names):
        moved = [f"{name} is class {label}" for label, name in enumerate(names) if int(name) != label]
        notes += tuple(
            f"class folders are in the order of their names, as torchvision has them: {each}" for each in moved[:1]
        )
    files, labels = labelled_files(root, [(name, names.index(name)) for name in classes])
    mode, height, width = measured(root, files)
    recipe = Recipe(mode, height, width) if image_size is None else cropped(image_size, mode)
    return ImageFiles("folder", split, root, files, labels, len(names), recipe, notes, tuple(names))


def _root(data_dir: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    """(the folder that holds the class folders, notes for the user)."""
    present = [name for names in SPLIT_FOLDERS.values() for name in names if has_folders(data_dir / name)]
    matching = [name for name in SPLIT_FOLDERS[split] if name in present]
    if matching:
        return data_dir / matching[0], ()
    if present:  # then folders of these names are splits, not classes
        raise UsageError(
            f"{data_dir} holds {' and '.join(present)}, and no {split} images",
            f"add {data_dir / SPLIT_FOLDERS[split][0]}" + (", or use --split train" if split == "test" else ""),
        )
    return data_dir, (f"{data_dir} has no train and test folders: all its images are those of either split",)

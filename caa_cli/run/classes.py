"""The classes of a run: how many the model knows, and what the data set or the checkpoint calls them."""

from __future__ import annotations

from collections.abc import Sequence

from caa_cli.config.targets import Classes
from caa_cli.data.images import Images
from caa_cli.errors import UsageError
from caa_cli.models.card import ModelCard


def classes_of(images: Images, card: ModelCard) -> Classes:
    """The model's classes, called as the data set calls them, or as the checkpoint does where that names more.

    Raises UsageError where the two have the same names in another order: then the labels mean other classes.
    """
    check_order(images.class_names, card.class_names, images.name)
    return Classes(card.num_classes, max(images.class_names, card.class_names, key=len))


def check_order(of_images: Sequence[str], of_model: Sequence[str], dataset: str) -> None:
    """Raise UsageError where the names that both have stand for other classes."""
    ours, theirs = _places(of_images), _places(of_model)
    shared = ours.keys() & theirs.keys()
    moved = [name for name in shared if ours[name] != theirs[name]]
    # The names need not agree; where they don't, a few may be different classes of one name.
    if moved and (ours.keys() == theirs.keys() or 2 * len(moved) >= len(shared)):
        name = min(moved, key=ours.__getitem__)
        raise UsageError(
            f"class names don't match: {name} is class {ours[name]} of {dataset}, {theirs[name]} of the checkpoint",
            "its labels would mean other classes than the model's: use the data set that the model was trained on",
        )


def _places(names: Sequence[str]) -> dict[str, int]:
    """The class of each name that only one has; of synonyms separated by commas, the first counts."""
    plain = [name.partition(",")[0].strip().casefold() for name in names]
    return {name: number for number, name in enumerate(plain) if plain.count(name) == 1}

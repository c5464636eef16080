"""The metadata of a checkpoint: everything needed to rebuild the model and to attack it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from caa_cli.config.datasets import DATASETS, FOLDER, IMAGENET
from caa_cli.config.ranges import Range
from caa_cli.config.schema import dataclass_from, shown
from caa_cli.errors import CaaError
from caa_cli.models.limits import short
from caa_cli.runtime.words import counted

FORMAT_VERSION = 1

# No model has more. Without limits a file could demand all memory, or hold a number too large for a float.
Classes = Annotated[int, Range(1, 10**6)]
Pixels = Annotated[int, Range(1, 10**5)]
Centre = Annotated[float, Range(-1e6, 1e6)]
Scale = Annotated[float, Range(0, 1e6, above=True)]
# Characters of the whole metadata, and of a name in it.
_LONGEST, _LONGEST_NAME = 10**6, 300


@dataclass(frozen=True)
class ModelCard:
    """Metadata of a checkpoint; torch-free.

    input_shape: (channels, height, width) of an image in [0, 1] pixel units, as noise is added to it.
    mean, std: per channel, applied after the noise.
    sigma: the noise the model was trained with, in pixel units; None when unknown.
    class_names: by number; empty where they are not known.
    training: free-form facts (method, epochs, seed, accuracies, the command), all JSON.
    """

    arch: str
    num_classes: Classes
    input_shape: tuple[Pixels, Pixels, Pixels]
    mean: tuple[Centre, ...] = (0.0,)
    std: tuple[Scale, ...] = (1.0,)
    dataset: str | None = None
    sigma: Scale | None = None
    method: str | None = None
    tool_version: str | None = None
    training: dict[str, object] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    def image_size(self, dataset: str | None) -> int | None:
        """The --image-size that gives images of `dataset` the model's input size; None: images keep their size."""
        _, height, width = self.input_shape
        if height != width or dataset not in DATASETS or not DATASETS[dataset].resized:
            return None
        # Images of a folder may have had the model's size already; they were then not resized.
        resized = self.dataset == FOLDER and self.training.get("image_size", height) == height
        return height if resized or IMAGENET in (dataset, self.dataset) else None

    def to_metadata(self) -> dict[str, str]:
        """The metadata of a safetensors file: a single JSON text, as the order of several is not reproducible."""
        # A folder of images may be called what `checked_class_names` refuses.
        document = asdict(replace(self, class_names=tuple(map(_readable, self.class_names))))
        if not self.class_names:
            del document["class_names"]  # as in files from before the field existed
        return {"caa": json.dumps({"format_version": FORMAT_VERSION, **document})}

    @staticmethod
    def from_metadata(metadata: dict[str, str]) -> ModelCard | None:
        """The card in a safetensors header; None if there is none. Raises ValueError for an invalid card."""
        if "caa" not in metadata:
            return None
        card = dataclass_from(card_document(metadata["caa"]), ModelCard)
        if any(isinstance(value, str) and len(value) > _LONGEST_NAME for value in vars(card).values()):
            raise ValueError("a name in it is too long")
        card = replace(card, class_names=checked_class_names(card.class_names, card.num_classes))
        if len(card.input_shape) != 3 or not card.mean or not card.std:
            raise ValueError("its input_shape, mean or std has another number of values")
        # JSON has lists where the card has tuples.
        channels, height, width = card.input_shape
        return replace(card, input_shape=(channels, height, width), mean=tuple(card.mean), std=tuple(card.std))


@contextmanager
def reading_card(path: Path) -> Iterator[None]:
    """A context in which a card is read: what is wrong with it is a CaaError about the file."""
    try:
        yield
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CaaError(
            f"the metadata of {path} can't be read: {short(error, 200)}", "update caa, or train again"
        ) from error


def card_document(text: str) -> dict[str, Any]:
    """The fields of a card, unchecked, without its version. Raises ValueError unless it is a card of this version."""
    if len(text) > _LONGEST:
        raise ValueError(f"it has {len(text):,} characters")
    document = json.loads(text)
    if not isinstance(document, dict) or "format_version" not in document:
        raise ValueError("it is no description of a model")
    version = document.pop("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(f"checkpoint format {shown(version)}; this version of caa reads format {FORMAT_VERSION}")
    return document


def checked_class_names(names: Sequence[str], classes: int) -> tuple[str, ...]:
    """The names as a card holds them. Raises ValueError unless there is a readable one for each class, or none."""
    if len(names) not in (0, classes):
        raise ValueError(f"it names {counted(len(names), 'class')}, and has {classes}")
    unreadable = [name for name in names if not name.isprintable() or len(name) > _LONGEST_NAME]
    if unreadable:
        raise ValueError(f"{shown(unreadable[0])} is no name of a class: it is too long, or not printable")
    return tuple(names)


def _readable(name: str) -> str:
    """The name with unusual spaces as plain ones, and a mark in place of other characters that can't be printed."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}" for c in name)

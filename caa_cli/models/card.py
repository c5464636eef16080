"""The metadata of a checkpoint: everything needed to rebuild the model and to attack it."""

from __future__ import annotations

import json
import reprlib
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from caa_cli.config.datasets import DATASETS, FOLDER, IMAGENET

FORMAT_VERSION = 1

# More than any model has. Without limits a file could demand all memory, or hold a number too large for a float.
_MOST_CLASSES, _MOST_PIXELS, _MOST = 10**6, 10**5, 1e6
# Characters of the whole metadata, and of a name in it.
_LONGEST, _LONGEST_NAME = 10**6, 300


@dataclass(frozen=True)
class ModelCard:
    """Metadata of a checkpoint; torch-free.

    input_shape: (channels, height, width) of an image in [0, 1] pixel units, as noise is added to it.
    mean, std: per channel, applied after the noise.
    sigma: the noise the model was trained with, in pixel units; None when unknown.
    training: free-form facts (method, epochs, seed, accuracies, the command), all JSON.
    """

    arch: str
    num_classes: int
    input_shape: tuple[int, int, int]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    dataset: str | None = None
    sigma: float | None = None
    method: str | None = None
    tool_version: str | None = None
    training: dict[str, Any] = field(default_factory=dict)

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
        return {"caa": json.dumps({"format_version": FORMAT_VERSION, **asdict(self)})}

    @staticmethod
    def from_metadata(metadata: dict[str, str]) -> ModelCard | None:
        """The card in a safetensors header; None if there is none. Raises ValueError for an invalid card."""
        if "caa" not in metadata:
            return None
        if len(metadata["caa"]) > _LONGEST:
            raise ValueError(f"it has {len(metadata['caa']):,} characters")
        document = json.loads(metadata["caa"])
        if not isinstance(document, dict) or "format_version" not in document:
            raise ValueError("it is no description of a model")
        version = document.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(
                f"checkpoint format {reprlib.repr(version)}; this version of caa reads format {FORMAT_VERSION}"
            )
        known = {f.name for f in fields(ModelCard)}
        card = ModelCard(**{key: value for key, value in document.items() if key in known})
        card._check()
        # JSON has lists where the card has tuples.
        channels, height, width = card.input_shape
        return replace(card, input_shape=(channels, height, width), mean=tuple(card.mean), std=tuple(card.std))

    def _check(self) -> None:
        """Raise ValueError for a value of the wrong type or outside its range."""

        def numbers(values: Any, kind: Any, low: float, high: float) -> bool:
            return isinstance(values, (list, tuple)) and all(
                isinstance(v, kind) and not isinstance(v, bool) and low < v <= high for v in values
            )

        def text(value: Any) -> bool:
            return value is None or (isinstance(value, str) and len(value) <= _LONGEST_NAME)

        real = (int, float)
        wrong = [
            name
            for name, fine in {
                "arch": self.arch is not None and text(self.arch),
                "num_classes": numbers([self.num_classes], int, 0, _MOST_CLASSES),
                "input_shape": numbers(self.input_shape, int, 0, _MOST_PIXELS) and len(self.input_shape) == 3,
                "mean": numbers(self.mean, real, -_MOST, _MOST) and len(self.mean) > 0,
                "std": numbers(self.std, real, 0, _MOST) and len(self.std) > 0,
                "dataset": text(self.dataset),
                "sigma": self.sigma is None or numbers([self.sigma], real, 0, _MOST),
                "method": text(self.method),
                "tool_version": text(self.tool_version),
                "training": isinstance(self.training, dict),
            }.items()
            if not fine
        ]
        if wrong:
            raise ValueError(f"{wrong[0]} is {reprlib.repr(getattr(self, wrong[0]))}")

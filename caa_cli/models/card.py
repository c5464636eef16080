"""What a checkpoint says about itself: everything needed to rebuild the model and to attack it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from typing import Any

FORMAT_VERSION = 1


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

    def to_metadata(self) -> dict[str, str]:
        """As safetensors keeps it: every value a JSON text."""
        entries = {"format_version": FORMAT_VERSION, **asdict(self)}
        return {f"caa.{name}": json.dumps(value) for name, value in entries.items()}

    @staticmethod
    def from_metadata(metadata: dict[str, str]) -> ModelCard | None:
        """The card in a safetensors header; None if it holds none. Raises ValueError on one that is broken."""
        if "caa.format_version" not in metadata:
            return None
        found = {
            key.removeprefix("caa."): json.loads(text) for key, text in metadata.items() if key.startswith("caa.")
        }
        version = found.pop("format_version")
        if version != FORMAT_VERSION:
            raise ValueError(f"checkpoint format {version}; this version of caa reads format {FORMAT_VERSION}")
        known = {f.name for f in fields(ModelCard)}
        card = ModelCard(**{key: value for key, value in found.items() if key in known})
        return ModelCard(
            **{
                **{f.name: getattr(card, f.name) for f in fields(ModelCard)},
                "input_shape": tuple(card.input_shape),
                "mean": tuple(card.mean),
                "std": tuple(card.std),
            }
        )

"""The metadata of a denoiser that `caa train` made."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated

from caa_cli.config.ranges import Range
from caa_cli.config.schema import dataclass_from
from caa_cli.models.card import FORMAT_VERSION, Scale, card_document

# Not `caa`, as a classifier's card: a file is read as one or the other.
_KEY = "caa_denoiser"


@dataclass(frozen=True)
class FrozenClassifier:
    """The classifier that a denoiser was trained in front of."""

    path: str
    sha256: str
    arch: str


@dataclass(frozen=True)
class DenoiserCard:
    """The description of a denoiser.

    channels: of the images.  depth: convolutions.  width: channels between them.  sigma: the noise that it was
    trained to remove, pixel units.  classifier: None if it was trained without one.  training: as in `ModelCard`.
    """

    arch: str
    channels: Annotated[int, Range(1, 10**5)]
    depth: Annotated[int, Range(1, 10**5)]
    width: Annotated[int, Range(1, 10**5)]
    sigma: Scale
    dataset: str | None = None
    classifier: FrozenClassifier | None = None
    tool_version: str | None = None
    training: dict[str, object] = field(default_factory=dict)

    def to_metadata(self) -> dict[str, str]:
        """The metadata of a safetensors file: a single JSON text."""
        return {_KEY: json.dumps({"format_version": FORMAT_VERSION, **asdict(self)})}

    @staticmethod
    def from_metadata(metadata: dict[str, str]) -> DenoiserCard | None:
        """The card in a safetensors header; None if there is none. Raises ValueError for an invalid card."""
        if _KEY not in metadata:
            return None
        document = card_document(metadata[_KEY])
        card = dataclass_from(document, DenoiserCard)
        behind = document.get("classifier")
        return card if behind is None else replace(card, classifier=dataclass_from(behind, FrozenClassifier))

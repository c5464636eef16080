"""What results record of the files that a smoothed model is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def files_of(checkpoint: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The files of a result's `checkpoint`, each with its path and sha256, as an image goes through them."""
    denoiser = checkpoint.get("denoiser")
    return [*([denoiser] if denoiser else []), checkpoint, *(checkpoint.get("members") or ())]


def model_digest(checkpoint: Mapping[str, Any]) -> str | None:
    """The SHA-256 of a result's `checkpoint`; of an ensemble, or behind a denoiser, one of all files together.

    None where it has none.
    """
    files = files_of(checkpoint)
    if len(files) == 1:
        return checkpoint.get("sha256")
    parts = [checkpoint.get("ensemble"), bool(checkpoint.get("denoiser")), *(file.get("sha256") for file in files)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

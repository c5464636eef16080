"""The digest of a smoothed model's content, from what results record of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any


def model_digest(checkpoint: Mapping[str, Any]) -> str | None:
    """The SHA-256 of a result's `checkpoint`; of an ensemble, or behind a denoiser, one of all files together.

    None where it has none.
    """
    own = checkpoint.get("sha256")
    others = [member.get("sha256") for member in checkpoint.get("members") or ()]
    denoiser = (checkpoint.get("denoiser") or {}).get("sha256")
    if not others and denoiser is None:
        return own
    parts = [own, others, checkpoint.get("ensemble"), denoiser]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

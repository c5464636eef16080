"""What a family of denoisers is given, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from caa_cli.models.checkpoint import Weights


@dataclass(frozen=True, kw_only=True)
class DenoiserFile:
    """What --denoiser names, read.

    sha256: of the file, or of all that was read of a folder.  weights: the tensors, with what surrounds them.
    documents: the JSON files of a folder by their paths in it, such as "unet/config.json"; empty for a file.
    """

    path: Path
    sha256: str
    weights: Weights
    documents: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Denoiser:
    """A denoiser that was recognised, and is not built yet.

    family: its row of DENOISERS, or `custom`.  arch: what it is, in words.  channels, size: of the images that it
    takes, with size the height and the width; None: any.  multiple: height and width have to be multiples of it.
    smallest: they are at least this.
    build: σ in [0, 1] pixel units → a network in evaluation mode. It maps images with that noise, (N, channels,
    height, width) around [0, 1], to clean images of the same shape, not necessarily within [0, 1]. Raises CaaError
    where it can't denoise this σ.  path, sha256: of what it was opened from.
    sigma, dataset: the noise that it was trained to remove and its images, where its file says so.
    expected_sigma: σ → the noise that the network was trained for and that is used for it; None: σ itself. It raises
    as `build`.
    """

    family: str
    arch: str
    channels: int | None
    build: Callable[[float], nn.Module]
    size: int | None = None
    multiple: int = 1
    smallest: int = 1
    sigma: float | None = None
    dataset: str | None = None
    expected_sigma: Callable[[float], float] | None = None
    path: str = ""
    sha256: str = ""

    @property
    def input_shape(self) -> tuple[int, int, int] | None:
        """(channels, height, width) of its images; None where it takes several."""
        if self.channels is None or self.size is None:
            return None
        return self.channels, self.size, self.size

    @property
    def record(self) -> dict[str, str]:
        """What a result says of it."""
        return {"path": self.path, "sha256": self.sha256, "family": self.family, "arch": self.arch}

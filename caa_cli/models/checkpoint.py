"""Reading and writing checkpoints. Loading one runs none of its code unless `trust` is set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from caa_cli.errors import CaaError
from caa_cli.models.architectures import NormalisedClassifier
from caa_cli.models.card import ModelCard, reading_card
from caa_cli.models.checkpoint_file import (
    DEMO_CHECKPOINT,
    find_checkpoint,
    names_factory,
    read_file,
    too_large,
)
from caa_cli.models.contents import Contents, identity, oddity
from caa_cli.models.denoisers.card import DenoiserCard
from caa_cli.models.factory import parse_call
from caa_cli.models.hub_folder import read_hub_folder
from caa_cli.models.libraries import library_preprocessing
from caa_cli.models.limits import short, unusable
from caa_cli.models.pickled import read_pickled
from caa_cli.models.preprocessing import Preprocessing
from caa_cli.models.recognise import Recognised, recognise
from caa_cli.models.safetensors_file import read_header, read_tensors, tensors_bytes
from caa_cli.models.whole import read_factory
from caa_cli.runtime.words import counted

__all__ = ["DEMO_CHECKPOINT", "Weights", "checkpoint_bytes", "find_checkpoint", "inspect_weights", "read_weights"]

# How many tensors may share the same numbers of a file, on average.
_MOST_OVERLAP = 8


@dataclass(frozen=True, kw_only=True)
class Weights(Contents):
    """The contents of a checkpoint: a file, a folder, or what a factory returned.

    path: of it, or the factory's name. size: in bytes. metadata: of a safetensors file, whatever they are.
    card: None for files without caa's metadata.
    """

    path: Path
    sha256: str
    size: int
    metadata: dict[str, str] = field(default_factory=dict)
    card: ModelCard | None = None

    @cached_property
    def recognised(self) -> Recognised | None:
        """The architecture inferred from the weights; None if it is unknown, or the file holds a whole network."""
        return None if self.module is not None else recognise(self.tensors)

    def image_size(self, dataset: str, arch: str | None) -> int | None:
        """The --image-size that gives images of `dataset` the size that the model takes; None: they keep theirs."""
        if self.card is not None:
            return self.card.image_size(dataset)
        prepared = self.preprocessing(arch)
        return None if prepared is None else prepared.image_size(dataset)

    def preprocessing(self, arch: str | None) -> Preprocessing | None:
        """How its origin, or the library that `arch` names, prepares images; None where neither says it."""
        if self.origin is not None:
            return self.origin.preprocessing
        if arch is None or ":" not in arch or self.card is not None:
            return None
        call = parse_call("--arch", arch)
        return library_preprocessing(call.source, call.name, call.settings, self.sha256)


def record_of(weights: Weights, card: ModelCard) -> dict[str, Any]:
    """What a result says of a checkpoint."""
    path, sha256 = str(weights.path), weights.sha256
    return {"path": path, "sha256": sha256, "arch": card.arch, "dataset": card.dataset, "sigma": card.sigma}


def checkpoint_bytes(model: NormalisedClassifier, card: ModelCard) -> bytes:
    """The content of a safetensors file with the card as its metadata."""
    return tensors_bytes(model.network, card.to_metadata())


def read_back(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors of a checkpoint before it is written. Raises CaaError where it could not be read again."""
    metadata = read_header(path, BytesIO(content), len(content))
    contents = Contents("safetensors", read_tensors(path, content))
    _card(path, metadata)
    _check(path, contents)
    return contents.tensors


def trained_with(path: Path) -> dict[str, Any] | None:
    """The settings of the training that wrote this checkpoint; None for a file that `caa train` did not write."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            card = ModelCard.from_metadata(metadata) or DenoiserCard.from_metadata(metadata)
    except (OSError, SafetensorError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    return None if card is None else card.training or None


def read_weights(path: Path, trust: bool = False) -> Weights:
    """The contents of a safetensors or PyTorch file of tensors; with `trust` also TorchScript or a whole network.

    The format is recognised by content. Raises CaaError for anything else.
    """
    weights = inspect_weights(path, trust)
    if weights.refusal is not None:
        raise weights.refusal
    return weights


def inspect_weights(path: Path, trust: bool = False) -> Weights:
    """As `read_weights`, but untrusted TorchScript is returned unopened, with its `refusal`."""
    if names_factory(str(path)):
        contents, sha256, size = read_factory(str(path))
    elif path.is_dir():
        contents, sha256, size = read_hub_folder(path)
    else:
        return _read(path, trust)
    _check(path, contents)
    return Weights(**vars(contents), path=path, sha256=sha256, size=size)


def _read(path: Path, trust: bool) -> Weights:
    """The contents of a file."""
    content, metadata = read_file(path)
    sha256, size, card = hashlib.sha256(content).hexdigest(), len(content), None
    try:
        if metadata is None:
            contents = read_pickled(path, content, trust)
        else:
            tensors, card = read_tensors(path, content), _card(path, metadata)
            # Of tied weights safetensors keeps one, and says which the others are.
            tied = {name: tensors[kept] for name, kept in metadata.items() if name not in tensors and kept in tensors}
            contents = Contents("safetensors", tensors | tied)
        del content
        if contents.refusal is None:
            _check(path, contents)
    except MemoryError as error:
        raise too_large(path, size) from error
    return Weights(**vars(contents), path=path, sha256=sha256, size=size, metadata=metadata or {}, card=card)


def _card(path: Path, metadata: dict[str, Any]) -> ModelCard | None:
    with reading_card(path):
        return ModelCard.from_metadata(metadata)


def _check(path: Path, contents: Contents) -> None:
    """Raise CaaError unless there are weights and all are ordinary finite tensors."""
    tensors, odd = contents.tensors, contents.odd
    if contents.module is None:
        if odd:
            name, what = next(iter(odd.items()))
            raise unusable(path, name, what, len(odd))
        if not tensors:
            raise CaaError(
                f"the checkpoint {path} holds no tensors",
                "name the file that holds the weights; of NumPy arrays make tensors first, with torch.from_numpy",
            )
    else:  # buffers of a network may hold infinities, as in a mask
        parameters = dict(contents.module.named_parameters())
        tensors = {name: tensor for name, tensor in parameters.items() if oddity(tensor) is None}
    # Tied weights are one tensor under several names; fused weights are parts of another tensor.
    different = {identity(tensor): tensor for tensor in tensors.values()}
    sizes = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in different.values()}
    if sum(tensor.nbytes for tensor in different.values()) > _MOST_OVERLAP * sum(sizes.values()):
        raise CaaError(
            f"the checkpoint {path} holds {counted(len(tensors), 'tensor', ',')} that are parts of one another "
            "over and over",
            "save each weight as a tensor of its own",
        )
    infinite = {key for key, tensor in different.items() if _not_finite(tensor)}
    broken = [name for name, tensor in tensors.items() if identity(tensor) in infinite]
    if broken:
        raise CaaError(
            f"the checkpoint {path} holds NaN or infinite weights ({short(broken[0])}, "
            f"{counted(len(broken), 'tensor')} in all)",
            "training diverged, or the file is damaged: take an earlier checkpoint",
        )


def _not_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return False
    # isfinite does not support 8-bit floating-point types.
    return not bool(torch.isfinite(tensor if tensor.element_size() > 1 else tensor.float()).all())

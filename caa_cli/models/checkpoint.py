"""Reading and writing checkpoints. Loading one runs no code that came with it, unless told to trust it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor, nn

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.architectures import NormalisedClassifier
from caa_cli.models.card import ModelCard
from caa_cli.models.contents import Contents
from caa_cli.models.ordinary import oddity
from caa_cli.models.pickled import read_pickled
from caa_cli.models.recognise import Recognised, recognise
from caa_cli.models.torchscript import is_torchscript, read_torchscript, untrusted

DEMO_CHECKPOINT = Path(__file__).with_name("demo.safetensors")


@dataclass(frozen=True)
class Weights:
    """A checkpoint file: what it holds (see Contents), before any model is built from it.

    card is None for files that don't describe themselves; size is in bytes.
    refusal: why nothing of the file was loaded; None where it was.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    card: ModelCard | None
    size: int = 0
    format: str = "safetensors"
    module: nn.Module | None = None
    keys: tuple[str, ...] = ()
    beside: dict[str, Any] = field(default_factory=dict)
    refusal: CaaError | None = None

    @cached_property
    def recognised(self) -> Recognised | None:
        """The architecture that the weights tell; None for a whole network, which tells its own."""
        return None if self.module is not None else recognise(self.tensors)


def checkpoint_bytes(model: NormalisedClassifier, card: ModelCard) -> bytes:
    """The file's content, for the caller to write: safetensors with the card as its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    return save(tensors, metadata=card.to_metadata())


def trained_with(path: Path) -> dict[str, Any] | None:
    """The settings of the training that wrote this checkpoint; None for a file that `caa train` did not write."""
    try:
        with safe_open(path, framework="pt") as file:
            card = ModelCard.from_metadata(file.metadata() or {})
    except (OSError, SafetensorError, ValueError, TypeError, OverflowError, RecursionError):
        return None
    return None if card is None else card.training or None


def find_checkpoint(path: str) -> Path:
    """`demo` names the checkpoint in the package. Raises UsageError where there is no such file."""
    if path == "demo":
        return DEMO_CHECKPOINT
    found = Path(path)
    try:
        is_file = found.is_file()
    except OSError as error:
        raise UsageError(f"the checkpoint {path} can't be read ({error.strerror})", "check the path") from error
    if not is_file:
        what = "is a folder, not a file" if found.is_dir() else "does not exist"
        raise UsageError(f"the checkpoint {path} {what}", "check the path, or try: caa attack --checkpoint demo")
    return found


def read_weights(path: Path, trust: bool = False) -> Weights:
    """Reads safetensors or a PyTorch file of plain tensors; with `trust` also TorchScript and a pickled network.

    What a file is follows from its content. Raises CaaError on anything else.
    """
    weights = look_at(path, trust)
    if weights.refusal is not None:
        raise weights.refusal
    return weights


def look_at(path: Path, trust: bool = False) -> Weights:
    """As `read_weights`, but TorchScript that is not trusted comes back unopened, with its `refusal`."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CaaError(f"the checkpoint {path} can't be read ({error.strerror})") from error
    if not content:
        raise CaaError(f"the checkpoint {path} is empty", "copy it again; the copy may have been cut off")
    sha256, size, card = hashlib.sha256(content).hexdigest(), len(content), None
    if _looks_like_safetensors(content):
        contents, card = _read_safetensors(path, content)
    elif is_torchscript(content):
        if not trust:
            return Weights(path, sha256, {}, None, size, "TorchScript, not loaded", refusal=untrusted(path))
        contents = read_torchscript(path, content)
    else:
        contents = read_pickled(path, content, trust)
    del content
    tensors = contents.tensors
    if not tensors and contents.module is None:
        raise CaaError(f"the checkpoint {path} holds no tensors", "name the file that holds the weights")
    odd = {name: what for name, tensor in tensors.items() if (what := oddity(tensor)) is not None}
    if odd and contents.module is None:
        name, what = next(iter(odd.items()))
        raise CaaError(
            f"the checkpoint {path} holds a tensor that can't be used: {name} is {what} ({len(odd)} such tensors)",
            "save the weights as ordinary tensors of floating-point numbers",
        )
    # A network may well keep an infinity in a buffer, a mask for instance.
    finite = tensors if contents.module is None else dict(contents.module.named_parameters())
    broken = [name for name, tensor in finite.items() if name not in odd and _not_finite(tensor)]
    if broken:
        raise CaaError(
            f"the checkpoint {path} holds NaN or infinite weights ({broken[0]}, {len(broken)} tensors in all)",
            "training diverged, or the file is damaged: take an earlier checkpoint",
        )
    return Weights(
        path, sha256, tensors, card, size, contents.format, contents.module, contents.keys, contents.beside
    )


def _looks_like_safetensors(content: bytes) -> bool:
    header = int.from_bytes(content[:8], "little")
    return len(content) > 9 and header < 100_000_000 and content[8:9] == b"{"


def _read_safetensors(path: Path, content: bytes) -> tuple[Contents, ModelCard | None]:
    try:
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        contents = Contents("safetensors", load(content))
        metadata = header.get("__metadata__") or {}
    except Exception as error:  # whatever the first wrong byte leads to: SafetensorError, ValueError, KeyError, …
        raise CaaError(
            f"the checkpoint {path} is damaged or cut off ({error})", "copy it again, or train it again"
        ) from error
    try:
        return contents, ModelCard.from_metadata(metadata)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise CaaError(f"the metadata of {path} can't be read: {error}", "update caa, or train again") from error


def _not_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())

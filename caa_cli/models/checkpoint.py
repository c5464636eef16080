"""Reading and writing checkpoints. Loading one never runs code that came with it."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.architectures import NormalisedClassifier, build
from caa_cli.models.card import ModelCard

DEMO_CHECKPOINT = Path(__file__).with_name("demo.safetensors")

# Containers that published training code wraps a state dict in, and what it puts before the names.
_WRAPPERS = ("state_dict", "net", "model")
_PREFIXES = ("_orig_mod.", "module.", "network.", "model.", "1.")


@dataclass(frozen=True)
class Weights:
    """What a checkpoint file holds, before any model is built from it.

    card is None for files that don't describe themselves.
    """

    path: Path
    sha256: str
    tensors: dict[str, Tensor]
    card: ModelCard | None


def checkpoint_bytes(model: NormalisedClassifier, card: ModelCard) -> bytes:
    """The file's content, for the caller to write: safetensors with the card as its metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
    return save(tensors, metadata=card.to_metadata())


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


def read_weights(path: Path) -> Weights:
    """Reads safetensors, or a PyTorch file of plain tensors. Raises CaaError on anything else."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CaaError(f"the checkpoint {path} can't be read ({error.strerror})") from error
    sha256 = hashlib.sha256(content).hexdigest()
    if not content:
        raise CaaError(f"the checkpoint {path} is empty", "copy it again; the copy may have been cut off")
    if _looks_like_safetensors(content):
        tensors, card = _read_safetensors(path)
    else:
        tensors, card = _read_torch(path, content), None
    del content
    if not tensors:
        raise CaaError(f"the checkpoint {path} holds no tensors", "name the file that holds the weights")
    broken = [name for name, tensor in tensors.items() if _not_finite(tensor)]
    if broken:
        raise CaaError(
            f"the checkpoint {path} holds NaN or infinite weights ({broken[0]}, {len(broken)} tensors in all)",
            "training diverged, or the file is damaged: take an earlier checkpoint",
        )
    return Weights(path, sha256, tensors, card)


def build_model(weights: Weights, card: ModelCard) -> NormalisedClassifier:
    """The card's model with these weights. Raises CaaError where names or shapes don't fit."""
    try:
        with torch.device("meta"):  # shapes alone: those of a card gone wrong may not fit in any memory
            state = build(card).network.state_dict()
    except RuntimeError as error:
        raise CaaError(
            f"no {card.arch} can be built as {weights.path} describes it ({error})", "update caa, or train again"
        ) from error
    tensors = _strip_prefixes(weights.tensors, state)
    missing = [name for name in state if name not in tensors and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in tensors if name not in state]
    misshapen = [
        f"{name} is {tuple(tensors[name].shape)}, wanted {tuple(tensor.shape)}"
        for name, tensor in state.items()
        if name in tensors and tensors[name].shape != tensor.shape
    ]
    if missing or unexpected or misshapen:
        if misshapen:
            detail = misshapen[0]
        elif missing:
            detail = f"{missing[0]} is missing" + (f", {unexpected[0]} is not known" if unexpected else "")
        else:
            detail = f"{unexpected[0]} is not known"
        count = len(missing) + len(unexpected) + len(misshapen)
        raise CaaError(
            f"the weights in {weights.path} don't fit {card.arch} with {card.num_classes} classes on "
            f"{'×'.join(map(str, card.input_shape))} images: {detail} ({count} such differences)",
            "name the architecture they were trained with (--arch), and the data set (--dataset)",
        )
    model = build(card)
    model.network.load_state_dict(tensors, strict=False)
    return model


def _looks_like_safetensors(content: bytes) -> bool:
    header = int.from_bytes(content[:8], "little")
    return len(content) > 9 and header < 100_000_000 and content[8:9] == b"{"


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], ModelCard | None]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = file.metadata() or {}
    except (SafetensorError, ValueError) as error:
        raise CaaError(
            f"the checkpoint {path} is damaged or cut off ({error})", "copy it again, or train it again"
        ) from error
    try:
        return tensors, ModelCard.from_metadata(metadata)
    except (ValueError, TypeError, json.JSONDecodeError) as error:
        raise CaaError(f"the metadata of {path} can't be read: {error}", "update caa, or train again") from error


def _read_torch(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd pickle protocols: what matters is said below
            found: Any = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the first wrong byte leads to: struct.error, OSError, …
        if "Unsupported global" in str(error) or "Unsupported class" in str(error):
            raise CaaError(
                f"the checkpoint {path} holds more than plain tensors; loading it could run code, so it isn't",
                "where it comes from, save its state dict: torch.save(model.state_dict(), 'weights.pt')",
            ) from error
        raise CaaError(
            f"{path} is neither safetensors nor a PyTorch checkpoint, or it is damaged",
            "copy it again, or check that it is the right file",
        ) from error
    for wrapper in _WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    if not isinstance(found, Mapping):
        raise CaaError(
            f"the checkpoint {path} holds a {type(found).__name__}, not a state dict",
            "save its state dict: torch.save(model.state_dict(), 'weights.pt')",
        )
    return {str(name): value for name, value in found.items() if isinstance(value, Tensor)}


def _strip_prefixes(tensors: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without what training wrapped around them, as long as they are not the model's own names."""
    names = dict(tensors)
    while not any(name in wanted for name in names):
        prefix = next((p for p in _PREFIXES if any(name.startswith(p) for name in names)), None)
        if prefix is None:
            break
        names = {name.removeprefix(prefix): value for name, value in names.items()}
    return names


def _not_finite(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())

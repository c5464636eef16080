"""Files of each container that a checkpoint may have, honest ones and the parts of others."""

from __future__ import annotations

import json
import pickle
import struct
import warnings
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from caa_cli.models.architectures import build
from caa_cli.models.card import ModelCard

# The file that code out of a checkpoint would write, in the current folder.
CANARY = "ran"
# A network small enough that a change anywhere in a file of it is likely to hit something.
CARD = ModelCard("small-cnn", 10, (1, 28, 28), (0.1307,), (0.3081,), "mnist", 0.5, "gaussian", "0.1.0", {"epochs": 2})


def saved(value: Any, legacy: bool = False) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layouts and types that PyTorch calls experimental
        torch.save(value, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def zipped(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def with_header(header: object, body: bytes = b"") -> bytes:
    """A safetensors file of this header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor_pickle(numbers: int) -> bytes:
    """The pickle in PyTorch's archive: {"w": a tensor of that many float32}."""
    count = pickle.dumps(numbers, protocol=2)[2:-1]
    storage = b"(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu" + count + b"tQ"
    size = count + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)R"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + size + b"tR"
    return b"\x80\x02}X\x01\x00\x00\x00w" + tensor + b"s."


class Runs:
    """Unpickled by Python it writes the canary."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(CANARY),)


class Writes(nn.Module):
    """A TorchScript program that writes the canary."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, "ran")
        return x.flatten(1)[:, :10]


def state() -> dict[str, torch.Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build(CARD).network.state_dict()


def script(module: nn.Module) -> bytes:
    buffer = BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch 2.9 and later call torch.jit deprecated
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def honest() -> dict[str, bytes]:
    """A file of each container."""
    weights = state()
    return {
        "safetensors": save(weights, metadata=CARD.to_metadata()),
        "container": saved({"epoch": 90, "arch": "small-cnn", "state_dict": weights, "optimizer": {"lr": 0.1}}),
        "bare": saved(weights),
        "legacy": saved(weights, legacy=True),
        "torchscript": script(build(CARD).network),
    }

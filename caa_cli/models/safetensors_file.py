"""Safetensors files: a JSON header, followed by the tensors."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from caa_cli.errors import CaaError
from caa_cli.models.limits import check_names, short, unusable

# 20,000 tensors take 3 MB at most with names of usual lengths; a description of a model takes 2 kB.
_LONGEST_HEADER = 25_000_000
# Packed numbers and unsigned scales have to be unpacked before they are weights.
_USABLE = {
    *("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ"),
    *("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL"),
}


def looks_like_safetensors(head: bytes) -> bool:
    """head: the first nine bytes or more."""
    return int.from_bytes(head[:8], "little") < 100_000_000 and head[8:9] == b"{"


def read_header(path: Path, file: BinaryIO, size: int) -> dict[str, Any]:
    """The metadata, empty if there is none; the whole header is checked.

    file: positioned at its beginning. size: of the file, in bytes. Raises CaaError for an invalid header.
    """
    length = int.from_bytes(file.read(8), "little")
    if length > _LONGEST_HEADER:
        raise CaaError(
            f"the header of the checkpoint {path} has {length:,} bytes: no network has such a long one",
            "it is no safetensors file, or a damaged one: copy it again",
        )
    try:
        header = json.loads(file.read(length))
        metadata = header.pop("__metadata__", None) or {}
        ends = [8 + length + entry["data_offsets"][1] for entry in header.values()]
        types = Counter(entry["dtype"] for entry in header.values())
        if not isinstance(metadata, dict):
            raise ValueError("the metadata are no dictionary")
        if max(ends, default=8 + length) != size:
            raise ValueError("its header does not go with its size")
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise damaged(path, error) from error
    check_names(path, header)
    for name, entry in header.items():
        if entry["dtype"] not in _USABLE:
            raise unusable(path, name, f"of type {short(entry['dtype'])}", types[entry["dtype"]])
    return metadata


def read_tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    """All tensors by name. Raises CaaError for a damaged file."""
    try:
        return load(content)
    except Exception as error:  # whatever the first wrong byte leads to: SafetensorError, ValueError, KeyError, …
        raise damaged(path, error) from error


def tensors_bytes(network: nn.Module, metadata: dict[str, str]) -> bytes:
    """The content of a safetensors file with a network's parameters and buffers."""
    # Copies, as the format holds no tensors that share memory: tied weights, or parts of one tensor.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in network.state_dict().items()
    }
    return save(tensors, metadata=metadata)


def damaged(path: Path, error: Exception) -> CaaError:
    return CaaError(
        f"the checkpoint {path} is damaged or cut off ({short(error, 200)})", "copy it again, or train it again"
    )

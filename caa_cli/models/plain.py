"""Serialisation of plain data: numbers, texts, lists, tuples, dictionaries, and tensors with their shared storages.

Unlike pickle it can contain no code, so a process can accept it from an untrusted one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

# The state of a training is four levels deep.
_DEEPEST = 20
# (address, length) → (number, bytes)
Storages = dict[tuple[int, int], tuple[int, memoryview]]
_DTYPES = {str(value).removeprefix("torch."): value for value in vars(torch).values() if type(value) is torch.dtype}


def pack(value: Any, most: int) -> list[memoryview]:
    """The value as a JSON header, followed by the storages of its tensors, each once and not copied.

    Raises MemoryError if the storages exceed `most` bytes in total, ValueError for a value that is not plain.
    """
    storages: Storages = {}

    def encoded(value: Any, depth: int) -> Any:
        if value is None or type(value) in (bool, int, float, str):
            return value
        if depth == 0:
            raise ValueError("it is nested too deeply")
        if isinstance(value, Tensor):
            return {"tensor": _described(value.detach().resolve_neg(), storages)}
        if isinstance(value, Mapping):
            return {"dict": [[encoded(key, 0), encoded(item, depth - 1)] for key, item in value.items()]}
        if type(value) in (list, tuple):
            return {type(value).__name__: [encoded(item, depth - 1) for item in value]}
        raise ValueError(f"it holds a {type(value).__name__}")

    tree = encoded(value, _DEEPEST)
    buffers = [buffer for _, buffer in storages.values()]
    if sum(map(len, buffers)) > most:
        raise MemoryError("the tensors are larger than their file")
    header = json.dumps({"value": tree, "storages": list(map(len, buffers))}).encode()
    return [memoryview(header), *buffers]


def unpack(header: bytearray, fill: Callable[[memoryview], None], most: int) -> Any:
    """The value that `pack` serialised; `fill` reads the next bytes into a buffer.

    most: total bytes of all storages. Raises ValueError, TypeError, KeyError or IndexError for invalid data.
    """
    document = json.loads(header)
    sizes = document["storages"]
    if sum(sizes) > most or min(sizes, default=0) < 0:
        raise ValueError("more than there can be")
    storages = []
    for size in sizes:
        values = torch.empty(size, dtype=torch.uint8)
        fill(values.numpy().data)
        storages.append(values.untyped_storage())

    def decoded(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, content),) = value.items()
        if kind == "tensor":
            return _rebuilt(content, storages)
        if kind == "dict":
            return {decoded(key): decoded(item) for key, item in content}
        items = map(decoded, content)
        return tuple(items) if kind == "tuple" else list(items)

    return decoded(document["value"])


def _described(tensor: Tensor, storages: Storages) -> list[Any]:
    storage = tensor.untyped_storage()
    key = storage.data_ptr(), storage.nbytes()
    if key not in storages:
        values = torch.empty(0, dtype=torch.uint8).set_(storage)
        storages[key] = len(storages), values.numpy().data
    dtype = str(tensor.dtype).removeprefix("torch.")
    return [storages[key][0], dtype, tensor.storage_offset(), list(tensor.shape), list(tensor.stride())]


def _rebuilt(description: list[Any], storages: list[torch.UntypedStorage]) -> Tensor:
    index, dtype, offset, shape, stride = description
    empty, storage = torch.empty(0, dtype=_DTYPES[dtype]), storages[index]
    last = offset + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    # `set_` would enlarge the storage instead of failing.
    if min([offset, *shape, *stride]) < 0 or (all(shape) and (last + 1) * empty.element_size() > storage.nbytes()):
        raise ValueError("a tensor lies outside of its storage")
    return empty.set_(storage, offset, shape, stride)

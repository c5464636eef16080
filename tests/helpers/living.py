"""The memory of tensors that are in use, on any device: what operations make and somebody holds."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Living(TorchDispatchMode):
    """Counts the bytes of tensors that operations make and somebody holds; refuses more than `most` at a time.

    besides: tensors that aren't counted, nor are views of them.
    """

    def __init__(self, most: float = math.inf, besides: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.most, self.held, self.peak = most, 0, 0
        self.known = {id(tensor.untyped_storage()) for tensor in besides}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and id(storage) not in self.known:
                self.known.add(id(storage))
                self.held += storage.nbytes()
                weakref.finalize(storage, self._gone, id(storage), storage.nbytes())
        self.peak = max(self.peak, self.held)
        if self.held > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return out

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.held -= size

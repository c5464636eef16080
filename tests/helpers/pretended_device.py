"""A CUDA device that is pretended: tensors on `cuda:0` that the CPU computes, and a count of what a GPU would do.

    with PretendedDevice() as device:
        model.to("cuda:0")(torch.zeros(8, 1, 28, 28, device="cuda:0")).sum().item()
    device.kernels, device.syncs, device.uploads

Whatever says `cuda` gets a `PretendedTensor`, which holds its values in a CPU tensor. It refuses what CUDA refuses:
to be mixed with CPU tensors, or with a generator of the CPU, and to be read by NumPy. How long anything takes can't
be known here, nor whether the GPU's own arithmetic agrees.

What is counted, each time that an operation reaches the device:

- **kernels**: operations that compute or copy on the device, each once, though CUDA may launch several kernels for
  one. Views, memory without values, empty results and questions about shapes launch nothing.
- **syncs**: the host waits until the device has done all that it was asked for. It does where it has to know a value
  (`item`, `bool`, `.cpu()`, `.tolist()`) or how many there are (`nonzero`, indexing by a mask, `unique`, …).
- **uploads**: copies from the host (`torch.tensor(…, device="cuda")`, `.to("cuda")`, indexing by a list). PyTorch
  waits for the device there too (`memcpy_and_sync`), unless the copy is `non_blocking`; those are not counted.

PyTorch's C++ takes these tensors for meta tensors, which need neither a driver nor streams; so there are no real meta
tensors while the device is pretended. Automatic mixed precision isn't pretended, and of `torch.cuda` nothing.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map

import caa_cli

CPU, META, CUDA = torch.device("cpu"), torch.device("meta"), torch.device("cuda:0")
ROOT = f"{Path(caa_cli.__file__).parent}{os.sep}"

COPIES = {"aten::copy_", "aten::_to_copy"}
# Operations that move indices to where the tensor is.
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
# Operations, besides the elementwise ones, that take a CPU tensor without dimensions for a number.
TAKES_NUMBERS = {"aten::fill", "aten::fill_", "aten::masked_fill", "aten::masked_fill_", "aten::where"}
# What launches nothing, though its schema doesn't call it a view.
NO_KERNEL = {
    *("aten::empty", "aten::empty_like", "aten::empty_strided", "aten::new_empty", "aten::new_empty_strided"),
    *("aten::_unsafe_view", "aten::detach_", "aten::is_same_size", "aten::_local_scalar_dense"),
}
# Operations that return a number of the host's, or as many values as it turns out.
WAITING = {
    *("aten::_local_scalar_dense", "aten::equal", "aten::nonzero", "aten::masked_select", "aten::bincount"),
    *("aten::_unique", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive"),
}


class PretendedTensor(Tensor):
    """A tensor that says it is on `cuda:0`; `values` is the CPU tensor that it really is."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> PretendedTensor:
        tensor: PretendedTensor = Tensor._make_wrapper_subclass(
            cls,
            values.size(),
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=META,
        )
        tensor.values = values
        return tensor

    device = property(lambda self: CUDA)
    is_cuda, is_meta = True, False
    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError("the device of this tensor isn't pretended any more")

    def __repr__(self, *, tensor_contents: object = None) -> str:
        return f"PretendedTensor({self.values!r})"


_Generator = torch.Generator


class PretendedGenerator(_Generator):
    """A generator that says it is on `cuda:0`, and draws what one of the CPU draws."""

    def __new__(cls, device: torch.device | str = CPU) -> torch.Generator:
        return super().__new__(cls if torch.device(device).type == "cuda" else _Generator, CPU)

    def __init__(self, device: torch.device | str = CPU) -> None:
        super().__init__()

    device = property(lambda self: CUDA)


class PretendedDevice:
    """The device, for as long as the context lasts, and its counters; this file's first lines say what they count.

    operations: (kind, operation, line of the package) → how many; kind is `kernel`, `sync` or `upload`.
    """

    def __init__(self) -> None:
        self.operations: Counter[tuple[str, str, str]] = Counter()
        self._context = ExitStack()

    @property
    def kernels(self) -> int:
        return self._total("kernel")

    @property
    def syncs(self) -> int:
        return self._total("sync")

    @property
    def uploads(self) -> int:
        return self._total("upload")

    def _total(self, kind: str) -> int:
        return sum(count for (counted, *_), count in self.operations.items() if counted == kind)

    def count(self, kind: str, operation: str) -> None:
        self.operations[kind, operation, _line_of_the_package()] += 1

    def __enter__(self) -> Self:
        overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
        self._context.callback(torch.__future__.set_overwrite_module_params_on_conversion, overwrite)
        self._context.callback(setattr, torch, "Generator", _Generator)
        # A parameter's memory can't move from the CPU to the device, so that a module gets new parameters.
        torch.__future__.set_overwrite_module_params_on_conversion(True)
        torch.Generator = PretendedGenerator  # type: ignore[misc]
        self._context.enter_context(_Names())
        self._context.enter_context(_Operations(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._context.close()


class _Names(TorchFunctionMode):
    """Takes `cuda` for `meta` wherever Python calls PyTorch with a device."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = getattr(function, "__name__", ""), kwargs or {}
        if name == "tolist" and isinstance(args[0], PretendedTensor):
            return args[0].cpu().tolist()
        # What is made of the host's numbers would be a meta tensor without them; it is made here and copied.
        if name == "new_tensor" and isinstance(args[0], PretendedTensor):
            return torch.tensor(args[1], **{"dtype": args[0].dtype, **kwargs, "device": CPU}).to(META)
        if name in ("tensor", "as_tensor") and _renamed(kwargs.get("device")) == META:
            return function(*args, **{**kwargs, "device": CPU}).to(META)
        if name in ("__getitem__", "__setitem__") and isinstance(args[0], PretendedTensor):
            args = (args[0], _without_lists(args[1]), *args[2:])
        if name == "to" or "device" in kwargs:
            args, kwargs = tree_map(_renamed, (args, kwargs))
        _refuse_generator(args, kwargs)
        return function(*args, **kwargs)


def _without_lists(index: Any) -> Any:
    """An index with tensors on the device in place of lists, which PyTorch would copy there."""
    if isinstance(index, tuple):
        return tuple(map(_without_lists, index))
    return torch.tensor(index).to(META) if isinstance(index, list) else index


def _renamed(value: Any) -> Any:
    is_cuda = isinstance(value, (str, torch.device)) and str(value).startswith("cuda")
    return META if is_cuda else value


def _refuse_generator(args: Any, kwargs: Any) -> None:
    """Raises RuntimeError for a generator of another device than the tensor's that it fills."""
    generator = kwargs.get("generator")
    if generator is None:
        return
    here = META in kwargs.values() or any(isinstance(value, PretendedTensor) for value in tree_iter((args, kwargs)))
    expected, found = "cuda" if here else "cpu", generator.device.type
    if found != expected:
        raise RuntimeError(f"Expected a {expected!r} device type for generator but found {found!r}")


class _Operations(TorchDispatchMode):
    """Does each operation on the CPU, after the checks that CUDA makes, and counts what the device would do."""

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self.device = device

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else torch._dynamo is imported, which takes seconds

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        with self:  # in inference mode, operations that are made of others arrive here too
            result = function.decompose(*args, **kwargs)
        if result is not NotImplemented:
            return result
        tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        ours = {id(tensor.values): tensor for tensor in tensors if isinstance(tensor, PretendedTensor)}
        asked, name = kwargs.get("device"), function._schema.name
        here = bool(ours) if asked is None else asked == META  # whether the result is on the device
        if not here and not ours:
            return function(*args, **kwargs)
        _refuse_mixing(function, args, kwargs, tensors)
        # As outside, a view of a tensor that isn't inference mode's isn't one of it either.
        with torch.inference_mode(args[0].is_inference()) if function.is_view else nullcontext():
            result = function(*tree_map(_values, args), **tree_map(_values, kwargs))
            placed = tree_map(partial(_placed, ours), result) if here else result
        for kind in _kinds(function, args, kwargs, here, result):
            self.device.count(kind, name)
        return args[0] if name == "aten::copy_" else placed


def _placed(ours: dict[int, PretendedTensor], value: Any) -> Any:
    """A result on the device: one of `ours`, by the id of its values, or a new tensor; a number stays one."""
    if not isinstance(value, Tensor):
        return value
    tensor = ours[id(value)] if id(value) in ours else PretendedTensor(value)
    assert tensor.shape == value.shape, "a shape is changed in place, which isn't pretended"
    return tensor


def _values(value: Any) -> Any:
    """What the CPU computes with in place of a value."""
    if isinstance(value, PretendedTensor):
        return value.values
    return CPU if isinstance(value, torch.device) else value


def _on_host(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, PretendedTensor)


def _kinds(function: Any, args: Any, kwargs: Any, here: bool, result: Any) -> list[str]:
    """What an operation counts as: any number of `kernel`, `sync` and `upload`; here: its result is on the device."""
    name = function._schema.name
    if name in COPIES:
        target, source = (here, args[0]) if name == "aten::_to_copy" else (not _on_host(args[0]), args[1])
        if not target:
            return ["sync"]
        if _on_host(source):
            returns_at_once = kwargs.get("non_blocking") or (name == "aten::copy_" and len(args) > 2 and args[2])
            return [] if returns_at_once else ["upload"]
    kinds = []
    if name in INDEXING:
        indices = [index for index in args[1] if index is not None]
        kinds += ["upload"] * sum(map(_on_host, indices))
        masks = sum(index.dtype in (torch.bool, torch.uint8) for index in indices)
        kinds += ["sync", "kernel"] * masks  # of `nonzero`
    if name in WAITING or (name == "aten::repeat_interleave" and kwargs.get("output_size") is None):
        kinds.append("sync")
    something = any(value.numel() for value in tree_iter(result) if isinstance(value, Tensor))
    if something and not function.is_view and name not in NO_KERNEL:
        kinds.append("kernel")
    return kinds


def _refuse_mixing(function: Any, args: Any, kwargs: Any, tensors: list[Tensor]) -> None:
    """Raises RuntimeError where CUDA would, for tensors or a generator of the CPU."""
    name, host = function._schema.name, [tensor for tensor in tensors if _on_host(tensor)]
    if name in COPIES:
        return
    written = [
        value
        for value, argument in zip((*args, *kwargs.values()), function._schema.arguments, strict=False)
        if argument.is_write
    ]
    if name in INDEXING:
        refused = _on_host(args[0]) or any(_on_host(value) and value.dim() for value in args[2:3])
    elif torch.Tag.pointwise in function.tags or name in TAKES_NUMBERS:
        refused = any(tensor.dim() for tensor in host) or any(map(_on_host, tree_iter(written)))
    else:
        refused = bool(host)
    if refused:
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, {CUDA} and cpu! ({name})"
        )


def _line_of_the_package() -> str:
    """Where the package is, as file:line; empty where a test called PyTorch itself."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_filename.startswith(ROOT):
            return f"{frame.f_code.co_filename.removeprefix(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""

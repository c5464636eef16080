"""Reading PyTorch files of plain tensors. Others could run code and are refused unless trusted.

They are read in a child process (see `confined`), and even there with PyTorch's weights_only reader.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from caa_cli.errors import CaaError
from caa_cli.models.archive import check_archive, is_archive, is_exported, is_torchscript, open_archive
from caa_cli.models.confined import read_confined
from caa_cli.models.contents import Contents, unwrap
from caa_cli.models.exported import read_exported
from caa_cli.models.limits import check_names, short
from caa_cli.models.torchscript import read_torchscript
from caa_cli.runtime.user_code import import_from

_SAVE_STATE = "save its state dict instead: torch.save(model.state_dict(), 'weights.pt')"
_TRUST = f"where it comes from, {_SAVE_STATE}; or, if you trust it like a program, add --trust-checkpoint"
_FORMAT = "PyTorch"
# How many classes and functions a file may name beside those of plain tensors.
_MOST_BESIDE = 30
# The only ones of Python itself. Others are called to do something, such as `getattr` and `exec`.
_BUILT_IN = {"dict", "float", "frozenset", "int", "list", "object", "range", "slice", "str", "tuple"}
# In place of those that hold entries of their own, which may be the weights.
_CONTAINERS: list[tuple[Callable[..., Any], str]] = [
    (lambda *_: {}, "collections.defaultdict"),
    (lambda *_: [], "collections.deque"),
]
# Files that are programs, by what wrote them.
_PROGRAMS = {"TorchScript": read_torchscript, "torch.export": read_exported}


def read_pickled(path: Path, content: bytes, trust: bool) -> Contents:
    """The contents of a state dict, bare or in a container; with `trust` also of a whole network.

    Untrusted TorchScript and torch.export are not loaded. Raises CaaError for anything else.
    """
    if not (trust or is_archive(content) or content[:1] == b"\x80"):
        raise _neither(path)
    try:
        fields = read_confined(read_state, path, content, _neither(path))
    except CaaError:
        if not trust:
            raise
        contents = unwrap(_load_trusted(path, content), f"{_FORMAT}, loaded by running its code")
        if contents is None:
            raise _nothing(path) from None
        return contents
    if "program" not in fields:
        return Contents(**fields)
    program = fields["program"]
    if trust:
        return _PROGRAMS[program](path, content)
    return Contents(f"{program}, not loaded", {}, refusal=_untrusted(path, program))


def read_state(path: Path, content: bytes) -> dict[str, Any]:
    """The fields of the file's Contents, or which `program` it is; called in a child process.

    Raises CaaError, and any other exception for a damaged file.
    """
    if is_archive(content):
        archive = open_archive(path, content)
        if is_exported(archive):
            return {"program": "torch.export"}
        if is_torchscript(archive):
            return {"program": "TorchScript"}
        check_archive(path, archive, len(content))
    contents = unwrap(_load_plain(path, content), _FORMAT)
    if contents is None:
        raise _nothing(path)
    check_names(path, contents.tensors)
    check_names(path, contents.odd)
    return vars(contents)


def read_training(path: Path, content: bytes) -> Any:
    """The state saved by `caa train`; called in a child process."""
    if is_archive(content):
        check_archive(path, open_archive(path, content), len(content))
    return _load(content, safe=True)


class _LeftOut:
    """In place of an object beside the weights: takes whatever that would be made of, and keeps none of it.

    Raises ValueError if that holds a tensor, which might be a weight.
    """

    def __new__(cls, *arguments: Any) -> _LeftOut:
        _refuse_tensors(arguments)
        return super().__new__(cls)

    def __init__(self, *arguments: Any) -> None: ...

    def __setstate__(self, state: Any) -> None:
        _refuse_tensors(state)


def _refuse_tensors(value: Any, depth: int = 20) -> None:
    if isinstance(value, Tensor) or depth == 0:
        raise ValueError("an object beside the weights holds a tensor, or is nested too deeply")
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple, set)) else ():
        _refuse_tensors(part, depth - 1)


def _load_plain(path: Path, content: bytes) -> Any:
    """The object in the file, with a `_LeftOut` in place of whatever is no plain tensor, number, text or container.

    Raises CaaError for what may hold weights or is made to do something, and whatever else a damaged file leads to.
    """
    left_out: list[str] = []
    while True:
        try:
            with torch.serialization.safe_globals([*_CONTAINERS, *((_LeftOut, name) for name in left_out)]):
                return _load(content, safe=True)
        except Exception as error:
            found = re.search(r"(?:Unsupported (?:global|class).*?|unsupported )GLOBAL (\S+)", str(error), re.DOTALL)
            name = found[1] if found else ""
            if name in _BUILT_IN:
                name = f"builtins.{name}"
            if _may_be_left_out(name) and name not in left_out and len(left_out) < _MOST_BESIDE:
                left_out.append(name)
                continue
            # The weights_only reader supports only older pickle protocols.
            pickle = content[:1] == b"\x80" and "Unsupported operand" in str(error)
            if name or pickle or left_out:
                what = short(name or next(iter(left_out), "written by pickle itself"))
                raise _refusal(path, what) from error
            raise


def _may_be_left_out(name: str) -> bool:
    """Whether an object beside the weights may be of this class or function: not of PyTorch's, which may be weights,
    nor of Python's, which is named without a module."""
    return "." in name and name.partition(".")[0] != "torch"


def _load(content: bytes, safe: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unusual pickle protocols; anything relevant is raised as an error
        return torch.load(BytesIO(content), map_location="cpu", weights_only=safe)


def _load_trusted(path: Path, content: bytes) -> Any:
    try:
        with import_from(Path.cwd()):
            return _load(content, safe=False)
    except (AttributeError, ImportError) as error:
        raise CaaError(
            f"{path} is a pickled object whose code isn't here ({short(error, 200)})",
            "run caa in the folder of the code that made it, or there " + _SAVE_STATE,
        ) from error
    except (Exception, SystemExit) as error:  # the file's own code may raise anything
        raise CaaError(
            f"unpickling {path} failed ({type(error).__name__}: {short(error, 200)})", _SAVE_STATE
        ) from error


def _neither(path: Path) -> CaaError:
    return CaaError(
        f"{path} is neither safetensors nor a PyTorch checkpoint, or it is damaged",
        "copy it again, or check that it is the right file; weights of another format (ONNX, Keras, JAX) go into a "
        "network of PyTorch first: torch.save(model.state_dict(), 'weights.pt')",
    )


def _nothing(path: Path) -> CaaError:
    return CaaError(f"the checkpoint {path} holds neither a state dict nor a network", _SAVE_STATE)


def _refusal(path: Path, what: str) -> CaaError:
    return CaaError(
        f"the checkpoint {path} is pickled with more than plain tensors ({what}); loading it could run code, "
        "so it isn't loaded",
        _TRUST,
    )


def _untrusted(path: Path, program: str) -> CaaError:
    """The error for an untrusted file: TorchScript can write files, and no inspection of its code excludes that;
    loading a file of torch.export evaluates expressions in it."""
    return CaaError(f"{path} is {program}, a program: running it could write files, so it isn't loaded", _TRUST)

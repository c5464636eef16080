"""Reading PyTorch files of plain tensors. Others could run code and are refused unless trusted.

They are read in a child process (see `confined`), and even there with PyTorch's weights_only reader.
"""

from __future__ import annotations

import argparse
import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from caa_cli.errors import CaaError
from caa_cli.models.archive import check_entries, entries_of, is_archive, is_exported, is_torchscript
from caa_cli.models.confined import read_confined
from caa_cli.models.contents import Contents, unwrap
from caa_cli.models.exported import read_exported
from caa_cli.models.limits import check_names, short
from caa_cli.models.torchscript import read_torchscript, untrusted
from caa_cli.runtime.user_code import import_from

_SAVE_STATE = "save its state dict instead: torch.save(model.state_dict(), 'weights.pt')"
_FORMAT = "PyTorch"
# Files that are programs, by what wrote them.
_PROGRAMS = {"TorchScript": read_torchscript, "torch.export": read_exported}


def read_pickled(path: Path, content: bytes, trust: bool) -> Contents:
    """The contents of a state dict, bare or in a container; with `trust` also of a whole network.

    Untrusted TorchScript and torch.export are not loaded. Raises CaaError for anything else.
    """
    try:
        if not trust and not (is_archive(content) or content[:1] == b"\x80"):
            raise _neither(path)
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
    return Contents(f"{program}, not loaded", {}, refusal=untrusted(path, program))


def read_state(path: Path, content: bytes) -> dict[str, Any]:
    """The fields of the file's Contents, or which `program` it is; called in a child process.

    Raises CaaError, and any other exception for a damaged file.
    """
    if is_archive(content):
        entries = entries_of(path, content)
        if is_exported(entries):
            return {"program": "torch.export"}
        if is_torchscript(entries):
            return {"program": "TorchScript"}
        check_entries(path, content, entries)
    try:
        loaded = _load(content, safe=True)
    except Exception as error:
        forbidden = re.search(r"(?:Unsupported (?:global|class).*?|unsupported )GLOBAL (\S+)", str(error), re.DOTALL)
        # The weights_only reader supports only older pickle protocols.
        pickle = content[:1] == b"\x80" and "Unsupported operand" in str(error)
        if forbidden or pickle:
            raise _refusal(path, short(forbidden[1]) if forbidden else "written by pickle itself") from error
        raise
    contents = unwrap(loaded, _FORMAT)
    if contents is None:
        raise _nothing(path)
    check_names(path, contents.tensors)
    check_names(path, contents.odd)
    return vars(contents)


def read_training(path: Path, content: bytes) -> Any:
    """The state saved by `caa train`; called in a child process."""
    if is_archive(content):
        check_entries(path, content, entries_of(path, content))
    return _load(content, safe=True)


def _load(content: bytes, safe: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unusual pickle protocols; anything relevant is raised as an error
        # timm stores training options in a Namespace, which has attributes but no code.
        with torch.serialization.safe_globals([argparse.Namespace]):
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
        "copy it again, or check that it is the right file",
    )


def _nothing(path: Path) -> CaaError:
    return CaaError(f"the checkpoint {path} holds neither a state dict nor a network", _SAVE_STATE)


def _refusal(path: Path, what: str) -> CaaError:
    return CaaError(
        f"the checkpoint {path} is pickled with more than plain tensors ({what}); loading it could run code, "
        "so it isn't loaded",
        f"where it comes from, {_SAVE_STATE}; or, if you trust it like a program, add --trust-checkpoint",
    )

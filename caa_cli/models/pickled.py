"""PyTorch's own files: plain tensors. Whatever holds more could run code, and is refused unless it is trusted."""

from __future__ import annotations

import argparse
import re
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from caa_cli.errors import CaaError
from caa_cli.models.contents import Contents, unwrap
from caa_cli.models.factory import import_from_here

_SAVE_STATE = "save its state dict instead: torch.save(model.state_dict(), 'weights.pt')"


def read_pickled(path: Path, content: bytes, trust: bool) -> Contents:
    """A state dict, bare or in a container; with `trust` also a whole network. Raises CaaError on anything else."""
    try:
        contents = unwrap(_load(content, safe=True), "PyTorch")
    except Exception as error:  # whatever the first wrong byte leads to: struct.error, OSError, …
        forbidden = re.search(r"Unsupported (?:global|class).*?GLOBAL (\S+)", str(error), re.DOTALL)
        # PyTorch's careful reader knows the older pickle protocols only.
        pickle = content[:1] == b"\x80" and "Unsupported operand" in str(error)
        if not trust and (forbidden or pickle):
            raise _refusal(path, forbidden[1] if forbidden else "written by pickle itself") from error
        if not trust:
            raise CaaError(
                f"{path} is neither safetensors nor a PyTorch checkpoint, or it is damaged",
                "copy it again, or check that it is the right file",
            ) from error
        contents = unwrap(_load_trusted(path, content), "PyTorch, loaded by running its code")
    if contents is None:
        raise CaaError(f"the checkpoint {path} holds neither a state dict nor a network", _SAVE_STATE)
    return contents


def _load(content: bytes, safe: bool) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd pickle protocols: what matters is said as an error
        # timm keeps the options of the training in a Namespace: a bag of attributes, without code.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(BytesIO(content), map_location="cpu", weights_only=safe)


def _load_trusted(path: Path, content: bytes) -> Any:
    try:
        with import_from_here():
            return _load(content, safe=False)
    except (AttributeError, ImportError) as error:
        raise CaaError(
            f"{path} is a pickled object whose code isn't here ({error})",
            "run caa in the folder of the code that made it, or there " + _SAVE_STATE,
        ) from error
    except (Exception, SystemExit) as error:  # the file's own code may raise anything
        raise CaaError(f"unpickling {path} failed ({type(error).__name__}: {error})", _SAVE_STATE) from error


def _refusal(path: Path, what: str) -> CaaError:
    return CaaError(
        f"the checkpoint {path} is pickled with more than plain tensors ({what}); loading it could run code, "
        "so it isn't loaded",
        f"where it comes from, {_SAVE_STATE}; or, if you trust it like a program, add --trust-checkpoint",
    )

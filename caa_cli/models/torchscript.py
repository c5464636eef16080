"""TorchScript files: a network with the code that computes it."""

from __future__ import annotations

import re
import warnings
import zipfile
from io import BytesIO
from pathlib import Path

import torch

from caa_cli.errors import CaaError
from caa_cli.models.contents import Contents

# TorchScript can't do everything that Python can, but these of its operators write files.
_WRITES = re.compile(rb"\b(?:torch|ops\.aten)\s*\.\s*(save|from_file)\s*\(")


def is_torchscript(content: bytes) -> bool:
    return content[:2] == b"PK" and bool(_code(content))


def read_torchscript(path: Path, content: bytes, trust: bool) -> Contents:
    """Raises CaaError on a damaged file, and, without `trust`, on one whose code writes files."""
    found = next(filter(None, (_WRITES.search(source) for source in _code(content))), None)
    if found and not trust:
        raise CaaError(
            f"the code in {path} uses torch.{found[1].decode()}, which writes files; it isn't loaded",
            "a classifier needs no such thing; if you trust the file like a program, add --trust-checkpoint",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch 2.9 and later call torch.jit deprecated
            module = torch.jit.load(BytesIO(content), map_location="cpu")
    except Exception as error:  # whatever the first wrong byte leads to
        raise CaaError(
            f"the TorchScript file {path} can't be loaded ({str(error).strip().splitlines()[-1]})",
            "copy it again, or save it with the PyTorch version that is used here",
        ) from error
    return Contents("TorchScript", dict(module.state_dict()), module)


def _code(content: bytes) -> list[bytes]:
    """The sources in the folder `code/` of an archive."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            names = [(entry, f"/{entry.filename}") for entry in archive.infolist()]
            return [archive.read(entry) for entry, name in names if "/code/" in name and name.endswith(".py")]
    except Exception:  # no archive, or one that is cut off
        return []

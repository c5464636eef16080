"""What --denoiser names: a file of weights, or a folder that holds one with its JSON documents."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from caa_cli.errors import CaaError, UsageError
from caa_cli.models.checkpoint import read_weights
from caa_cli.models.checkpoint_file import is_folder
from caa_cli.models.denoisers.denoiser import DenoiserFile
from caa_cli.models.limits import short
from caa_cli.runtime.words import counted

_ENDINGS = (".safetensors", ".pt", ".pth", ".th", ".bin", ".ckpt", ".tar")
# Of the JSON documents of a folder: how many are read, and the bytes of one. (A list of shards may be long.)
_MOST_DOCUMENTS, _LONGEST_DOCUMENT = 50, 1_000_000


def read_denoiser(path: Path, trust: bool = False) -> DenoiserFile:
    """The weights and documents of a file or folder; with `trust` also TorchScript or a pickled network.

    Raises UsageError where there are none, and CaaError for what can't be read.
    """
    if not is_folder(str(path), "denoiser", "; or leave --denoiser out"):
        weights = read_weights(path, trust)
        return DenoiserFile(path=path, sha256=weights.sha256, weights=weights)
    weights = read_weights(_weights_in(path), trust)
    texts = _documents_in(path)
    digest = hashlib.sha256(weights.sha256.encode())
    documents: dict[str, Any] = {}
    for name, text in texts.items():
        digest.update(f"\0{name}\0".encode() + text)
        try:
            documents[name] = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise CaaError(
                f"--denoiser {path}: {name} is not JSON ({short(error, 200)})", "copy the folder again"
            ) from error
    return DenoiserFile(path=path, sha256=digest.hexdigest(), weights=weights, documents=documents)


def weights_files(folder: Path) -> list[Path]:
    """The files of weights in a folder and its subfolders."""
    files = sorted([*folder.glob("*"), *folder.glob("*/*")])
    weights = [path for path in files if path.suffix in _ENDINGS and path.is_file()]
    # The same weights are often there twice.
    return [path for path in weights if path.suffix == ".safetensors"] or weights


def _weights_in(folder: Path) -> Path:
    """The file of weights in a folder or one of its subfolders. Raises UsageError unless there is one."""
    weights = weights_files(folder)
    if len(weights) == 1:
        return weights[0]
    if not weights:
        raise UsageError(
            f"the denoiser {short(folder, 1000)} is a folder without weights (*{', *'.join(_ENDINGS)})",
            "name the folder that holds config.json and the weights, or the file of weights itself",
        )
    names = ", ".join(str(path.relative_to(folder)) for path in weights[:5])
    raise UsageError(
        f"the denoiser {short(folder, 1000)} holds {counted(len(weights), 'file')} of weights ({names})",
        "name one of them",
    )


def _documents_in(folder: Path) -> dict[str, bytes]:
    """The JSON files in a folder and its subfolders, by their paths in it."""
    files = sorted([*folder.glob("*.json"), *folder.glob("*/*.json")])[:_MOST_DOCUMENTS]
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in files
        if path.is_file() and path.stat().st_size <= _LONGEST_DOCUMENT
    }

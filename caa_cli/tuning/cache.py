"""A cache of measured chunk sizes, for the next run of a model on this machine.

One small JSON file per model, device, dtype, number of threads and version of PyTorch, in the user's cache folder. A
file that is damaged, outdated or of another key is ignored. Files are replaced atomically, so concurrent runs do no
harm: the last measurement stays.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from caa_cli.results.store.files import write_atomically
from caa_cli.runtime.device import hardware
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.sweep import PASSES, Tuning, tune_chunks

# Increased when the measurement or the engine changes so much that old chunk sizes would mislead.
_VERSION = 2
_LARGEST_FILE, _LARGEST_CHUNK = 100_000, 2**20


def tuned(
    classifier: SmoothedClassifier,
    arch: str,
    dtype: str,
    gradients: bool,
    anew: bool,
    most: int | None = None,
    measure: Callable[..., Tuning] = tune_chunks,
) -> str:
    """Apply the cached tuning, or measure and cache it; returns its origin, `cache` or `measured`.

    anew: measure in any case. most: the most samples that a chunk may hold. measure: as `tune_chunks`.
    """
    key = _key(classifier, arch, dtype, gradients)
    path = _path(key)
    tuning = None if anew or path is None else _read(path, key)
    if tuning is not None:
        with suppress(RuntimeError):  # a layout that this network does not support: measured anew
            tuning.apply(classifier, most)
            return "cache"
    tuning = measure(classifier, gradients=gradients, most=most)
    if path is not None and most is None:  # a limit leaves out sizes that another run may use
        _write(path, key, tuning)
    return "measured"


def cache_folder() -> Path | None:
    """CAA_CACHE_DIR, or `caa` in the user's cache folder. None with CAA_TUNING_CACHE=off, or without a home."""
    if os.environ.get("CAA_TUNING_CACHE", "").lower() in ("off", "0", "no", "false"):
        return None
    named, shared = os.environ.get("CAA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named).expanduser() if named else Path(shared or Path.home() / ".cache") / "caa"
    except RuntimeError:
        return None


def _key(classifier: SmoothedClassifier, arch: str, dtype: str, gradients: bool) -> dict[str, Any]:
    """What speed depends on, except for the values of the weights and the load of the machine."""
    shapes = [(name, list(value.shape)) for name, value in classifier.model.state_dict().items()]
    return {
        "version": _VERSION,
        "arch": arch,
        "network": hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16],
        "input_shape": list(classifier.input_shape),
        "classes": classifier.num_classes,
        "passes": list(PASSES if gradients else PASSES[:1]),
        "device": hardware(classifier.device),
        "dtype": dtype,
        "torch": torch.__version__,
    }


def _path(key: dict[str, Any]) -> Path | None:
    folder = cache_folder()
    if folder is None:
        return None
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:24]
    return folder / "tuning" / f"{digest}.json"


def _read(path: Path, key: dict[str, Any]) -> Tuning | None:
    """The tuning in this file; None unless it is complete and of this key."""
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_FILE:
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
        chunks = document["chunks"]
        valid = document["key"] == key and set(chunks) == set(key["passes"])
        if valid and all(type(size) is int and 0 < size <= _LARGEST_CHUNK for size in chunks.values()):
            return Tuning(chunks, document["channels_last"] is True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    return None


def _write(path: Path, key: dict[str, Any], tuning: Tuning) -> None:
    """Write the tuning; where the folder is not writable nothing is kept, and the next run measures again."""
    document = {"key": key, "chunks": tuning.chunks, "channels_last": tuning.channels_last}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document, indent=1).encode())

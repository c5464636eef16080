"""A cache of measured chunk sizes, for the next run of a model on this machine.

One small JSON file per model, device, dtype, number of threads and version of PyTorch, in the user's cache folder,
and one with how much faster bfloat16 is (`tuning.precision`). A file that is damaged, outdated or of another key is
ignored. Files are replaced atomically, so concurrent runs do no harm: the last measurement stays.
"""

from __future__ import annotations

import hashlib
import json
import math
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
    key = {**model_key(classifier, arch), "passes": list(PASSES if gradients else PASSES[:1]), "dtype": dtype}
    path = _path(key)
    tuning = None if anew or path is None else _read(path, key)
    if tuning is not None:
        with suppress(RuntimeError):  # a layout that this network does not support: measured anew
            tuning.apply(classifier, most)
            return "cache"
    tuning = measure(classifier, gradients=gradients, most=most)
    if path is not None and most is None:  # a limit leaves out sizes that another run may use
        _write(path, {"key": key, "chunks": tuning.chunks, "channels_last": tuning.channels_last})
    return "measured"


def kept(key: dict[str, Any], anew: bool, measure: Callable[[], float]) -> float:
    """The number above 0 that is kept under this key, or what `measure` finds, which is kept from then on."""
    path = _path(key)
    document = {} if anew or path is None else _document(path, key)
    value = document.get("value")
    if isinstance(value, float) and 0.0 < value < math.inf:
        return value
    value = measure()
    if path is not None:
        _write(path, {"key": key, "value": value})
    return value


def cache_folder() -> Path | None:
    """CAA_CACHE_DIR, or `caa` in the user's cache folder. None with CAA_TUNING_CACHE=off, or without a home."""
    if os.environ.get("CAA_TUNING_CACHE", "").lower() in ("off", "0", "no", "false"):
        return None
    named, shared = os.environ.get("CAA_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(named).expanduser() if named else Path(shared or Path.home() / ".cache") / "caa"
    except RuntimeError:
        return None


def model_key(classifier: SmoothedClassifier, arch: str) -> dict[str, Any]:
    """What speed depends on, except for the values of the weights, their precision and the load of the machine."""
    networks = dict.fromkeys((classifier.model, classifier.differentiated))  # one of them, without a surrogate
    shapes = [(name, list(value.shape)) for network in networks for name, value in network.state_dict().items()]
    return {
        "version": _VERSION,
        "arch": arch,
        "network": hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16],
        "input_shape": list(classifier.input_shape),
        "classes": classifier.num_classes,
        "device": hardware(classifier.device),
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
    document = _document(path, key)
    chunks = document.get("chunks")
    if not isinstance(chunks, dict) or set(chunks) != set(key["passes"]):
        return None
    if all(type(size) is int and 0 < size <= _LARGEST_CHUNK for size in chunks.values()):
        return Tuning(chunks, document.get("channels_last") is True)
    return None


def _document(path: Path, key: dict[str, Any]) -> dict[str, Any]:
    """The content of a cache file; empty unless it is readable and has this key."""
    try:
        if path.is_file() and path.stat().st_size <= _LARGEST_FILE:
            document = json.loads(path.read_text(encoding="utf-8"))
            if isinstance(document, dict) and document.get("key") == key:
                return document
    except (OSError, ValueError, RecursionError):
        pass
    return {}


def _write(path: Path, document: dict[str, Any]) -> None:
    """Write it; where the folder is not writable nothing is kept, and the next run measures again."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document, indent=1).encode())

"""A cache of measured chunk sizes, for the next run of a model on this machine.

One small JSON file for each model, device, dtype, number of threads and version of PyTorch, in the user's cache
folder. A file that is damaged, out of date or of another key is ignored. Each is written whole and then renamed, so
that concurrent runs do no harm: the last to measure is kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from caa_cli.results.store.files import write_atomically
from caa_cli.runtime.device import hardware
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.sweep import PASSES, Tuning, tune_chunks

# Increased when the measurement, or the engine, changes so much that old figures would mislead.
_VERSION = 1
# A valid file has a few hundred bytes.
_MOST_BYTES = 100_000
_LARGEST_CHUNK = 2**20
# The time to measure each pass; longer for what is kept for many runs.
_SECONDS, _SECONDS_KEPT = 1.0, 2.0


def tuned(
    classifier: SmoothedClassifier, arch: str, dtype: str, gradients: bool, anew: bool, most: int | None = None
) -> str:
    """Applies the tuning of an earlier run, or measures and keeps it; returns `cache` or `measured`.

    anew: measure in any case. most: the most samples that a chunk may hold.
    """
    key = _key(classifier, arch, dtype, gradients)
    path = _path(key)
    tuning = None if anew or path is None else _read(path, key)
    if tuning is not None:
        try:
            tuning.apply(classifier, most)
            return "cache"
        except RuntimeError:  # a layout that this network can't take
            pass
    keep = path is not None and most is None and not _busy(classifier.device)  # a limit leaves larger sizes out
    tuning = tune_chunks(classifier, _SECONDS_KEPT if keep else _SECONDS, gradients, most)
    if keep and path is not None:
        _write(path, key, tuning)
    return "measured"


def _busy(device: torch.device) -> bool:
    """Whether other processes use the processors, so that times of several threads would mislead."""
    return device.type == "cpu" and torch.get_num_threads() > 1 and os.getloadavg()[0] > 1.5 * (os.cpu_count() or 1)


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
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["key"] != key or set(document["seconds"]) != set(key["passes"]):
            return None
        measured = {
            name: {int(size): float(seconds) for size, seconds in times.items()}
            for name, times in document["seconds"].items()
        }
        for times in measured.values():
            if not times or not all(0 < size <= _LARGEST_CHUNK for size in times):
                return None
            if not all(0 < seconds < math.inf for seconds in times.values()):
                return None
        return Tuning(measured, document["channels_last"] is True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _write(path: Path, key: dict[str, Any], tuning: Tuning) -> None:
    """Writes the tuning. In a folder that can't be written nothing is kept, and the next run measures again."""
    document = {"key": key, "channels_last": tuning.channels_last, "seconds": tuning.measured}
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(document, indent=1).encode())

"""Measuring which chunk size is fastest on this machine for this model."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio

_SIZES = {"cpu": (32, 64, 128, 256, 512, 1024, 2048), "other": tuple(2**p for p in range(8, 16))}
_ROUNDS = 8
# A size this many times slower than the best is not measured again.
_HOPELESS = 3.0


def tune_chunks(classifier: SmoothedClassifier, seconds: float = 1.0) -> dict[str, dict[int, float]]:
    """Sets the classifier's two chunk sizes to the fastest found within about `seconds` for each.

    Returns what was measured, {"votes" | "gradient": {chunk: seconds a sample}}. The choice changes speed and
    memory, never a result beyond the last bits of a sum.
    """
    device = classifier.device
    x = torch.full((1, *classifier.input_shape), 0.5, device=device)
    keys = [Key(0, 0, Purpose.TUNING)]
    label = torch.zeros(1, dtype=torch.int64, device=device)

    def votes(chunk: int, samples: int) -> int:
        classifier.votes_chunk = chunk
        classifier.votes(x, keys, samples)
        return classifier.votes_chunk

    def gradient(chunk: int, samples: int) -> int:
        classifier.gradient_chunk = chunk
        # One pilot, as in a step of many chunks, where it is paid for once.
        classifier.surrogate(x, label, keys, samples, LogRatio(), pilot=min(chunk, classifier.PILOT))
        return classifier.gradient_chunk

    measured = {}
    for name, run in (("votes", votes), ("gradient", gradient)):
        times = _sweep(run, device, seconds)
        measured[name] = times
        # Within the noise of the measurement the smaller chunk is the better one: it needs less memory.
        fastest = min(times.values())
        best = min(size for size in times if times[size] <= 1.02 * fastest)
        setattr(classifier, f"{name}_chunk", best)
    return measured


def _sweep(run: Callable[[int, int], int], device: torch.device, seconds: float) -> dict[int, float]:
    """Seconds a sample by chunk size: the least of several rounds, since other work only ever adds time."""
    sizes = _SIZES.get(device.type, _SIZES["other"])
    run(sizes[0], sizes[0])  # loads the kernels, which is no part of any size's time
    begin = time.perf_counter()
    times: dict[int, float] = {}
    for size in sizes:
        allowed = run(size, size)  # the first run of a size sets it up
        if allowed < size and times:
            break  # memory ran out, and the classifier went on with less
        times[size] = _time(run, size, device)
        # The next size takes about twice as long; a slow model is measured at few sizes.
        if time.perf_counter() + 4 * times[size] * size > begin + 0.5 * seconds:
            break
    for _ in range(_ROUNDS):
        limit = _HOPELESS * min(times.values())
        for size in [size for size in times if times[size] <= limit]:
            if time.perf_counter() > begin + seconds:
                return times
            times[size] = min(times[size], _time(run, size, device))
    return times


def _time(run: Callable[[int, int], int], size: int, device: torch.device) -> float:
    """Seconds a sample, over enough chunks to matter."""
    samples = max(size, 256)
    _synchronise(device)
    begin = time.perf_counter()
    run(size, samples)
    _synchronise(device)
    return (time.perf_counter() - begin) / samples


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""Measuring which chunk size and which memory layout are fastest on this machine for this model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio

_SIZES = {"cpu": tuple(2**p for p in range(3, 12)), "other": tuple(2**p for p in range(8, 16))}
# A quick size is run again for this long, and at most so often: other work on a machine only ever adds time.
_REPEAT_SECONDS, _REPEATS = 0.03, 8
_ROUNDS = 8
# A slow model may take this many times as long as asked for before larger sizes are left out.
_PATIENCE = 8.0
# Channels-last has to be so much faster to be chosen.
_CLEARLY = 0.9

Measured = dict[str, dict[int, float]]


def tune_chunks(classifier: SmoothedClassifier, seconds: float = 1.0, gradients: bool = True) -> Measured:
    """Sets the classifier's chunk sizes and its memory layout to the fastest found, in about `seconds` for each of
    votes and (where `gradients` are wanted) gradients; a slow model takes longer, up to the time of the few chunks
    that it needs.

    Returns what was measured in the layout chosen, {"votes" | "gradient": {chunk: seconds a sample}}. The choice
    changes speed and memory, never a result beyond the last bits of a sum.
    """
    passes = ("votes", "gradient") if gradients else ("votes",)
    plain = _measure(classifier, passes, seconds / 2)
    try:
        classifier.lay_out(torch.channels_last)
        last = _measure(classifier, passes, seconds / 2)
    except RuntimeError:  # a network that can't be laid out otherwise, such as a frozen one
        last = {}
    if last and _total(last) < _CLEARLY * _total(plain):
        chosen = last
    else:
        chosen = plain
        classifier.lay_out(torch.contiguous_format)
    for name, times in chosen.items():
        # Within the noise of the measurement the smaller chunk is the better one: it needs less memory.
        best = min(size for size in times if times[size] <= 1.02 * min(times.values()))
        setattr(classifier, f"{name}_chunk", best)
    return chosen


def _total(measured: Measured) -> float:
    return sum(min(times.values()) for times in measured.values())


def _measure(classifier: SmoothedClassifier, passes: Sequence[str], seconds: float) -> Measured:
    device = classifier.device
    x = torch.full((1, *classifier.input_shape), 0.5, device=device)
    keys = [Key(0, 0, Purpose.TUNING)]
    label = torch.zeros(1, dtype=torch.int64, device=device)

    def votes(chunk: int) -> int:
        classifier.votes_chunk = chunk
        classifier.votes(x, keys, chunk)
        return classifier.votes_chunk

    def gradient(chunk: int) -> int:
        classifier.gradient_chunk = chunk
        # One chunk holds its own pilot; a step of many pays for that once, which is little.
        classifier.surrogate(x, label, keys, chunk, LogRatio())
        return classifier.gradient_chunk

    runs = {"votes": votes, "gradient": gradient}
    return {name: _sweep(runs[name], device, seconds) for name in passes}


def _sweep(run: Callable[[int], int], device: torch.device, seconds: float) -> dict[int, float]:
    """Seconds a sample by chunk size: the least of several runs of one chunk."""
    sizes = _SIZES.get(device.type, _SIZES["other"])
    run(sizes[0])  # loads the kernels, which is no part of any size's time
    begin = time.perf_counter()
    times: dict[int, float] = {}
    for size in sizes:
        allowed = run(size)  # the first run of a size sets it up
        if allowed < size and times:
            break  # memory ran out, and the classifier went on with less
        times[size] = _time(run, size, device)
        elapsed = time.perf_counter() - begin
        # The next size takes about four times as long as this one's timed run: two runs of twice the samples.
        if elapsed + 4 * times[size] * size > _PATIENCE * seconds:
            break
        if elapsed > seconds and _past_the_best(times):
            break
    for _ in range(_ROUNDS):
        # What is nearly as good as the best is measured again, in turn, so that one slow spell decides nothing.
        near = [size for size in times if times[size] <= 1.25 * min(times.values())]
        for size in near:
            if time.perf_counter() - begin > seconds:
                return times
            times[size] = min(times[size], _time(run, size, device))
    return times


def _past_the_best(times: dict[int, float]) -> bool:
    """Whether the last two sizes were both no better than one before them."""
    *before, one, other = [float("inf"), *times.values()]
    return min(one, other) > 0.98 * min(before, default=float("inf"))


def _time(run: Callable[[int], int], size: int, device: torch.device) -> float:
    """Seconds a sample in chunks of this size: the least of a few runs."""
    best, spent = float("inf"), 0.0
    for _ in range(_REPEATS):
        _synchronise(device)
        begin = time.perf_counter()
        run(size)
        _synchronise(device)
        elapsed = time.perf_counter() - begin
        best, spent = min(best, elapsed), spent + elapsed
        if spent > _REPEAT_SECONDS:
            break
    return best / size


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

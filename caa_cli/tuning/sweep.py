"""The chunk sizes and the memory layout that are fastest for a model on this machine, measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio

PASSES = ("votes", "gradient")
_CPU_SIZES, _GPU_SIZES = [2**p for p in range(3, 12)], [2**p for p in range(8, 16)]
# A timing repeats a chunk for this long, and at most this often; the least time counts, as other work only adds time.
_REPEAT_SECONDS, _REPEATS = 0.03, 8
# Several rounds over the sizes, so that a slow spell of the machine rules none out; hopeless ones are timed once.
_ROUNDS, _HOPELESS = 4, 1.5
# A slow model may take this many times as long as requested before larger sizes are left out.
_PATIENCE = 2.0
# Of sizes within this factor of the best, the largest is taken: a busy machine can make a small chunk seem fast, but
# not a large one, which has fewer calls.
_AS_GOOD = 1.03
# Channels-last is chosen only if its time is below this share of the contiguous layout's.
_CLEARLY = 0.9


@dataclass(frozen=True)
class Tuning:
    """The fastest chunk size of each measured pass ("votes", "gradient"), in the faster layout."""

    chunks: dict[str, int]
    channels_last: bool

    def apply(self, classifier: SmoothedClassifier, most: int | None = None) -> None:
        """Set the layout, and chunk sizes of at most `most` samples; results change in the last bits of a sum only.

        Raises RuntimeError if the network does not support the layout.
        """
        classifier.lay_out(torch.channels_last if self.channels_last else torch.contiguous_format)
        for name, chunk in self.chunks.items():
            setattr(classifier, f"{name}_chunk", min(chunk, most or chunk))


def tune_chunks(
    classifier: SmoothedClassifier, seconds: float = 0.7, gradients: bool = True, most: int | None = None
) -> Tuning:
    """The fastest chunk sizes of up to `most` samples and the faster layout; both are applied.

    Takes about `seconds` per pass (votes, and gradients if wanted); a slow model takes longer, for at least one size.
    """
    clock = _clock(classifier.device)
    usual = _CPU_SIZES if classifier.device.type == "cpu" else _GPU_SIZES
    sizes = [size for size in usual if size <= (most or size)] or [most or 1]
    passes = {name: one_chunk(classifier, name) for name in (PASSES if gradients else PASSES[:1])}
    classifier.lay_out(torch.contiguous_format)
    times = {name: sweep(run, sizes, clock, seconds) for name, run in passes.items()}
    tuning = Tuning({name: best_chunk(measured) for name, measured in times.items()}, channels_last=False)
    contiguous = sum(times[name][chunk] for name, chunk in tuning.chunks.items())
    try:
        # The best size hardly depends on the layout, so one size tells which layout is faster.
        classifier.lay_out(torch.channels_last)
        last = {name: sweep(run, [tuning.chunks[name]], clock, seconds) for name, run in passes.items()}
    except RuntimeError:  # a network that does not support the layout, such as a frozen one
        last = {}
    if last and sum(min(measured.values()) for measured in last.values()) < _CLEARLY * contiguous:
        tuning = Tuning({name: best_chunk(measured) for name, measured in last.items()}, channels_last=True)
    tuning.apply(classifier)
    return tuning


def best_chunk(times: dict[int, float]) -> int:
    """The largest size that is nearly as fast as the fastest, given seconds per sample by size."""
    return max(size for size, seconds in times.items() if seconds <= _AS_GOOD * min(times.values()))


def one_chunk(classifier: SmoothedClassifier, name: str) -> Callable[[int], int]:
    """A function that runs one chunk of a pass on a grey image and returns the chunk size that memory allowed."""
    x = torch.full((1, *classifier.input_shape), 0.5, device=classifier.device)
    keys = [Key(0, 0, Purpose.TUNING)]
    label = torch.zeros(1, dtype=torch.int64, device=classifier.device)

    def votes(chunk: int) -> int:
        classifier.votes_chunk = chunk
        classifier.keyed_votes(x, keys, chunk)
        return classifier.votes_chunk

    def gradient(chunk: int) -> int:
        classifier.gradient_chunk = chunk
        if not classifier.differentiates:
            classifier.votes_chunk = chunk
        classifier.surrogate(x, label, keys, chunk, LogRatio())
        return classifier.search_chunk

    return {"votes": votes, "gradient": gradient}[name]


def sweep(
    run: Callable[[int], int], sizes: Sequence[int], clock: Callable[[], float], seconds: float
) -> dict[int, float]:
    """Seconds per sample by chunk size, each the least of several runs; at least one size is measured.

    `run` runs one chunk and returns the size that memory allowed. Sizes are tried in ascending order, up to the first
    that memory refuses or that takes too long.
    """
    begin = clock()
    times: dict[int, float] = {}
    for size in sizes:
        allowed = run(size)  # the first run of a size loads kernels and allocates: not timed
        if allowed < size:
            if not times:
                times[allowed] = _time(run, allowed, clock)
            break
        times[size] = _time(run, size, clock)
        # The next size takes about four times as long as this one's timed run: two runs of twice the samples.
        if clock() - begin + 4 * times[size] * size > _PATIENCE * seconds:
            break
    for _ in range(_ROUNDS - 1):
        for size in [size for size in times if times[size] <= _HOPELESS * min(times.values())]:
            if clock() - begin < seconds:
                times[size] = min(times[size], _time(run, size, clock))
    return times


def _time(run: Callable[[int], int], size: int, clock: Callable[[], float]) -> float:
    """Seconds per sample in chunks of this size: the least of a few runs."""
    best, spent = float("inf"), 0.0
    for _ in range(_REPEATS):
        begin = clock()
        run(size)
        elapsed = clock() - begin
        best, spent = min(best, elapsed), spent + elapsed
        if spent > _REPEAT_SECONDS:
            break
    return best / size


def _clock(device: torch.device) -> Callable[[], float]:
    """A clock in seconds: on a CPU the processor time of this thread, which other processes hardly disturb.

    By wall-clock time a busy machine made chunks of 16 seem the fastest where chunks of 512 are.
    """
    if device.type == "cpu":
        return time.thread_time

    def synchronised() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised

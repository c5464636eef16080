"""Measuring which chunk size and which memory layout are fastest on this machine for this model."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose
from caa_cli.smoothing.objective import LogRatio

_SIZES = {"cpu": tuple(2**p for p in range(3, 12)), "other": tuple(2**p for p in range(8, 16))}
# A quick size is run again for this long, and at most so often: other work on a machine only ever adds time.
_REPEAT_SECONDS, _REPEATS = 0.03, 8
# In the first rounds every size is measured that isn't hopeless, so that a slow spell of the machine rules none out;
# in the others only what is nearly as good as the best.
_ROUNDS, _FIRST_ROUNDS = 10, 3
_HOPELESS, _NEAR = 3.0, 1.25
# A slow model may take this many times as long as asked for before larger sizes are left out.
_PATIENCE = 8.0
# Channels-last has to be so much faster to be chosen.
_CLEARLY = 0.9
# Of sizes as good as the best within this, the largest is taken: a slow machine makes a small chunk look good, never
# a large one, which pays for its calls less often. Below `_SMALL` samples a size has to be better by more.
_AS_GOOD, _SMALL, _AS_GOOD_AS_SMALL = 1.03, 32, 1.06

# Seconds a sample by pass ("votes", "gradient") and chunk size.
Measured = dict[str, dict[int, float]]
PASSES = ("votes", "gradient")


@dataclass(frozen=True)
class Tuning:
    """What was measured, in the layout that was found the faster one."""

    measured: Measured
    channels_last: bool

    def apply(self, classifier: SmoothedClassifier, most: int | None = None) -> None:
        """Sets layout and chunk sizes to the fastest, of at most `most` samples. That changes speed and memory, never
        a result beyond the last bits of a sum. RuntimeError: the network can't be laid out so."""
        classifier.lay_out(torch.channels_last if self.channels_last else torch.contiguous_format)
        for name, times in self.measured.items():
            setattr(classifier, f"{name}_chunk", best_chunk(times, most))


def tune_chunks(
    classifier: SmoothedClassifier, seconds: float = 1.0, gradients: bool = True, most: int | None = None
) -> Tuning:
    """Measures chunks of up to `most` samples in both layouts and applies the best, in about `seconds` for each of
    votes and (where `gradients` are wanted) gradients; a slow model takes longer, up to the time of the few chunks
    that it needs."""
    passes = PASSES if gradients else PASSES[:1]
    classifier.lay_out(torch.contiguous_format)
    tuning = Tuning(_measure(classifier, passes, seconds / 2, most), channels_last=False)
    try:
        classifier.lay_out(torch.channels_last)
        last = _measure(classifier, passes, seconds / 2, most)
    except RuntimeError:  # a network that can't be laid out otherwise, such as a frozen one
        last = {}
    if last and _total(last) < _CLEARLY * _total(tuning.measured):
        tuning = Tuning(last, channels_last=True)
    tuning.apply(classifier, most)
    return tuning


def best_chunk(times: dict[int, float], most: int | None = None) -> int:
    """The size to take, given seconds a sample by size; `most` itself where only larger ones were measured."""
    times = {size: seconds for size, seconds in times.items() if most is None or size <= most}
    if not times:
        assert most is not None
        return most
    fastest = min(times.values())
    best = max(size for size, seconds in times.items() if seconds <= _AS_GOOD * fastest)
    if best >= _SMALL:
        return best
    return max(size for size, seconds in times.items() if size <= _SMALL and seconds <= _AS_GOOD_AS_SMALL * fastest)


def one_chunk(classifier: SmoothedClassifier, name: str) -> Callable[[int], int]:
    """A function that runs one chunk of a pass on a grey image, and returns the chunk size that memory allowed."""
    x = torch.full((1, *classifier.input_shape), 0.5, device=classifier.device)
    keys = [Key(0, 0, Purpose.TUNING)]
    label = torch.zeros(1, dtype=torch.int64, device=classifier.device)

    def votes(chunk: int) -> int:
        classifier.votes_chunk = chunk
        classifier.votes(x, keys, chunk)
        return classifier.votes_chunk

    def gradient(chunk: int) -> int:
        classifier.gradient_chunk = chunk
        if not classifier.differentiates:
            classifier.votes_chunk = chunk
        # One chunk holds its own pilot; a step of many pays for that once, which is little.
        classifier.surrogate(x, label, keys, chunk, LogRatio())
        return classifier.search_chunk

    return {"votes": votes, "gradient": gradient}[name]


def _total(measured: Measured) -> float:
    return sum(min(times.values()) for times in measured.values())


def _measure(classifier: SmoothedClassifier, passes: Sequence[str], seconds: float, most: int | None) -> Measured:
    device = classifier.device
    sizes = _SIZES.get(device.type, _SIZES["other"])
    sizes = tuple(size for size in sizes if most is None or size <= most) or (most or 1,)
    clock = _clock(device)
    return {name: sweep(one_chunk(classifier, name), sizes, clock, seconds) for name in passes}


def _clock(device: torch.device) -> Callable[[], float]:
    """On a CPU the time that this thread ran, which leaves out when others had the processor: by the clock on the
    wall a busy machine has made a chunk of 16 look the fastest where one of 512 is."""
    if device.type == "cpu":
        return time.thread_time

    def synchronised() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


def sweep(
    run: Callable[[int], int], sizes: Sequence[int], clock: Callable[[], float], seconds: float
) -> dict[int, float]:
    """Seconds a sample by chunk size: the least of several runs of one chunk. `run` returns what memory allowed."""
    begin = clock()
    first = run(sizes[0])  # loads the kernels, which is no part of any size's time
    times: dict[int, float] = {}
    for size in (*range(first, sizes[0], first), *sizes) if first < sizes[0] else sizes:
        if run(size) < size:  # the first run of a size sets it up
            break  # memory ran out, and the classifier went on with less
        times[size] = _time(run, size, clock)
        # The next size takes about four times as long as this one's timed run: two runs of twice the samples.
        if clock() - begin + 4 * times[size] * size > _PATIENCE * seconds:
            break
        if clock() - begin > seconds and _past_the_best(times):
            break
    for number in range(_ROUNDS):
        early = number < _FIRST_ROUNDS
        within, until = (_HOPELESS, 2 * seconds) if early else (_NEAR, seconds)
        for size in [size for size in times if times[size] <= within * min(times.values())]:
            if clock() - begin > until:
                return times
            times[size] = min(times[size], _time(run, size, clock))
    return times


def _past_the_best(times: dict[int, float]) -> bool:
    """Whether the last two sizes were both clearly slower than one before them."""
    *before, one, other = [float("inf"), *times.values()]
    return min(one, other) > 1.1 * min(before, default=float("inf"))


def _time(run: Callable[[int], int], size: int, clock: Callable[[], float]) -> float:
    """Seconds a sample in chunks of this size: the least of a few runs."""
    best, spent = float("inf"), 0.0
    for _ in range(_REPEATS):
        begin = clock()
        run(size)
        elapsed = clock() - begin
        best, spent = min(best, elapsed), spent + elapsed
        if spent > _REPEAT_SECONDS:
            break
    return best / size

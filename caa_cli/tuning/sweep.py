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
# A fast size is repeated for this long, and at most so often; the least time counts, as other work only adds time.
_REPEAT_SECONDS, _REPEATS = 0.03, 8
# In the first rounds every size is measured that isn't hopeless, so that a slow spell of the machine rules none out;
# in later rounds only sizes nearly as good as the best.
_ROUNDS, _FIRST_ROUNDS = 10, 3
_HOPELESS, _NEAR = 3.0, 1.25
# A slow model may take this many times as long as requested before larger sizes are left out.
_PATIENCE = 8.0
# Channels-last is chosen only if its time is below this share of the contiguous layout's.
_CLEARLY = 0.9
# Of sizes within this factor of the best, the largest is taken: a busy machine can make a small chunk seem fast, but
# not a large one, which has fewer calls. Below `_SMALL` samples a size has to be better by more.
_AS_GOOD, _SMALL, _AS_GOOD_AS_SMALL = 1.03, 32, 1.06

# Seconds per sample by pass ("votes", "gradient") and chunk size.
Measured = dict[str, dict[int, float]]
PASSES = ("votes", "gradient")


@dataclass(frozen=True)
class Tuning:
    """The measured times, in the faster layout."""

    measured: Measured
    channels_last: bool

    def apply(self, classifier: SmoothedClassifier, most: int | None = None) -> None:
        """Sets layout and chunk sizes to the fastest, of at most `most` samples. Results change in the last bits of a
        sum only. RuntimeError: the network can't take the layout."""
        classifier.lay_out(torch.channels_last if self.channels_last else torch.contiguous_format)
        for name, times in self.measured.items():
            setattr(classifier, f"{name}_chunk", best_chunk(times, most))


def tune_chunks(
    classifier: SmoothedClassifier, seconds: float = 1.0, gradients: bool = True, most: int | None = None
) -> Tuning:
    """The times of chunks of up to `most` samples in both layouts; the best are applied.

    Takes about `seconds` for votes and as much for gradients, where those are wanted; a slow model takes longer, for
    the few chunks that it needs.
    """
    passes = PASSES if gradients else PASSES[:1]
    classifier.lay_out(torch.contiguous_format)
    tuning = Tuning(_measure(classifier, passes, seconds / 2, most), channels_last=False)
    try:
        classifier.lay_out(torch.channels_last)
        last = _measure(classifier, passes, seconds / 2, most)
    except RuntimeError:  # a network that can't take another layout, such as a frozen one
        last = {}
    if last and _total(last) < _CLEARLY * _total(tuning.measured):
        tuning = Tuning(last, channels_last=True)
    tuning.apply(classifier, most)
    return tuning


def best_chunk(times: dict[int, float], most: int | None = None) -> int:
    """The best size, given seconds per sample by size; `most` itself where only larger ones were measured."""
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
        # One chunk holds its pilot; a step of many chunks evaluates it once more, which is little.
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
    """A clock in seconds. On a CPU the time that this thread ran: by the clock on the wall, a busy machine has made
    chunks of 16 seem the fastest where chunks of 512 are."""
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
    """Seconds per sample by chunk size: the least of several runs of one chunk. `run` returns the size that memory
    allowed."""
    begin = clock()
    first = run(sizes[0])  # loads the kernels, which is not part of a size's time
    times: dict[int, float] = {}
    for size in (*range(first, sizes[0], first), *sizes) if first < sizes[0] else sizes:
        if run(size) < size:  # the first run of a size sets it up
            break  # memory ran out, and the classifier went on with a smaller chunk
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

"""The number of noise samples that fit under a limit of the process' memory, measured on chunks of growing size.

The memory of a pass, with the allocator's overhead and a library's scratch space, can't be computed from outside. So
the peak of the process is measured while chunks of 1, 2, 4, … samples run. A chunk of twice the size takes at most
twice the memory, so the limit is never exceeded in a test.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

import torch

from caa_cli.config.sizes import show_size
from caa_cli.errors import CaaError
from caa_cli.runtime.memory import forget_peak, recent_peak, resident
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.sweep import one_chunk

# A chunk that takes so much time of this thread gains nothing from being larger.
_LONG_SECONDS = 2.0
_LARGEST = 2048
# Memory of the process besides the passes: lists, files, and what an allocator can't return.
_SPARE_SHARE, _SPARE_BYTES = 0.04, 32_000_000
# A run's reserve may grow with the limit, because it takes more images at a time: by at most this share of it.
_MORE_RESERVE = 0.05


def largest_chunk(
    classifier: SmoothedClassifier, limit: int, gradients: bool, reserve: int = 0, most: int | None = None
) -> int:
    """The most samples a chunk may hold for the process to stay below `limit` bytes, at most `most`.

    reserve: bytes that the run holds besides the passes. Leaves the classifier in the contiguous layout and with
    chunks of one sample. Raises CaaError where not even one sample fits, with a limit that would suffice.
    """
    spare = int(_SPARE_SHARE * limit) + _SPARE_BYTES + reserve
    base = resident()
    forget_peak()  # reading a checkpoint may have taken more than a pass will
    room = limit - spare - base
    classifier.votes_chunk = classifier.gradient_chunk = 1
    # A votes pass takes no more than a gradient pass, which keeps every layer's output, or from votes the noise.
    run = one_chunk(classifier, "gradient" if gradients or not classifier.differentiates else "votes")
    size = 1
    while True:
        began = time.thread_time()
        _run_in_both_layouts(classifier, run, size)
        grown = max(1, recent_peak() - base)
        if size == 1 and grown > room:
            raise _too_little(limit, base, base + grown + _SPARE_BYTES + reserve)
        larger = min(2 * size, most or _LARGEST, size * room // grown)
        if larger < 1.25 * size or (most is None and time.thread_time() - began > _LONG_SECONDS):
            break
        size = larger
    classifier.votes_chunk = classifier.gradient_chunk = 1
    return max(1, larger)


def _too_little(limit: int, base: int, least: int) -> CaaError:
    """The error for a limit that is too small; least: the bytes for one sample, without the spare share."""
    step = 50_000_000
    enough = -(-int(least / (1.0 - _SPARE_SHARE - _MORE_RESERVE) + 0.2 * step) // step) * step
    return CaaError(
        f"--max-memory {show_size(limit)} is too little: the process holds {show_size(base)} before its first "
        f"sample, and needs {show_size(enough)} to go on",
        f"--max-memory {enough // 10**6}MB, or leave it out",
    )


def _run_in_both_layouts(classifier: SmoothedClassifier, run: Callable[[int], int], size: int) -> None:
    with suppress(RuntimeError):  # a network that can't take this layout
        classifier.lay_out(torch.channels_last)
        run(size)
    classifier.lay_out(torch.contiguous_format)
    run(size)

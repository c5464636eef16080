"""The number of noise samples that fit under a limit of the process' memory, measured on chunks of growing size.

The memory of a pass, with the allocator's overhead and a library's scratch space, can't be computed from outside. So
the peak of the process is measured for chunks of 1, 2, 4, … samples. A chunk of twice the size takes at most twice
the memory, so the limit is never exceeded while measuring.
"""

from __future__ import annotations

import time
from contextlib import suppress

import torch

from caa_cli.config.sizes import show_size
from caa_cli.errors import CaaError
from caa_cli.runtime.memory import peak_resident, resident
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.recompute import graph_bytes
from caa_cli.tuning.sweep import one_chunk

# A chunk that takes so many seconds of this thread gains nothing from being larger.
_LONG_SECONDS = 2.0
_LARGEST = 2048
# Memory of the process besides the passes: lists, files, and what an allocator can't return.
_SPARE_SHARE, _SPARE_BYTES = 0.04, 32_000_000
# A run's reserve may grow with the limit, because it takes more images at a time: by at most this share of it.
_MORE_RESERVE = 0.05


def largest_chunk(
    classifier: SmoothedClassifier, limit: int, gradients: bool, reserve: int = 0, most: int | None = None
) -> int:
    """The largest chunk size, at most `most`, that keeps the process below `limit` bytes.

    reserve: bytes that the run holds besides the passes. Leaves the classifier in the contiguous layout, with chunks
    of one sample and as many graphs at a time as fit. Raises CaaError, with a sufficient limit, if not even one
    sample fits.
    """
    base = resident()
    available = limit - int(_SPARE_SHARE * limit) - _SPARE_BYTES - reserve - base
    if gradients and classifier.differentiates:
        while graph_bytes(classifier.differentiated, classifier.grey()) > available and classifier.recompute():
            pass
    # A votes pass takes no more than a gradient pass, which keeps every layer's output, or from votes the noise.
    run = one_chunk(classifier, "gradient" if gradients or not classifier.differentiates else "votes")
    size = 1
    while True:
        began = time.thread_time()
        with suppress(RuntimeError):  # a network that does not support this layout
            classifier.lay_out(torch.channels_last)
            run(size)
        classifier.lay_out(torch.contiguous_format)
        run(size)
        taken = max(1, peak_resident() - base)
        if size == 1 and taken > available:
            raise _too_little(limit, base, base + taken + _SPARE_BYTES + reserve)
        classifier.graphs = size * available // taken
        larger = min(2 * size, most or _LARGEST, classifier.graphs)
        if larger < 2 * size or (most is None and time.thread_time() - began > _LONG_SECONDS):
            classifier.votes_chunk = classifier.gradient_chunk = 1
            return max(1, larger)
        size = larger


def _too_little(limit: int, base: int, least: int) -> CaaError:
    """The error for a limit that is too small; least: the bytes for one sample, without the spare share."""
    step = 50_000_000
    enough = -(-int(least / (1.0 - _SPARE_SHARE - _MORE_RESERVE) + 0.2 * step) // step) * step
    return CaaError(
        f"--max-memory {show_size(limit)} is too little: the process holds {show_size(base)} before its first "
        f"sample, and needs {show_size(enough)} to go on",
        f"--max-memory {enough // 10**6}MB, or leave it out",
    )

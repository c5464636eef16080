"""Loading of image files into memory, for repeated use."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import torch
from numpy.typing import NDArray

from caa_cli.data.decoding import ImageError, Recipe, decode_many, ignore_interrupts
from caa_cli.data.files import ImageFiles
from caa_cli.data.images import ImageSet
from caa_cli.errors import CaaError
from caa_cli.runtime.signals import ignored
from caa_cli.runtime.words import counted

# Files per task of a worker, and files timed before workers are started.
BATCH = 256
# Starting workers takes half a second; the remaining decoding has to take longer than this.
WORTH_SECONDS = 2.0
MOST_WORKERS = 16
MOST_NAMED = 3


def load(images: ImageSet | ImageFiles, workers: int | None = None) -> ImageSet:
    """All images in memory, as uint8.

    workers: number of decoding processes; 0: decode in this process; None: one per core if more than about two
    seconds of decoding remain, else 0. The 50,000 CIFAR-10 JPEGs take 3.6 s with two workers, 6.8 s with none.
    Raises ImageError with the number of unusable files and the first few names.
    """
    if isinstance(images, ImageSet):
        return images
    pixels = np.empty((len(images), *images.input_shape), dtype=np.uint8)
    broken: list[str] = []
    decoded = _decoded([str(images.path(index)) for index in images.indices], images.recipe, workers)
    for index, image in enumerate(decoded):
        if isinstance(image, str):
            broken.append(image)
        else:
            pixels[index] = image
    if broken:
        more = f"; and {len(broken) - MOST_NAMED} more" if len(broken) > MOST_NAMED else ""
        raise ImageError(
            f"{len(broken)} of {counted(len(images), 'image')} can't be used: {'; '.join(broken[:MOST_NAMED])}{more}"
        )
    name, split, notes, names = images.name, images.split, images.notes, images.class_names
    return ImageSet(name, split, torch.from_numpy(pixels), images.labels, images.num_classes, notes, names)


def _decoded(paths: list[str], recipe: Recipe, workers: int | None) -> Iterator[NDArray[np.uint8] | str]:
    """The results of `decode_many` for all files, in order."""
    batches = [paths[first : first + BATCH] for first in range(0, len(paths), BATCH)]
    if workers is None and batches:
        began = time.perf_counter()
        yield from decode_many(batches.pop(0), recipe)
        worth = len(batches) * (time.perf_counter() - began) > WORTH_SECONDS
        workers = min(MOST_WORKERS, _cores()) if worth else 0
    if not workers:
        for batch in batches:
            yield from decode_many(batch, recipe)
        return
    # Spawned, not forked: the fork of a process with threads of torch or CUDA may hang.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=ignore_interrupts)
    try:
        # Workers inherit that Ctrl-C is ignored: it could arrive before their initializer runs.
        with ignored():
            answers_in_order = pool.map(decode_many, batches, [recipe] * len(batches))
        for answers in answers_in_order:
            yield from answers
    except BrokenProcessPool as error:
        raise CaaError(
            "a process that decoded images was ended from outside, perhaps for want of memory",
            "free some memory and repeat the command",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """The number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

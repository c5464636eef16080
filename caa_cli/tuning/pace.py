"""How long model evaluations take, measured on one chunk: what a dry run reckons with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

import torch

from caa_cli.runtime.memory import memory_held
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.sweep import one_chunk

# A chunk is repeated until so many seconds are over, at most this often, and not at all where it takes long.
_SECONDS, _REPEATS, _LONG = 0.5, 8, 5.0


@dataclass(frozen=True)
class Pace:
    """forward, search_forward, backward: seconds of one evaluation by wall clock, the first two of certificate and
    verification, and of the search. memory: the most bytes that the device held; on a CPU the process's."""

    forward: float
    search_forward: float
    backward: float
    memory: int

    def seconds(self, forward: float, search_forward: float = 0.0, backward: float = 0.0) -> float:
        """How long so many evaluations take."""
        return forward * self.forward + search_forward * self.search_forward + backward * self.backward


def measure_pace(classifier: SmoothedClassifier, search: bool) -> Pace:
    """The pace with the classifier's chunk sizes and layout. search: also of passes with gradients."""
    forward = search_forward = _seconds_a_sample(classifier, "votes", classifier.votes_chunk)
    backward, searched = 0.0, classifier.search
    if search:
        if searched is not classifier:
            search_forward = _seconds_a_sample(searched, "votes", searched.votes_chunk)
        sample = _seconds_a_sample(searched, "gradient", searched.search_chunk)
        cost = searched.gradients.cost
        if searched.differentiates:
            backward = max(sample - cost.forward * search_forward, 0.0) / cost.backward
        else:
            search_forward = max(search_forward, sample / cost.forward)
    return Pace(forward, search_forward, backward, memory_held(classifier.device))


def _seconds_a_sample(classifier: SmoothedClassifier, name: str, chunk: int) -> float:
    """The median of a few runs of one chunk after the first, which loads kernels; of the first where it is long."""
    run = one_chunk(classifier, name)

    def seconds() -> float:
        began = time.perf_counter()
        run(chunk)
        if classifier.device.type == "cuda":
            torch.cuda.synchronize(classifier.device)
        return time.perf_counter() - began

    first = seconds()
    if first > _LONG:
        return first / chunk
    times = [seconds()]
    while len(times) < _REPEATS and sum(times) < _SECONDS:
        times.append(seconds())
    return median(times) / chunk

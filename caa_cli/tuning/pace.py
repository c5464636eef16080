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
    """forward, backward: seconds of one evaluation by wall clock. memory: the most bytes that the device held; on a
    CPU the process's."""

    forward: float
    backward: float
    memory: int

    def seconds(self, forward_evaluations: float, backward_evaluations: float = 0.0) -> float:
        """How long so many evaluations take."""
        return forward_evaluations * self.forward + backward_evaluations * self.backward


def measure_pace(classifier: SmoothedClassifier, search: bool) -> Pace:
    """The pace with the classifier's chunk sizes and layout. search: also of passes with gradients."""
    forward = _seconds_a_sample(classifier, "votes", classifier.votes_chunk)
    backward = 0.0
    if search:
        sample = _seconds_a_sample(classifier, "gradient", classifier.search_chunk)
        cost = classifier.gradients.cost
        if classifier.differentiates:
            backward = max(sample - cost.forward * forward, 0.0) / cost.backward
        else:
            forward = max(forward, sample / cost.forward)
    return Pace(forward, backward, memory_held(classifier.device))


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

"""How much faster this machine runs a model in bfloat16, measured, so that a user who would gain by it is told."""

from __future__ import annotations

import copy
import time
from contextlib import suppress

import torch

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.display import Display
from caa_cli.runtime.device import has_bfloat16_units
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.cache import kept, model_key
from caa_cli.tuning.sweep import one_chunk

_HALF = "bfloat16"
# A model whose gradients cost less than so many seconds a sample is fast enough; a gain below this factor is small.
_CHEAP, _GAIN = 2e-4, 1.3
# The samples of a timed pass; a model of so many seconds a pass is timed on fewer.
_SAMPLES, _LONG = 64, 0.2


def advise_precision(classifier: SmoothedClassifier, plan: AttackPlan, arch: str, display: Display) -> None:
    """Notes once that --search-dtype bfloat16 is faster here, where it is by much.

    arch: the name under which what was measured is kept. Measures nothing where nobody would read it, nor under a
    limit of memory, which a second copy of the weights could exceed.
    """
    unread = display.quiet or display.json_only or plan.max_memory is not None
    as_all = plan.search_dtype == plan.dtype == "float32" and classifier.device.type == "cpu"
    if unread or not as_all or not has_bfloat16_units():
        return
    key = {**model_key(classifier, arch), "compared": _HALF}
    factor = kept(key, plan.measure_chunks, lambda: measured_gain(classifier))
    if factor >= _GAIN:
        display.note(f"{_HALF} is about {factor:.1f} times faster here: --search-dtype {_HALF}")


def measured_gain(classifier: SmoothedClassifier) -> float:
    """How many times faster a pass with gradients is in bfloat16; 1 for a model that is cheap, which is not timed."""
    samples = min(_SAMPLES, classifier.search_chunk)
    a_sample = _seconds(classifier, 1)
    if a_sample * samples > _LONG:
        samples = max(1, int(_LONG / a_sample))
    before = _seconds(classifier, samples)
    if before < _CHEAP * samples:
        return 1.0
    half = classifier.searched_in(torch.bfloat16).search
    after = []
    for layout in (torch.contiguous_format, torch.channels_last):
        with suppress(RuntimeError):  # a network that does not support this layout, or the precision
            half.lay_out(layout)
            after.append(_seconds(half, samples))
    return before / min(after, default=before)


def _seconds(classifier: SmoothedClassifier, samples: int) -> float:
    """The processor time of a pass with gradients after the first, which loads kernels; chunk sizes stay."""
    run = one_chunk(copy.copy(classifier), "gradient")
    run(samples)
    began = time.thread_time()
    run(samples)
    return time.thread_time() - began

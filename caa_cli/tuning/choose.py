"""The chunk sizes, the memory layout and the memory that a run's classifier works with."""

from __future__ import annotations

import torch

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.model_plan import ModelPlan
from caa_cli.config.sizes import show_size
from caa_cli.display import Display
from caa_cli.runtime.device import in_mode
from caa_cli.runtime.memory import peak_resident
from caa_cli.runtime.words import counted
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.tuning.cache import tuned
from caa_cli.tuning.memory_fit import largest_chunk

# The memory for drawing a figure, most of it matplotlib's.
_FIGURE_BYTES = 80_000_000


def choose_chunks(
    classifier: SmoothedClassifier, plan: ModelPlan, arch: str, gradients: bool, reserve: int, display: Display
) -> None:
    """Set the chunk sizes and layout of the classifier and of its `search` as the plan requests, and display them.

    arch: the name under which measured chunk sizes are cached. gradients: whether there are backward passes. reserve:
    bytes that the run holds besides the passes and a figure. Raises CaaError if --max-memory is too small for one
    sample.
    """
    search = classifier.search
    separate = isinstance(plan, AttackPlan) and search is not classifier
    _choose(classifier, plan, plan.dtype, arch, gradients and not separate, reserve, display)
    if isinstance(plan, AttackPlan) and separate:
        with in_mode(plan.search_dtype):
            _choose(
                search, plan, plan.search_dtype, arch, gradients, reserve, display, f"search in {plan.search_dtype}: "
            )


def _choose(
    classifier: SmoothedClassifier,
    plan: ModelPlan,
    dtype: str,
    arch: str,
    gradients: bool,
    reserve: int,
    display: Display,
    what: str = "",
) -> None:
    """Set the chunk sizes of one classifier in this numeric mode. what: its description, before what is displayed."""
    wanted, most = plan.chunk_size, None
    if plan.max_memory is not None and classifier.device.type == "cpu":
        reserve += _FIGURE_BYTES if plan.figure is not None else 0
        most = largest_chunk(classifier, plan.max_memory, gradients, reserve, wanted)
        if wanted is not None and most < wanted:
            display.warn(f"chunks of {counted(most, 'sample')}, not {wanted}, to stay below --max-memory")
    if wanted is not None:
        classifier.votes_chunk = classifier.gradient_chunk = wanted if most is None else most
        classifier.chosen = "set"
    else:
        classifier.chosen = tuned(classifier, arch, dtype, gradients, plan.measure_chunks, most)
    also = f", {classifier.gradient_chunk} for gradients" if gradients else ""
    layout = ", channels last" if classifier.memory_format == torch.channels_last else ""
    again = " (as measured before; --chunk-size measure does it anew)" if classifier.chosen == "cache" else ""
    display.note(f"{what}chunks of {counted(classifier.votes_chunk, 'sample')} for votes{also}{layout}{again}")


def check_memory(plan: ModelPlan, device: torch.device, display: Display) -> None:
    """Warn, after the run, if it exceeded --max-memory; on a GPU the allocator enforces the limit."""
    if plan.max_memory is not None and device.type == "cpu" and peak_resident() > plan.max_memory:
        display.warn(
            f"the process took {show_size(peak_resident())}, more than --max-memory {show_size(plan.max_memory)}: "
            "the results are right, but a job with a hard limit would have been killed"
        )

"""The chunk sizes, the memory layout and the memory that a run's classifier works with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from caa_cli.attacks.attack import Attack
from caa_cli.display import Display
from caa_cli.memory import peak_resident
from caa_cli.plan import AttackPlan, ModelPlan
from caa_cli.run.access import Access
from caa_cli.run.base import BATCH_LIMIT
from caa_cli.run.tuning import tuned
from caa_cli.sizes import show_size
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.room import largest_chunk

# The memory to draw a figure, matplotlib's above all.
_FIGURE_BYTES = 80_000_000


def choose_chunks(
    classifier: SmoothedClassifier, plan: ModelPlan, arch: str, gradients: bool, reserve: int, display: Display
) -> None:
    """Sets the classifier's chunk sizes and layout as the plan says, and displays them.

    arch: the name under which measured chunk sizes are kept. gradients: whether there are backward passes. reserve:
    bytes that the run holds besides the passes and a figure. Raises CaaError for a limit of memory that is too small
    for one sample.
    """
    wanted, most = plan.chunk_size, None
    if plan.max_memory is not None and classifier.device.type == "cpu":
        reserve += _FIGURE_BYTES if plan.figure is not None else 0
        most = largest_chunk(classifier, plan.max_memory, gradients, reserve, wanted)
        if wanted is not None and most < wanted:
            display.warn(f"chunks of {most} samples, not {wanted}, to stay below --max-memory")
    if wanted is not None:
        classifier.votes_chunk = classifier.gradient_chunk = wanted if most is None else most
        classifier.chosen = "set"
    else:
        classifier.chosen = tuned(classifier, arch, plan.dtype, gradients, plan.measure_chunks, most)
    also = f", {classifier.gradient_chunk} for gradients" if gradients else ""
    layout = ", channels last" if classifier.memory_format == torch.channels_last else ""
    again = " (as measured before; --chunk-size measure does it anew)" if classifier.chosen == "cache" else ""
    display.note(f"chunks of {classifier.votes_chunk} samples for votes{also}{layout}{again}")


def search_bytes(plan: AttackPlan, attack: Attack[Any], access: Access, input_shape: Sequence[int]) -> int:
    """Bytes, at most, that a search holds besides the passes: the states of its images, and its starting points."""
    image_bytes = attack.state_bytes(input_shape, access.cost)
    return access.starting_points_bytes(input_shape) + most_images(plan, image_bytes) * image_bytes


def most_images(plan: AttackPlan, image_bytes: int) -> int:
    """How many images, of so many bytes each, may be attacked at a time: --batch-size, or as many as a small part of
    the memory holds."""
    if plan.batch_size is not None or plan.max_memory is None:
        return plan.batch_size or BATCH_LIMIT
    return max(1, min(BATCH_LIMIT, plan.max_memory // 20 // image_bytes))


def check_memory(plan: ModelPlan, device: torch.device, display: Display) -> None:
    """Warns after the run if it exceeded --max-memory. On a GPU the allocator keeps the limit."""
    if plan.max_memory is not None and device.type == "cpu" and peak_resident() > plan.max_memory:
        display.warn(
            f"the process took {show_size(peak_resident())}, more than --max-memory {show_size(plan.max_memory)}: "
            "the results are right, but a job with a hard limit would have been killed"
        )

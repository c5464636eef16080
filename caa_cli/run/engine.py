"""The chunk sizes, the memory layout and the memory that a run's classifier works with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from caa_cli.attacks.rivals import Race
from caa_cli.display import Display
from caa_cli.memory import peak_resident
from caa_cli.names import VOTES
from caa_cli.plan import AttackPlan, ModelPlan
from caa_cli.run.access import others_bytes
from caa_cli.run.base import BATCH_LIMIT
from caa_cli.run.build import build_attack
from caa_cli.run.tuning import tuned
from caa_cli.sizes import show_size
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.room import largest_chunk

# What drawing a figure takes: matplotlib above all.
_FIGURE_BYTES = 80_000_000


def choose_chunks(
    classifier: SmoothedClassifier, plan: ModelPlan, arch: str, gradients: bool, display: Display
) -> None:
    """Sets the classifier's chunk sizes and layout as the plan says, and says which. Raises CaaError for a limit of
    memory that is too small for one sample."""
    wanted, most = plan.chunk_size, None
    if plan.max_memory is not None and classifier.device.type == "cpu":
        reserve = beside_the_passes(plan, classifier.input_shape)
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


def beside_the_passes(plan: ModelPlan, input_shape: Sequence[int]) -> int:
    """Bytes, at most, of what a run on the CPU holds beside a chunk: images, the attack's state, a figure."""
    figure = _FIGURE_BYTES if plan.figure is not None else 0
    if not isinstance(plan, AttackPlan):
        return figure
    others = others_bytes(input_shape) if plan.gradient == VOTES else 0
    return figure + others + most_images(plan, input_shape) * _image_bytes(plan, input_shape)


def most_images(plan: AttackPlan, input_shape: Sequence[int]) -> int:
    """How many may be attacked at a time: what --batch-size says, or as many as a small part of the memory holds."""
    if plan.batch_size is not None or plan.max_memory is None:
        return plan.batch_size or BATCH_LIMIT
    return max(1, min(BATCH_LIMIT, plan.max_memory // 20 // _image_bytes(plan, input_shape)))


def _image_bytes(plan: AttackPlan, input_shape: Sequence[int]) -> int:
    """Bytes, at most, of one image's state in an attack. The visited points of either side are kept, their places
    doubled as they fill up, and a ray through one side's balls takes two copies of them. Newton's runs take less."""
    points = 2 ** math.ceil(math.log2(max(plan.iterations, 8)))
    attack = build_attack(plan)
    runs = attack.rivals if isinstance(attack, Race) else 0
    return 4 * math.prod(input_shape) * (20 + max(5 * points, 10 * runs))


def check_memory(plan: ModelPlan, device: torch.device, display: Display) -> None:
    """After the run: was the limit kept? On a GPU the allocator saw to it."""
    if plan.max_memory is not None and device.type == "cpu" and peak_resident() > plan.max_memory:
        display.warn(
            f"the process took {show_size(peak_resident())}, more than --max-memory {show_size(plan.max_memory)}: "
            "the results are right, but a job with a hard limit would have been killed"
        )

"""How many images a run works on at a time, and the memory that they take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from caa_cli.attacks.common.attack import Attack
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.run.starting_points import starting_points_bytes
from caa_cli.run.threat_model import Access
from caa_cli.smoothing.classifier import SmoothedClassifier

# On a GPU one pass holds the samples of several images; beyond this many there is no gain in speed.
BATCH_LIMIT = 64


def certified_together(votes_chunk: int, selection_samples: int) -> int:
    """How many images are certified at a time: as many as fill a chunk with their selection draws."""
    return max(1, min(BATCH_LIMIT, votes_chunk // selection_samples))


def search_bytes(
    plan: AttackPlan, attack: Attack[Any], access: Access, input_shape: Sequence[int], images: int | None = None
) -> int:
    """The most bytes that a search holds apart from model passes: its images' states and its starting points.

    images: how many are searched at a time; None: as many as may ever be, before chunks are known.
    """
    image_bytes = attack.state_bytes(input_shape, access.cost)
    begin = 0 if access.cost.differentiates else starting_points_bytes(input_shape)
    return begin + (images or most_images(plan, image_bytes)) * image_bytes


def searched_together(plan: AttackPlan, attack: Attack[Any], classifier: SmoothedClassifier) -> int:
    """How many images are searched at a time: --batch-size, or as many as fill a chunk at first."""
    most = most_images(plan, attack.state_bytes(classifier.input_shape, classifier.gradients.cost))
    if attack.MOST_IMAGES is not None:
        most = min(most, attack.MOST_IMAGES)
    if plan.batch_size is not None:
        return most
    return max(1, min(most, classifier.search_chunk // attack.first_samples()))


def most_images(plan: AttackPlan, image_bytes: int) -> int:
    """How many images may be attacked at a time: --batch-size, or as many states of `image_bytes` as fit in a
    twentieth of --max-memory."""
    if plan.batch_size is not None or plan.max_memory is None:
        return plan.batch_size or BATCH_LIMIT
    return max(1, min(BATCH_LIMIT, plan.max_memory // 20 // image_bytes))

"""What a step of an attack asks of a GPU, counted on the pretended one."""

from __future__ import annotations

from collections import Counter

import torch
from pretended_device import PretendedDevice

from caa_cli.attacks.common.loop import Example, Search
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.data.datasets import open_dataset
from caa_cli.models.checkpoint import DEMO_CHECKPOINT, read_weights
from caa_cli.models.load import build_model
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientSource

CUDA = "cuda:0"


def demo_classifier(
    device: str, chunk: int = 4096, gradients: GradientSource | None = None, dtype: torch.dtype = torch.float32
) -> SmoothedClassifier:
    """The smoothed demo model; chunk: of votes and gradients."""
    weights = read_weights(DEMO_CHECKPOINT)
    assert weights.card is not None
    return SmoothedClassifier(
        build_model(weights, weights.card),
        sigma=weights.card.sigma or 0.5,
        num_classes=weights.card.num_classes,
        input_shape=weights.card.input_shape,
        device=device,
        dtype=dtype,
        gradients=gradients,
        votes_chunk=chunk,
        gradient_chunk=chunk,
    )


def begin_search(attack: str, images: int, samples: int, chunk: int = 4096) -> Search:
    """The first demo images, searched together on the GPU in the loop that every search runs in."""
    plan = AttackPlan(checkpoint="demo", attack=attack, samples=samples)
    data = open_dataset("demo", None, "test")
    search = Search(build_attack(plan), demo_classifier(CUDA, chunk), images)
    search.join([Example(i, data.image(i).to(CUDA), data.label(i), 0.3) for i in range(images)])
    return search


def count_steps(
    attack: str, images: int = 8, samples: int = 300, first: int = 8, last: int = 24, chunk: int = 4096
) -> tuple[int, Counter[tuple[str, str, str]]]:
    """(steps, what they asked for together, as `PretendedDevice.operations`), from step `first` to step `last`.

    An image that is finished leaves, and none joins, so that there may be fewer steps than asked for.
    """
    steps = 0
    with PretendedDevice() as device:
        search = begin_search(attack, images, samples, chunk)
        for step in range(1, last + 1):
            if step == first:
                device.operations.clear()
            if search.busy:
                search.advance()
                steps += step >= first
        return steps, device.operations.copy()


def totals(steps: int, operations: Counter[tuple[str, str, str]]) -> dict[str, float]:
    """{kernels, syncs, uploads} of a step, on average."""
    sums: Counter[str] = Counter()
    for (kind, _, _), count in operations.items():
        sums[f"{kind}s"] += count
    return {name: round(sums[name] / steps, 1) for name in ("kernels", "syncs", "uploads")}

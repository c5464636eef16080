"""The threat model of a plan: whether the search sees the target's gradients, a surrogate's, or votes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from caa_cli.attacks.common.starting_points import MOST_STARTING_POINTS
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.choices import MODEL, SURROGATE_MODEL, VOTES
from caa_cli.data.images import Images, readable, spread
from caa_cli.display import Display
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights, find_checkpoint, read_weights, record_of
from caa_cli.models.load import build_model
from caa_cli.models.resolve import Overrides, resolve_card
from caa_cli.runtime.words import counted
from caa_cli.smoothing.gradient_source import GradientCost, GradientSource
from caa_cli.smoothing.gradients import SurrogateModel, WhiteBox
from caa_cli.smoothing.stein import SteinEstimator

# Limits on the pool from which an attack without gradients takes its starting points: images, and numbers in all.
_MOST_IMAGES, _MOST_NUMBERS = 1000, 2**25

_SOURCES: dict[str, type[GradientSource]] = {
    MODEL: WhiteBox,
    SURROGATE_MODEL: SurrogateModel,
    VOTES: SteinEstimator,
}


@dataclass(frozen=True)
class Access:
    """What the search sees of its target.

    kind: of `config.choices.GRADIENTS`.  weights, card: of a surrogate's checkpoint.
    """

    kind: str
    weights: Weights | None = None
    card: ModelCard | None = None

    @property
    def surrogate(self) -> dict[str, Any] | None:
        """The record of the surrogate's checkpoint in a result, None without one."""
        return None if self.weights is None or self.card is None else record_of(self.weights, self.card)

    @property
    def name(self) -> str:
        """The kind of access, with the surrogate's content hash."""
        return self.kind if self.weights is None else f"{self.kind} {self.weights.sha256}"

    @property
    def cost(self) -> GradientCost:
        """Model evaluations of a sample with gradients."""
        return _SOURCES[self.kind].cost

    def tuning_name(self, arch: str) -> str:
        """The name under which chunk sizes are kept, for a target `arch`: a gradient takes both models."""
        return arch if self.card is None else f"{arch} and {self.card.arch}"

    def starting_points_bytes(self, input_shape: Sequence[int]) -> int:
        """The most bytes that `StartingPoints` take: their images, and twice as much while they are put together or
        compared with one. 0 where the search begins at the clean image."""
        if self.cost.differentiates:
            return 0
        return 3 * 4 * math.prod(input_shape) * min(_MOST_IMAGES, _images_of(input_shape))

    def gradients(self) -> GradientSource:
        """The source of gradients, a surrogate's model loaded."""
        if self.weights is not None and self.card is not None:
            return SurrogateModel(build_model(self.weights, self.card))
        return _SOURCES[self.kind]()


def open_access(plan: AttackPlan, target: ModelCard, images: Images, display: Display) -> Access:
    """The access of a plan, its surrogate read and checked. Raises CaaError if that doesn't fit the target.

    A surrogate whose checkpoint holds no σ is given the target's; the search sets the noise in any case.
    """
    path = plan.surrogate_model
    if path is None:
        return Access(plan.gradient)
    option = f"--gradient {SURROGATE_MODEL}={path}"
    try:
        weights = read_weights(find_checkpoint(path), plan.trust_checkpoint)
        sigma = weights.card.sigma if weights.card is not None else None
        card, notes = resolve_card(
            weights,
            Overrides(sigma=None if sigma is not None else target.sigma),
            images.name,
            images.input_shape,
            images.num_classes,
            plan.trust_checkpoint,
        )
    except CaaError as error:
        hint = "name the checkpoint of a model of the same images and classes"
        if "--trust-checkpoint" in (error.hint or ""):
            hint = f"{error.hint}; or {hint}"
        raise CaaError(f"{option}: {error.problem}", hint, error.exit_code) from error
    if card.num_classes != target.num_classes:
        raise UsageError(
            f"{option}: it knows {counted(card.num_classes, 'class')}, the attacked model {target.num_classes}",
            "name a checkpoint of the same classes, in the same order",
        )
    for note in notes:
        display.warn(f"{option}: {note}")
    return Access(SURROGATE_MODEL, weights, card)


def _images_of(input_shape: Sequence[int]) -> int:
    """How many images of this shape hold `_MOST_NUMBERS`, at least 64."""
    return max(64, _MOST_NUMBERS // math.prod(input_shape))


@dataclass
class StartingPoints:
    """The images that an attack without gradients may begin with: the nearest of each other class, or of one."""

    images: Images
    _labels: list[int] = field(default_factory=list)

    def near(self, image: Tensor, label: int, target: int | None = None) -> Tensor:
        """The nearest image of each other class, or the nearest ones of the target, nearest first, at most nine:
        (M, *input_shape) on the CPU."""
        pool = self._pool
        by_distance = (pool - image.cpu()).flatten(1).norm(dim=1).argsort().tolist()
        if target is not None:
            return pool[[number for number in by_distance if self._labels[number] == target][:MOST_STARTING_POINTS]]
        nearest: dict[int, int] = {}
        for number in by_distance:
            if self._labels[number] != label:
                nearest.setdefault(self._labels[number], number)
        return pool[list(nearest.values())[:MOST_STARTING_POINTS]]

    @cached_property
    def _pool(self) -> Tensor:
        """Evenly spaced images of the split, (N, *input_shape), without those that can't be read."""
        shape = self.images.input_shape
        positions = spread(len(self.images), min(_MOST_IMAGES, _images_of(shape)))
        pool = dict(readable(self.images, [self.images.indices[position] for position in positions]))
        self._labels += map(self.images.label, pool)
        return torch.stack(list(pool.values())) if pool else torch.zeros(0, *shape)

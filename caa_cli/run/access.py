"""What a plan lets the search see of its target: the model itself, another one's gradients, or votes alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from caa_cli.attacks.crossing import MOST_OTHERS
from caa_cli.data.decoding import ImageError
from caa_cli.data.images import Images, spread
from caa_cli.display import Display
from caa_cli.errors import CaaError, UsageError
from caa_cli.models.card import ModelCard
from caa_cli.models.checkpoint import Weights, find_checkpoint, read_weights
from caa_cli.models.load import build_model
from caa_cli.models.resolve import Overrides, resolve_card
from caa_cli.names import MODEL, SURROGATE_MODEL, VOTES
from caa_cli.plan import AttackPlan
from caa_cli.smoothing.gradients import GradientCost, GradientSource, SurrogateModel, WhiteBox
from caa_cli.smoothing.stein import SteinEstimator

# How many images are looked through for those that an attack without gradients begins with: as many as this, or as
# have this many numbers.
_LOOKED_THROUGH, _NUMBERS = 1000, 2**25


_SOURCES: dict[str, type[WhiteBox | SurrogateModel | SteinEstimator]] = {
    MODEL: WhiteBox,
    SURROGATE_MODEL: SurrogateModel,
    VOTES: SteinEstimator,
}


@dataclass(frozen=True)
class Access:
    """What the search sees, ready to be put in front of a classifier."""

    kind: str
    weights: Weights | None = None
    card: ModelCard | None = None

    @property
    def surrogate(self) -> dict[str, Any] | None:
        """What a result says of the surrogate's checkpoint."""
        if self.weights is None or self.card is None:
            return None
        card = self.card
        path, sha256 = str(self.weights.path), self.weights.sha256
        return {"path": path, "sha256": sha256, "arch": card.arch, "dataset": card.dataset, "sigma": card.sigma}

    @property
    def name(self) -> str:
        """Of the kind of access, and of the surrogate by its content."""
        return self.kind if self.weights is None else f"{self.kind} {self.weights.sha256}"

    @property
    def cost(self) -> GradientCost:
        """Model evaluations of a sample with gradients."""
        return _SOURCES[self.kind].cost

    def tuning_name(self, arch: str) -> str:
        """The name under which chunk sizes are kept, for a target `arch`: a gradient takes both models."""
        return arch if self.card is None else f"{arch} and {self.card.arch}"

    def gradients(self) -> GradientSource:
        """The source of gradients, a surrogate's model loaded."""
        if self.weights is not None and self.card is not None:
            return SurrogateModel(build_model(self.weights, self.card))
        return SteinEstimator() if self.kind == VOTES else WhiteBox()


def open_access(plan: AttackPlan, target: ModelCard, images: Images, display: Display) -> Access:
    """Reads and checks the surrogate, where one is named. Raises CaaError where it doesn't fit the target.

    A surrogate that does not say its σ is taken to have the target's: the search sets the noise in any case.
    """
    path = plan.surrogate_model
    if path is None:
        return Access(plan.gradient)
    said = f"--gradient {SURROGATE_MODEL}={path}"
    try:
        weights = read_weights(find_checkpoint(path), plan.trust_checkpoint)
        own = weights.card.sigma if weights.card is not None else None
        card, notes = resolve_card(
            weights,
            Overrides(sigma=None if own is not None else target.sigma),
            images.name,
            images.input_shape,
            images.num_classes,
            plan.trust_checkpoint,
        )
    except CaaError as error:
        hint = "name the checkpoint of a model of the same images and classes"
        if "--trust-checkpoint" in (error.hint or ""):
            hint = f"{error.hint}; or {hint}"
        raise CaaError(f"{said}: {error.problem}", hint, error.exit_code) from error
    if card.num_classes != target.num_classes:
        raise UsageError(
            f"{said}: it knows {card.num_classes} classes, the model that is attacked {target.num_classes}",
            "name a checkpoint of the same classes, in the same order",
        )
    for note in notes:
        display.warn(f"{said}: {note}")
    return Access(SURROGATE_MODEL, weights, card)


def others_bytes(input_shape: Sequence[int]) -> int:
    """What `Others` takes at most: its images, and as much twice while they are put together or compared with one."""
    return 3 * 4 * math.prod(input_shape) * min(_LOOKED_THROUGH, _most_images(input_shape))


def _most_images(input_shape: Sequence[int]) -> int:
    return max(64, _NUMBERS // math.prod(input_shape))


@dataclass
class Others:
    """The images that an attack without gradients may begin with: of other classes, near, one a class."""

    images: Images
    _labels: list[int] = field(default_factory=list)

    def near(self, image: Tensor, label: int) -> Tensor:
        """The nearest image of each other class, nearest first, at most nine: (M, *input_shape) on the CPU."""
        pool = self._pool
        distance = (pool - image.cpu()).flatten(1).norm(dim=1)
        nearest: dict[int, int] = {}
        for place in distance.argsort().tolist():
            if self._labels[place] != label:
                nearest.setdefault(self._labels[place], place)
        return pool[list(nearest.values())[:MOST_OTHERS]]

    @cached_property
    def _pool(self) -> Tensor:
        """Images at even distances in the split, (N, *input_shape); those that can't be read are passed over."""
        found = [torch.zeros(0, *self.images.input_shape)]
        for index in spread(len(self.images), min(_LOOKED_THROUGH, _most_images(self.images.input_shape))):
            try:
                found.append(self.images.image(index)[None])
            except ImageError:
                continue
            self._labels.append(self.images.label(index))
        return torch.cat(found)

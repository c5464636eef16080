"""The threat model of a plan: whether the search sees the target's gradients, a surrogate's, or votes alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caa_cli.config.attack_plan import AttackPlan
from caa_cli.config.choices import MODEL, SURROGATE_MODEL, VOTES
from caa_cli.data.images import Images
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

_SOURCES: dict[str, type[GradientSource]] = {MODEL: WhiteBox, SURROGATE_MODEL: SurrogateModel, VOTES: SteinEstimator}


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

    def gradients(self) -> GradientSource:
        """The source of gradients, a surrogate's model loaded."""
        if self.weights is not None and self.card is not None:
            return SurrogateModel(build_model(self.weights, self.card))
        return _SOURCES[self.kind]()


def find_surrogate(plan: AttackPlan) -> Path | None:
    """The checkpoint of a plan's surrogate, None without one. Raises CaaError where there is no such file."""
    with _of_option(plan):
        return None if plan.surrogate_model is None else find_checkpoint(plan.surrogate_model)


@contextmanager
def _of_option(plan: AttackPlan) -> Iterator[None]:
    """A context whose errors name the option that the surrogate comes from."""
    try:
        yield
    except CaaError as error:
        hint = "name the checkpoint of a model of the same images and classes"
        if "--trust-checkpoint" in (error.hint or ""):
            hint = f"{error.hint}; or {hint}"
        raise CaaError(f"--gradient {plan.gradient}: {error.problem}", hint, error.exit_code) from error


def open_access(plan: AttackPlan, target: ModelCard, images: Images, display: Display) -> Access:
    """The access of a plan, its surrogate read and checked. Raises CaaError if that doesn't fit the target.

    A surrogate whose checkpoint holds no σ is given the target's; the search sets the noise in any case.
    """
    path = find_surrogate(plan)
    if path is None:
        return Access(plan.gradient)
    with _of_option(plan):
        weights = read_weights(path, plan.trust_checkpoint)
        sigma = weights.card.sigma if weights.card is not None else None
        card, notes = resolve_card(
            weights,
            Overrides(sigma=None if sigma is not None else target.sigma),
            images.name,
            images.input_shape,
            images.num_classes,
            plan.trust_checkpoint,
        )
    if card.num_classes != target.num_classes:
        raise UsageError(
            f"--gradient {plan.gradient}: it knows {counted(card.num_classes, 'class')}, the attacked model "
            f"{target.num_classes}",
            "name a checkpoint of the same classes, in the same order",
        )
    for note in notes:
        display.warn(f"--gradient {plan.gradient}: {note}")
    return Access(SURROGATE_MODEL, weights, card)

"""What an attack is: frozen settings with `start` and `step`, and what its search costs."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

from caa_cli.attacks.common.state import Batch, Example
from caa_cli.config.bounds import GOODMAN
from caa_cli.config.certificates import COHEN
from caa_cli.config.settings import Settings
from caa_cli.runtime.words import counted
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.smoothing.gradients import WhiteBox

State = TypeVar("State", bound=Batch)


@dataclass(frozen=True)
class Attack(ABC, Generic[State]):
    """The settings that every attack has, the same for every example.

    samples: noise samples of one evaluation. alpha, bound: of the adversarial criterion. seed: of the noise.
    certificate: of the radii that the run reports.
    """

    samples: int = 1500
    alpha: float = 0.005
    bound: str = GOODMAN
    seed: int = 0
    certificate: str = COHEN

    # Of `budget`, what an image's search takes on smoothed MNIST models, for an estimate before the run.
    TYPICAL_SHARE: ClassVar[float] = 1.0
    # Vectors of an image's size that the batch, the passes and the temporaries of a step take.
    _VECTORS: ClassVar[int] = 20
    # The most images that are searched at a time; None: any number.
    MOST_IMAGES: ClassVar[int | None] = None
    # Whether it also proposes points near the boundary that its own votes do not confirm.
    PROPOSES_UNCONFIRMED: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def of(cls, settings: Settings, iterations: int, **run: Any) -> Self:
        """The attack with its declared settings. iterations: as --iterations says; run: the settings above."""

    @property
    @abstractmethod
    def iterations(self) -> int:
        """The most steps an example may take."""

    @abstractmethod
    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> State:
        """The state of examples that have just joined."""

    @abstractmethod
    def step(self, state: State, classifier: SmoothedClassifier) -> None:
        """One iteration of every example: evaluates x, keeps candidates with `remember`, moves on, sets `done`."""

    @abstractmethod
    def budget(self, num_classes: int, cost: GradientCost = WhiteBox.cost) -> tuple[int, int] | None:
        """The most (forward, backward) model evaluations of one image's search on a model of so many classes, where a
        pilot costs none of its own; None where they are not known.

        cost: of a sample with gradients, see `GradientSource`.
        """

    def after_target(self) -> Self:
        """The attack as it is where every example has a target."""
        return self

    def samples_a_step(self) -> tuple[int, int]:
        """The fewest and the most samples that a step draws at one point."""
        return self.samples, self.samples

    def points_a_step(self) -> int:
        """The most points of one image that a step evaluates in one pass."""
        return 1

    def first_samples(self) -> int:
        """The samples of one image's first pass."""
        return self.samples_a_step()[0] * self.points_a_step()

    def typical_share(self) -> float:
        """The share of the budget that a search usually takes."""
        return self.TYPICAL_SHARE

    def state_bytes(self, input_shape: Sequence[int], cost: GradientCost = WhiteBox.cost) -> int:
        """Bytes, at most, of one image's state in the search, on top of a chunk."""
        vectors = self._VECTORS + self.extra_vectors() + self.points_a_step() * cost.vectors
        return 4 * math.prod(input_shape) * vectors

    def extra_vectors(self) -> int:
        """Vectors of an image's size that this attack keeps or needs beyond those of every attack."""
        return 0

    def in_words(self) -> str:
        """How much it searches, for the user."""
        fewest, most = self.samples_a_step()
        samples = counted(most, "sample") if fewest == most else f"{fewest} to {most} samples"
        return f"{samples} per step, at most {counted(self.iterations, 'step')}"

    def notes(self, num_classes: int) -> list[tuple[str, str]]:
        """What to tell the user before the run, as rows (heading, text)."""
        return []

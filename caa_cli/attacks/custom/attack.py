"""Attacks of the user's, in the loop of all attacks.

One step is the whole search of an image. What comes back is not believed: it is checked, and its votes are drawn
here. So an attack that fails or misbehaves costs its image, and nothing else.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, cast

import torch
from torch import Tensor

from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.criterion import adversarial
from caa_cli.attacks.common.loop import Search
from caa_cli.attacks.common.state import Batch, Example
from caa_cli.attacks.custom.classifier import AttackedClassifier, Evaluations, copied
from caa_cli.attacks.custom.isolation import image_of, isolated, reason
from caa_cli.config.custom_attack import CLASS, FUNCTION, CustomSettings, Origin, arguments, short_name
from caa_cli.config.settings import Settings
from caa_cli.errors import CaaError, UsageError
from caa_cli.runtime.words import counted
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.gradient_source import GradientCost
from caa_cli.smoothing.gradients import WhiteBox
from caa_cli.smoothing.judge import count_of, judge_of, largest_other
from caa_cli.smoothing.noise import Purpose


class PerExample(list[Any]):
    """A value an example, in a batch."""

    def take(self, rows: Tensor) -> None:
        self[:] = [self[row] for row in rows.tolist()]


@dataclass
class CustomState(Batch):
    """joined: the examples. failures: why a search failed, None of the others."""

    joined: PerExample
    failures: PerExample

    def failure(self, row: int) -> str | None:
        return cast("str | None", self.failures[row])


@dataclass(frozen=True)
class Proposal:
    """What a search proposes for an image, each (1, *input_shape), and how many steps it took."""

    images: list[Any]
    steps: int = 1
    lost_gradients: int = 0


class Form(ABC):
    """One of the two forms that an attack may have."""

    @abstractmethod
    def search(self, example: Example, classifier: SmoothedClassifier, view: AttackedClassifier) -> Proposal:
        """The search of one image."""

    def budget(self, num_classes: int, cost: GradientCost) -> tuple[int, int] | None:
        """As `Attack.budget`."""
        return None

    def notes(self, num_classes: int) -> list[tuple[str, str]]:
        return []


@dataclass(frozen=True)
class FunctionForm(Form):
    """A function (classifier, images, labels, generator) → adversarial images, called with one image at a time."""

    function: Callable[..., Any]
    keywords: dict[str, Any]

    def search(self, example: Example, classifier: SmoothedClassifier, view: AttackedClassifier) -> Proposal:
        generator = torch.Generator(device=view.device).manual_seed(view.random_seed(1))
        images, labels = example.image.clone()[None], torch.tensor([example.label], device=view.device)
        return Proposal([self.function(view, images, labels, generator, **self.keywords)])


@dataclass(frozen=True)
class LoopForm(Form):
    """An `Attack` of the user's."""

    attack: Attack[Any]

    def search(self, example: Example, classifier: SmoothedClassifier, view: AttackedClassifier) -> Proposal:
        (finding,) = Search(self.attack, classifier).run([example])
        images = [candidate.image[None] for candidate in finding.candidates]
        return Proposal(images, finding.iterations, finding.lost_gradients)

    def budget(self, num_classes: int, cost: GradientCost) -> tuple[int, int] | None:
        return self.attack.budget(num_classes, cost)

    def notes(self, num_classes: int) -> list[tuple[str, str]]:
        return self.attack.notes(num_classes)


@dataclass(frozen=True)
class CustomAttack(Attack[CustomState]):
    """origin: for messages. steps: what --iterations says, for the attack to heed."""

    origin: Origin = field(kw_only=True)
    form: Form = field(kw_only=True)
    steps: int = 100

    # So that what is finished is kept at once, and one image's trouble is its own.
    MOST_IMAGES: ClassVar[int | None] = 1
    PROPOSES_UNCONFIRMED = True

    @classmethod
    def of(cls, settings: Settings, iterations: int, **run: Any) -> CustomAttack:
        assert isinstance(settings, CustomSettings)
        form = _form(settings, iterations, run)
        return cls(**run, origin=settings.origin_of_attack, form=form, steps=iterations)

    @property
    def iterations(self) -> int:
        return 1

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> CustomState:
        none = PerExample([None] * len(examples))
        return CustomState.new(examples, classifier.num_classes, joined=PerExample(examples), failures=none)

    def step(self, state: CustomState, classifier: SmoothedClassifier) -> None:
        for row, example in enumerate(state.joined):
            self._search(state, row, example, classifier)

    def _search(self, state: CustomState, row: int, example: Example, classifier: SmoothedClassifier) -> None:
        count = Evaluations()
        try:
            candidates, steps, lost = self._candidates(example, classifier, count)
        except (Exception, SystemExit) as error:  # the user's own code
            if isinstance(error, CaaError) and not isinstance(error, UsageError):  # as where memory runs out
                raise
            state.failures[row] = f"{short_name(self.origin.name)} {reason(error, self.origin.file)}"
            candidates, steps, lost = [], 1, 0
        # The loop counts one step; an attack of the loop's form took its own.
        state.iteration[row] = steps - 1
        state.lost_gradients[row] = lost
        state.forward[row], state.backward[row] = count.forward, count.backward
        for number, image in enumerate(candidates):
            state.x[row] = image
            self._judge(state, row, number, classifier)

    def _candidates(
        self, example: Example, classifier: SmoothedClassifier, count: Evaluations
    ) -> tuple[list[Tensor], int, int]:
        """(images that differ from the clean one, steps, steps without a gradient). Raises what the attack raises."""
        view = AttackedClassifier(
            copied(classifier, count),
            example,
            samples=self.samples,
            iterations=self.steps,
            alpha=self.alpha,
            bound=self.bound,
            seed=self.seed,
        )
        with isolated(view.random_seed(0), view.device):
            proposal = self.form.search(example, view.smoothed, view)
        images = [image_of(image, example.image) for image in proposal.images]
        moved = [image for image in images if not torch.equal(image, example.image)]
        return moved, proposal.steps, proposal.lost_gradients

    def _judge(self, state: CustomState, row: int, number: int, classifier: SmoothedClassifier) -> None:
        """Draws the votes of x and remembers it, unless its label is confidently ahead."""
        (searched,) = state.keys(self.seed, [row])
        key = replace(searched, purpose=Purpose.PROPOSAL, iteration=1 + number)
        votes = state.near_votes.new_zeros((len(state), classifier.num_classes))
        votes[row] = classifier.keyed_votes(state.x[row : row + 1], [key], self.samples)[0]
        state.forward[row] += self.samples
        labels, judge = state.labels, judge_of(self.samples, self.alpha, self.bound, classifier.num_classes)
        confident = adversarial(votes, labels, self.samples, self.alpha, self.bound)
        offered = torch.zeros_like(confident)
        offered[row] = ~judge.ahead(count_of(votes, labels), largest_other(votes, labels))[row]
        state.remember_points(state.x[:, None], offered[:, None], votes[:, None], confident[:, None])

    def budget(self, num_classes: int, cost: GradientCost = WhiteBox.cost) -> tuple[int, int] | None:
        most = self.form.budget(num_classes, cost)
        return None if most is None else (most[0] + Batch.KEPT * self.samples, most[1])

    def in_words(self) -> str:
        return f"{counted(self.samples, 'sample')} per evaluation unless it says otherwise"

    def notes(self, num_classes: int) -> list[tuple[str, str]]:
        return self.form.notes(num_classes)


def _form(settings: CustomSettings, iterations: int, run: dict[str, Any]) -> Form:
    """The attack that the user's code makes. Raises CaaError."""
    origin = settings.origin_of_attack
    code, name = origin.code, origin.name
    offered = {**run, "iterations": iterations}
    try:
        if origin.kind == FUNCTION:
            return FunctionForm(code, arguments(settings, offered))
        made = (
            code.of(settings, iterations, **run)  # type: ignore[attr-defined]
            if origin.kind == CLASS
            else code(**arguments(settings, offered))
        )
    except CaaError:
        raise
    except (Exception, SystemExit) as error:
        raise CaaError(f"--attack {name} {reason(error, origin.file)}", "correct its code") from error
    if isinstance(made, Attack):
        return LoopForm(made)
    if not callable(made):
        raise UsageError(
            f"--attack {name} returned a {type(made).__name__}, neither a function nor an Attack",
            "a factory returns a function (classifier, images, labels, generator) → adversarial images",
        )
    return FunctionForm(made, {})

"""The one loop that every attack runs in.

An attack is a frozen set of settings with `start` and `step`; what it knows of the examples it is working on is
its state, a batch that examples join and leave. The loop owns iteration, stopping and refilling: an example that
has finished leaves at once and the next one takes its place, so the device never waits for the slowest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, fields
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key, Purpose


@dataclass
class Example:
    """One image to attack. image: (*input_shape) in [0, 1] on the classifier's device.

    certified_radius: of the clean image, L2, for attacks whose search depends on it.
    others: (M, *input_shape) images of other classes, for attacks that begin on the far side of the boundary.
    """

    index: int
    image: Tensor
    label: int
    certified_radius: float = 0.0
    others: Tensor | None = None


@dataclass
class Candidate:
    """A point to prove.

    image: (*input_shape).  distance: L2 to the clean image.  votes: (classes,) int64 of the search samples.
    confident: whether it looked adversarial on search noise; else it is a guess, that the boundary is about there.
    """

    image: Tensor
    distance: float
    votes: Tensor
    confident: bool = True


@dataclass
class Finding:
    """What an attack has to show for an example: its nearest candidates, nearest first, and what they cost."""

    example: Example
    candidates: list[Candidate]
    iterations: int
    forward_evaluations: int
    backward_evaluations: int
    lost_gradients: int
    seconds: float

    @property
    def confident(self) -> Candidate | None:
        """The nearest one that looked adversarial on search noise."""
        return next((candidate for candidate in self.candidates if candidate.confident), None)


@dataclass
class Batch:
    """What every attack's state holds: one row an example, all tensors with a leading example axis.

    Attacks subclass it with tensors (and `Balls`) of their own; joining and leaving is handled here.
    """

    clean: Tensor  # (E, *input_shape)
    x: Tensor  # (E, *input_shape): where the next step begins, and what `remember` offers
    labels: Tensor  # (E,) int64
    indices: Tensor  # (E,) int64 global example indices, on the CPU
    iteration: Tensor  # (E,) int64 steps taken
    forward: Tensor  # (E,) int64 model evaluations
    backward: Tensor  # (E,) int64 of them with a gradient
    lost_gradients: Tensor  # (E,) int64 steps whose gradient was zero or not finite
    seconds: Tensor  # (E,) float64 this example's share of the time
    done: Tensor  # (E,) bool: nothing more to gain
    near_image: Tensor  # (E, KEPT, *input_shape) the nearest candidates, nearest first
    near_distance: Tensor  # (E, KEPT) their L2 distance, inf where there is none
    near_votes: Tensor  # (E, KEPT, classes)
    near_confident: Tensor  # (E, KEPT) bool: looked adversarial

    KEPT = 3

    @classmethod
    def common(cls, examples: list[Example], num_classes: int) -> dict[str, Tensor]:
        """The fields above for a batch of new examples."""
        clean = torch.stack([example.image for example in examples])
        size, device = len(examples), clean.device

        def counter() -> Tensor:
            return torch.zeros(size, dtype=torch.int64, device=device)

        return {
            "clean": clean,
            "x": clean.clone(),
            "labels": torch.tensor([example.label for example in examples], device=device),
            "indices": torch.tensor([example.index for example in examples]),
            "iteration": counter(),
            "forward": counter(),
            "backward": counter(),
            "lost_gradients": counter(),
            "seconds": torch.zeros(size, dtype=torch.float64),
            "done": torch.zeros(size, dtype=torch.bool, device=device),
            "near_image": clean[:, None].repeat(1, cls.KEPT, *[1] * (clean.dim() - 1)),
            "near_distance": torch.full((size, cls.KEPT), torch.inf, device=device),
            "near_votes": torch.zeros((size, cls.KEPT, num_classes), dtype=torch.int64, device=device),
            "near_confident": torch.zeros((size, cls.KEPT), dtype=torch.bool, device=device),
        }

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> None:
        """Keeps only these examples."""
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                setattr(self, f.name, value[rows.to(value.device)])
            else:
                value.take(rows)

    def extend(self, other: Batch) -> None:
        """Appends the examples of another batch of the same attack."""
        for f in fields(self):
            value, more = getattr(self, f.name), getattr(other, f.name)
            if isinstance(value, Tensor):
                setattr(self, f.name, torch.cat([value, more]))
            else:
                value.extend(more)

    def keys(self, seed: int, rows: Tensor) -> list[Key]:
        """The search noise of these examples at their current iteration."""
        indices, iterations = self.indices[rows.cpu()].tolist(), self.iteration[rows].tolist()
        return [
            Key(seed, index, Purpose.SEARCH, iteration) for index, iteration in zip(indices, iterations, strict=True)
        ]

    def distance(self, rows: Tensor) -> Tensor:
        """L2 distance of x from the clean image, (rows,)."""
        return (self.x[rows] - self.clean[rows]).flatten(1).norm(dim=1)

    def remember(self, rows: Tensor, votes: Tensor, confident: Tensor | None = None) -> None:
        """Offers the current x of these examples as candidates; votes: (rows, classes).

        confident: (rows,) bool, which of them looked adversarial; None: all.
        """
        distance = self.distance(rows)
        last = self.KEPT - 1
        # At distance 0 lies the clean image itself, whose votes a chance may have turned.
        better = (distance < self.near_distance[rows, last]) & (distance > 0)
        kept = rows[better]
        self.near_distance[kept, last] = distance[better]
        self.near_image[kept, last] = self.x[kept]
        self.near_votes[kept, last] = votes[better]
        self.near_confident[kept, last] = True if confident is None else confident[better]
        order = self.near_distance[kept].argsort(dim=1)
        self.near_distance[kept] = self.near_distance[kept].gather(1, order)
        picked = torch.arange(len(kept), device=order.device)[:, None], order
        self.near_image[kept] = self.near_image[kept][picked]
        self.near_votes[kept] = self.near_votes[kept][picked]
        self.near_confident[kept] = self.near_confident[kept][picked]


State = TypeVar("State", bound=Batch)


class Attack(Protocol[State]):
    """An attack's settings and rule; frozen, and the same for every example."""

    @property
    def iterations(self) -> int:
        """The most steps an example may take."""
        ...

    def start(self, examples: list[Example], classifier: SmoothedClassifier) -> State:
        """The state of examples that have just joined."""
        ...

    def step(self, state: State, classifier: SmoothedClassifier) -> None:
        """One iteration of every example: evaluates x, offers it with `remember`, moves on, sets `done`."""
        ...


@dataclass
class Search:
    """Runs an attack over a stream of examples, at most `batch` of them at a time."""

    attack: Attack
    classifier: SmoothedClassifier
    batch: int = 1
    on_step: Callable[[Batch], None] = lambda state: None
    _examples: dict[int, Example] = field(default_factory=dict)

    def run(self, examples: Iterable[Example]) -> Iterator[Finding]:
        """Findings in the order in which the examples finish. `examples` is drawn from only as places free up."""
        waiting = iter(examples)
        state = self._admit(waiting, self.batch)
        while state is not None:
            began = time.perf_counter()
            self.attack.step(state, self.classifier)
            state.iteration += 1
            state.seconds += (time.perf_counter() - began) / len(state)
            self.on_step(state)
            finished = state.done | (state.iteration >= self.attack.iterations)
            if not bool(finished.any()):
                continue
            yield from [self._finding(state, row) for row in finished.nonzero()[:, 0].tolist()]
            staying = (~finished).nonzero()[:, 0]
            joining = self._admit(waiting, self.batch - len(staying))
            if len(staying) == 0:
                state = joining
                continue
            state.take(staying)
            if joining is not None:
                state.extend(joining)

    def _admit(self, waiting: Iterator[Example], places: int) -> Batch | None:
        examples = list(itertools.islice(waiting, places))
        if not examples:
            return None
        self._examples.update({example.index: example for example in examples})
        began = time.perf_counter()
        state = self.attack.start(examples, self.classifier)
        state.seconds += (time.perf_counter() - began) / len(state)
        return state

    def _finding(self, state: Batch, row: int) -> Finding:
        example = self._examples.pop(int(state.indices[row]))
        distances = state.near_distance[row].tolist()
        return Finding(
            example,
            [
                Candidate(
                    state.near_image[row, place].clone(),
                    distance,
                    state.near_votes[row, place].clone(),
                    bool(state.near_confident[row, place]),
                )
                for place, distance in enumerate(distances)
                if distance < float("inf")
            ],
            int(state.iteration[row]),
            int(state.forward[row]),
            int(state.backward[row]),
            int(state.lost_gradients[row]),
            float(state.seconds[row]),
        )

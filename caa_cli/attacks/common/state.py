"""What a search works on and what it finds: examples, the batch that holds them, and findings."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from caa_cli.smoothing.noise import Key, Purpose


@dataclass
class Example:
    """One image to attack. image: (*input_shape) in [0, 1] on the classifier's device.

    certified_radius: of the clean image, L2, for attacks whose search depends on it.
    starting_points: (M, *input_shape) images of other classes, for searches that begin beyond the boundary.
    target: the class to reach; None: any but the label.
    """

    index: int
    image: Tensor
    label: int
    certified_radius: float = 0.0
    starting_points: Tensor | None = None
    target: int | None = None


@dataclass
class Candidate:
    """A point to verify.

    image: (*input_shape).  distance: L2 to the clean image.  votes: (classes,) int64 of the search samples.
    confident: whether it was adversarial on search noise; else it is an unconfirmed candidate near the boundary.
    """

    image: Tensor
    distance: float
    votes: Tensor
    confident: bool = True


@dataclass
class Finding:
    """The result of one example's search: its nearest candidates, nearest first, and what they cost.

    error: why the search failed, where it did.
    """

    example: Example
    candidates: list[Candidate]
    iterations: int
    forward_evaluations: int
    backward_evaluations: int
    lost_gradients: int
    seconds: float
    error: str | None = None

    @property
    def confident(self) -> Candidate | None:
        """The nearest candidate that was adversarial on search noise."""
        return next((candidate for candidate in self.candidates if candidate.confident), None)


@dataclass
class Batch:
    """The state that every attack has: one row an example, all tensors with a leading example axis.

    Attacks subclass it with further tensors (and `Balls`); joining and leaving is handled here.
    """

    clean: Tensor  # (E, *input_shape)
    x: Tensor  # (E, *input_shape): evaluated by the next step, and kept by `remember`
    labels: Tensor  # (E,) int64
    indices: Tensor  # (E,) int64 global example indices, on the CPU
    iteration: Tensor  # (E,) int64 steps taken
    forward: Tensor  # (E,) int64 model evaluations
    backward: Tensor  # (E,) int64 of them with a gradient
    lost_gradients: Tensor  # (E,) int64 steps whose gradient was zero or not finite
    seconds: Tensor  # (E,) float64 this example's share of the time
    done: Tensor  # (E,) bool: the search is over
    near_image: Tensor  # (E, KEPT, *input_shape) the nearest candidates, nearest first
    near_distance: Tensor  # (E, KEPT) their L2 distance, inf where there is none
    near_votes: Tensor  # (E, KEPT, classes)
    near_confident: Tensor  # (E, KEPT) bool: adversarial on search noise

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

    @classmethod
    def new(cls, examples: list[Example], num_classes: int, **further: Any) -> Self:
        """The state of examples that have just joined; further: the fields that a subclass adds."""
        return cls(**cls.common(examples, num_classes), **further)

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

    def failure(self, row: int) -> str | None:
        """Why the search of an example failed; None where it did not."""
        return None

    def keys(self, seed: int, rows: Tensor) -> list[Key]:
        """The search noise of these examples at their current iteration."""
        indices, iterations = self.indices[rows.cpu()].tolist(), self.iteration[rows].tolist()
        return [
            Key(seed, index, Purpose.SEARCH, iteration) for index, iteration in zip(indices, iterations, strict=True)
        ]

    def distance(self, rows: Tensor) -> Tensor:
        """L2 distance of x from the clean image, (rows,)."""
        distances: Tensor = (self.x[rows] - self.clean[rows]).flatten(1).norm(dim=1)
        return distances

    def remember(self, rows: Tensor, votes: Tensor, confident: Tensor | None = None) -> None:
        """Adds the current x of these examples to their candidates, if it is near enough; votes: (rows, classes).

        confident: (rows,) bool, which of them are adversarial on search noise; None: all.
        """
        distance = self.distance(rows)
        last = self.KEPT - 1
        # A candidate at distance 0 is the clean image itself, adversarial by chance.
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

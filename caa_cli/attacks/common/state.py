"""What a search works on and what it finds: examples, the batch that holds them, and findings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor

from caa_cli.attacks.common.criterion import Aim
from caa_cli.smoothing.noise import Key, Purpose


@dataclass
class Example:
    """One image to attack. image: (*input_shape) in [0, 1] on the classifier's device.

    certified_radius: of the clean image, L2, for attacks whose search depends on it.
    starting_points: (M, *input_shape) images of other classes, for searches that begin beyond the boundary.
    target: the class to reach; None: any but the label.
    search: how many searches of it came before this one.
    """

    index: int
    image: Tensor
    label: int
    certified_radius: float = 0.0
    starting_points: Tensor | None = None
    target: int | None = None
    search: int = 0

    def key(self, seed: int, purpose: Purpose) -> Key:
        """Noise of this search, before its first step."""
        return Key(seed, self.index, purpose, search=self.search)


def clean_images(examples: list[Example]) -> Tensor:
    """The images of a batch, (examples, *input_shape)."""
    return torch.stack([example.image for example in examples])


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

    boundary_distance: of the nearest boundary, as estimated; inf where none was found.  error: why the search failed,
    where it did.
    """

    example: Example
    candidates: list[Candidate]
    iterations: int
    forward_evaluations: int
    backward_evaluations: int
    lost_gradients: int
    seconds: float
    boundary_distance: float = math.inf
    error: str | None = None

    @property
    def confident(self) -> Candidate | None:
        """The nearest candidate that was adversarial on search noise."""
        return next((candidate for candidate in self.candidates if candidate.confident), None)

    def joined(self, earlier: Finding) -> Finding:
        """The result of this search and of earlier ones of the same image: the nearer one's candidates."""
        nearer, other = (self, earlier) if self.boundary_distance < earlier.boundary_distance else (earlier, self)
        sure = [other.confident] if nearer.confident is None and other.confident is not None else []
        return Finding(
            self.example,
            nearer.candidates + sure,
            earlier.iterations + self.iterations,
            earlier.forward_evaluations + self.forward_evaluations,
            earlier.backward_evaluations + self.backward_evaluations,
            earlier.lost_gradients + self.lost_gradients,
            earlier.seconds + self.seconds,
            nearer.boundary_distance,
            self.error,
        )


@dataclass
class Batch:
    """The state that every attack has: one row an example, all tensors with a leading example axis.

    Attacks subclass it with further tensors (and `Balls`); joining and leaving is handled here. What the host has to
    know of every step is kept on the CPU, so that it need not ask the device.
    """

    clean: Tensor  # (E, *input_shape)
    x: Tensor  # (E, *input_shape): evaluated by the next step, and kept by `remember`
    labels: Tensor  # (E,) int64
    aim: Aim  # to get away from these labels, or to reach the targets
    indices: Tensor  # (E,) int64 global example indices, on the CPU
    search: Tensor  # (E,) int64 how many searches of the example came before, on the CPU
    iteration: Tensor  # (E,) int64 steps taken, on the CPU
    forward: Tensor  # (E,) int64 model evaluations, on the CPU
    backward: Tensor  # (E,) int64 of them with a gradient, on the CPU
    seconds: Tensor  # (E,) float64 this example's share of the time, on the CPU
    lost_gradients: Tensor  # (E,) int64 steps whose gradient was zero or not finite
    done: Tensor  # (E,) bool: the search is over
    near_image: Tensor  # (E, KEPT, *input_shape) the nearest candidates, nearest first
    near_distance: Tensor  # (E, KEPT) their L2 distance, inf where there is none
    near_votes: Tensor  # (E, KEPT, classes)
    near_confident: Tensor  # (E, KEPT) bool: adversarial on search noise

    KEPT = 3

    @classmethod
    def new(cls, examples: list[Example], num_classes: int, **further: Any) -> Self:
        """The state of examples that have just joined; further: the fields that a subclass adds."""
        clean = clean_images(examples)
        size, device = len(examples), clean.device

        def counter(device: torch.device | str = "cpu") -> Tensor:
            return torch.zeros(size, dtype=torch.int64, device=device)

        labels = torch.tensor([example.label for example in examples], device=device)
        targets = [example.target for example in examples if example.target is not None]
        if targets and len(targets) < size:
            raise ValueError("some examples have a target, and some have none")
        return cls(
            clean=clean,
            x=clean.clone(),
            labels=labels,
            aim=Aim(torch.tensor(targets, device=device), targeted=True) if targets else Aim(labels),
            indices=torch.tensor([example.index for example in examples]),
            search=torch.tensor([example.search for example in examples]),
            iteration=counter(),
            forward=counter(),
            backward=counter(),
            seconds=torch.zeros(size, dtype=torch.float64),
            lost_gradients=counter(device),
            done=torch.zeros(size, dtype=torch.bool, device=device),
            near_image=clean[:, None].repeat(1, cls.KEPT, *[1] * (clean.dim() - 1)),
            near_distance=torch.full((size, cls.KEPT), torch.inf, device=device),
            near_votes=torch.zeros((size, cls.KEPT, num_classes), dtype=torch.int64, device=device),
            near_confident=torch.zeros((size, cls.KEPT), dtype=torch.bool, device=device),
            **further,
        )

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: Tensor) -> None:
        """Keeps only these examples; rows: on the CPU."""
        on_device = self.on_device(rows)
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, Tensor):
                setattr(self, f.name, value[rows if value.device == rows.device else on_device])
            else:
                value.take(on_device)

    def extend(self, other: Batch) -> None:
        """Appends the examples of another batch of the same attack."""
        for f in fields(self):
            value, more = getattr(self, f.name), getattr(other, f.name)
            if isinstance(value, Tensor):
                setattr(self, f.name, torch.cat([value, more]))
            else:
                value.extend(more)

    def boundary_distances(self) -> Tensor:
        """Of the nearest boundary that each search found, as estimated, (E,); inf where it found none."""
        return self.near_distance[:, 0]

    def failure(self, row: int) -> str | None:
        """Why the search of an example failed; None where it did not."""
        return None

    def keys(self, seed: int, rows: Sequence[int] | None = None) -> list[Key]:
        """The search noise of these examples, or of all, at their current iteration."""
        numbers = torch.stack([self.indices, self.iteration, self.search], dim=1).tolist()
        chosen = numbers if rows is None else [numbers[row] for row in rows]
        return [Key(seed, index, Purpose.SEARCH, iteration, search) for index, iteration, search in chosen]

    def on_device(self, value: Tensor) -> Tensor:
        """A value that the host knows, on the CPU, where the images are; the host does not wait for it to arrive."""
        return value.to(self.x.device, non_blocking=True)

    def index(self, rows: list[int]) -> Tensor | slice:
        """What picks these rows of a tensor where the images are; all of them without a copy."""
        return slice(None) if len(rows) == len(self) else self.on_device(torch.tensor(rows))

    def per_image(self, values: Tensor) -> Tensor:
        """One value an image, (E,), in a shape that goes with the images'."""
        return values.view(-1, *[1] * (self.x.dim() - 1))

    def distance(self) -> Tensor:
        """L2 distance of x from the clean image, (E,)."""
        distances: Tensor = (self.x - self.clean).flatten(1).norm(dim=1)
        return distances

    def remember(self, offered: Tensor, votes: Tensor) -> None:
        """Adds the current x of the examples `offered`, (E,) bool, to their candidates, if it is near enough; votes:
        (E, classes), adversarial on search noise."""
        self.remember_points(self.x[:, None], offered[:, None], votes[:, None], offered[:, None])

    def remember_points(self, points: Tensor, offered: Tensor, votes: Tensor, confident: Tensor) -> None:
        """Adds several points an example to its candidates, where `offered` and near enough.

        points: (E, P, *input_shape).  offered, confident: (E, P) bool; `confident` is whether a point is adversarial
        on search noise.  votes: (E, P, classes).
        """
        distance = (points - self.clean[:, None]).flatten(2).norm(dim=2)
        # A candidate at distance 0 is the clean image itself, adversarial by chance.
        distance = torch.where(offered & (distance > 0), distance, torch.inf)
        everything = torch.cat([self.near_distance, distance], dim=1)
        # Stable, so that of points at the same distance the earlier one stays.
        self.near_distance, order = (part[:, : self.KEPT] for part in everything.sort(dim=1, stable=True))
        row = torch.arange(len(self), device=order.device)[:, None]
        self.near_image = torch.cat([self.near_image, points], dim=1)[row, order]
        self.near_votes = torch.cat([self.near_votes, votes], dim=1)[row, order]
        self.near_confident = torch.cat([self.near_confident, confident], dim=1)[row, order]

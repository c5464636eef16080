"""What the certification-aware attack knows of its examples, and what one look at them says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from caa_cli.attacks.geometry import Balls
from caa_cli.attacks.loop import Batch, Example


@dataclass
class CaaState(Batch):
    """original, adversarial: the certified balls of either side. found: this run knows a confident point.

    stale: steps since the nearest distance last fell by more than `tolerance`; mark: that distance.
    rivals: (examples, runs) the class that each run follows; (examples, 0): one run, after whichever leads.
    run: which of them is on.  begun: the step it began at.  refined: the steps since it found a point.
    normal: (examples, dimensions) of the boundary, the sum of this run's unit gradients, older ones counting less.
    """

    original: Balls
    adversarial: Balls
    found: Tensor
    stale: Tensor
    mark: Tensor
    rivals: Tensor
    run: Tensor
    begun: Tensor
    refined: Tensor
    normal: Tensor

    @classmethod
    def new(cls, examples: list[Example], num_classes: int, rivals: Tensor | None = None) -> Self:
        """Of examples that have just joined."""
        common = cls.common(examples, num_classes)
        size, device = len(examples), common["clean"].device
        dimensions = common["clean"][0].numel()

        def counter() -> Tensor:
            return torch.zeros(size, dtype=torch.int64, device=device)

        return cls(
            **common,
            original=Balls(size, dimensions, device),
            adversarial=Balls(size, dimensions, device),
            found=torch.zeros(size, dtype=torch.bool, device=device),
            stale=counter(),
            mark=torch.full((size,), torch.inf, device=device),
            rivals=counter()[:, None][:, :0] if rivals is None else rivals,
            run=counter(),
            begun=counter(),
            refined=counter(),
            normal=torch.zeros((size, dimensions), device=device),
        )

    def next_run(self, rows: Tensor) -> None:
        """These examples begin again at the clean image, after their next rival; what was found is kept."""
        self.run[rows] += 1
        self.begun[rows] = self.iteration[rows] + 1
        self.x[rows] = self.clean[rows]
        self.found[rows] = False
        self.stale[rows] = 0
        self.refined[rows] = 0
        self.normal[rows] = 0.0
        # The balls would still hold, but lie on another way out, and memory would grow with the runs.
        self.original.clear(rows)
        self.adversarial.clear(rows)


@dataclass
class Look:
    """What the samples of one step say of x, one row an example.

    votes: (examples, classes) int64.  top: the class with the most.  radius: certified, of that class.
    adversarial: whether another class is confidently above the label.
    gradient: (examples, dimensions), of those that `has_gradient` names.
    """

    votes: Tensor
    top: Tensor
    radius: Tensor
    adversarial: Tensor
    gradient: Tensor
    has_gradient: Tensor

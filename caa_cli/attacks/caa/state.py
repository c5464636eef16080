"""The state of the certification-aware attack, and the result of one evaluation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from caa_cli.attacks.caa.balls import Balls
from caa_cli.attacks.common.state import Batch, Example


@dataclass
class CaaState(Batch):
    """original, adversarial: the certified balls of either side. succeeded: whether this run has a confident point.

    stale: steps since the nearest distance last fell by more than `tolerance`; mark: that distance.
    rivals: (examples, runs) the class that each run follows; (examples, 0): one run, after whichever class leads.
    run: the number of the current run.  begun: its first step.  refined: the steps since it found a point.
    normal: (examples, dimensions) of the boundary, the sum of this run's unit gradients, older ones with less weight.
    """

    original: Balls
    adversarial: Balls
    succeeded: Tensor
    stale: Tensor
    mark: Tensor
    rivals: Tensor
    run: Tensor
    begun: Tensor
    refined: Tensor
    normal: Tensor

    @classmethod
    def begin(cls, examples: list[Example], num_classes: int, rivals: Tensor | None = None) -> Self:
        """The state of examples that have just joined."""
        size, device, dimensions = len(examples), examples[0].image.device, examples[0].image.numel()

        def counter() -> Tensor:
            return torch.zeros(size, dtype=torch.int64, device=device)

        return cls.new(
            examples,
            num_classes,
            original=Balls(size, dimensions, device),
            adversarial=Balls(size, dimensions, device),
            succeeded=torch.zeros(size, dtype=torch.bool, device=device),
            stale=counter(),
            mark=torch.full((size,), torch.inf, device=device),
            rivals=counter()[:, None][:, :0] if rivals is None else rivals,
            run=counter(),
            begun=counter(),
            refined=counter(),
            normal=torch.zeros((size, dimensions), device=device),
        )

    def next_run(self, rows: Tensor) -> None:
        """Restarts these examples at the clean image, after their next rival; candidates are kept."""
        self.run[rows] += 1
        self.begun[rows] = self.iteration[rows] + 1
        self.x[rows] = self.clean[rows]
        self.succeeded[rows] = False
        self.stale[rows] = 0
        self.refined[rows] = 0
        self.normal[rows] = 0.0
        # The balls remain valid, but seldom help another run, and memory would grow with the runs.
        self.original.clear(rows)
        self.adversarial.clear(rows)


@dataclass
class CaaEvaluation:
    """One evaluation of x, one row an example.

    votes: (examples, classes) int64.  top: the class with the most.  radius: certified, of that class.
    adversarial: whether another class is confidently above the label.
    gradient: (examples, dimensions), where `has_gradient`.
    """

    votes: Tensor
    top: Tensor
    radius: Tensor
    adversarial: Tensor
    gradient: Tensor
    has_gradient: Tensor

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
    """balls: certified; their side is True for that of the original class. succeeded: whether this run has a
    confident point, on the CPU.

    stale: steps since the nearest distance last fell by more than `tolerance`; mark: that distance.
    rivals: (examples, runs) the class that each run follows; (examples, 0): one run, after whichever class leads.
    run: the number of the current run.  begun: its first step.  refined: the steps since it found a point.
    normal: (examples, dimensions) of the boundary, the sum of this run's unit gradients, older ones with less weight.
    """

    balls: Balls
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
            balls=Balls(size, dimensions, device),
            succeeded=torch.zeros(size, dtype=torch.bool),
            stale=counter(),
            mark=torch.full((size,), torch.inf, device=device),
            rivals=counter()[:, None][:, :0] if rivals is None else rivals,
            run=counter(),
            begun=counter(),
            refined=counter(),
            normal=torch.zeros((size, dimensions), device=device),
        )

    def next_run(self, chosen: Tensor) -> None:
        """Restarts the examples of this mask at the clean image, after their next rival; candidates are kept."""
        self.run = self.run + chosen
        self.begun = torch.where(chosen, self.on_device(self.iteration) + 1, self.begun)
        self.x = torch.where(self.per_image(chosen), self.clean, self.x)
        self.succeeded &= ~chosen.cpu()
        self.stale = torch.where(chosen, 0, self.stale)
        self.refined = torch.where(chosen, 0, self.refined)
        self.normal = torch.where(chosen[:, None], 0.0, self.normal)
        # The balls remain valid, but seldom help another run, and memory would grow with the runs.
        self.balls.clear(chosen)


@dataclass
class Verdict:
    """What the votes say of each point, (examples,) each.

    top: the class with the most votes.  radius: certified, of that class, 0 without confidence.
    adversarial: whether another class is confidently above the label.  decided: whether any class is confident.
    """

    top: Tensor
    radius: Tensor
    adversarial: Tensor
    decided: Tensor

    def or_else(self, later: Verdict) -> Verdict:
        """This verdict where it is decided, and the later one elsewhere."""
        pairs = zip(vars(self).values(), vars(later).values(), strict=True)
        return Verdict(*(torch.where(self.decided, first, second) for first, second in pairs))

    def for_the_host(self) -> tuple[list[bool], list[bool]]:
        """(`decided`, `adversarial`), for which the host waits."""
        decided, adversarial = torch.stack([self.decided, self.adversarial]).tolist()
        return decided, adversarial


@dataclass
class CaaEvaluation:
    """One evaluation of x, one row an example.

    votes: (examples, classes) int64.  gradient: (examples, dimensions), 0 where none was needed.
    verdict: of the votes.  succeeds: whether it is adversarial, for the host.
    """

    votes: Tensor
    gradient: Tensor
    verdict: Verdict
    succeeds: list[bool]

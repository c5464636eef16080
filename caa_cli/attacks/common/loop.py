"""The one loop that every attack runs in.

It owns iteration, stopping and refilling: an example that has finished leaves at once and the next one takes its
place, so the device never waits for the slowest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.state import Batch, Candidate, Example, Finding
from caa_cli.smoothing.classifier import SmoothedClassifier


@dataclass
class Search:
    """Runs an attack over examples that join and leave, at most `batch` at a time; on_step sees every state.

    restarts: the searches of an example, each on noise of its own. The next begins in the place of the one before.
    """

    attack: Attack[Any]
    classifier: SmoothedClassifier
    batch: int = 1
    on_step: Callable[[Batch], None] = lambda state: None
    restarts: int = 1
    _examples: dict[int, Example] = field(default_factory=dict)
    _earlier: dict[int, Finding] = field(default_factory=dict)
    _state: Batch | None = None

    def run(self, examples: Iterable[Example]) -> Iterator[Finding]:
        """Findings in the order in which the examples finish. `examples` is drawn from only as places free up."""
        waiting = iter(examples)
        while True:
            self.join(list(itertools.islice(waiting, self.free)))
            if not self.busy:
                return
            yield from self.advance()

    @property
    def free(self) -> int:
        """How many examples may join."""
        return self.batch - len(self._examples)

    @property
    def busy(self) -> bool:
        """Whether any example is being searched."""
        return self._state is not None

    def join(self, examples: list[Example]) -> None:
        """Begins the search of these examples, at most `free`."""
        if not examples:
            return
        self._examples.update({example.index: example for example in examples})
        began = time.perf_counter()
        joining = self.attack.start(examples, self.classifier)
        joining.seconds += (time.perf_counter() - began) / len(joining)
        if self._state is None:
            self._state = joining
        else:
            self._state.extend(joining)

    def advance(self) -> list[Finding]:
        """Takes one step with every example; returns the findings of those that have finished, which leave."""
        state = self._state
        if state is None:
            return []
        began = time.perf_counter()
        self.attack.step(state, self.classifier)
        state.iteration += 1
        # The host waits for the step here, if it did not before: so the time comes after it.
        finished = state.done.cpu() | (state.iteration >= self.attack.iterations)
        state.seconds += (time.perf_counter() - began) / len(state)
        self.on_step(state)
        if not bool(finished.any()):
            return []
        findings = self._findings(state, finished.nonzero()[:, 0].tolist())
        staying = (~finished).nonzero()[:, 0]
        if len(staying):
            state.take(staying)
        else:
            self._state = None
        return self._search_again(findings)

    def _search_again(self, findings: list[Finding]) -> list[Finding]:
        """Begins the next search of examples that have further ones; returns the findings of the others."""
        over, again = list[Finding](), list[Example]()
        for last in findings:
            example, earlier = last.example, self._earlier.pop(last.example.index, None)
            finding = last if earlier is None else last.joined(earlier)
            if finding.error is None and example.search + 1 < self.restarts:
                self._earlier[example.index] = finding
                again.append(replace(example, search=example.search + 1))
            else:
                over.append(finding)
        self.join(again)
        return over

    def _findings(self, state: Batch, rows: list[int]) -> list[Finding]:
        # In one transfer from the device.
        single = state.lost_gradients[:, None], state.boundary_distances()[:, None]
        columns = state.near_distance, state.near_confident, *single
        numbers = torch.cat([column.double() for column in columns], dim=1).tolist()
        return [self._finding(state, row, numbers[row]) for row in rows]

    def _finding(self, state: Batch, row: int, numbers: list[float]) -> Finding:
        """numbers: the distance of each candidate, whether each is confident, the lost gradients, and the distance of
        the boundary."""
        *near, lost_gradients, boundary_distance = numbers
        distances, confident = near[: state.KEPT], near[state.KEPT :]
        candidates = [
            Candidate(state.near_image[row, rank].clone(), distance, state.near_votes[row, rank].clone(), bool(sure))
            for rank, (distance, sure) in enumerate(zip(distances, confident, strict=True))
            if distance < float("inf")
        ]
        return Finding(
            self._examples.pop(int(state.indices[row])),
            candidates,
            int(state.iteration[row]),
            int(state.forward[row]),
            int(state.backward[row]),
            int(lost_gradients),
            float(state.seconds[row]),
            boundary_distance,
            state.failure(row),
        )

"""The loop that every attack runs in: who joins, who leaves, and when."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from networks import make_linear

from caa_cli.attacks.baselines.pgd import Pgd
from caa_cli.attacks.common.loop import Search
from caa_cli.attacks.common.state import Batch, Example
from caa_cli.smoothing.classifier import SmoothedClassifier


def test_examples_join_as_places_free_up_and_leave_as_they_finish():
    linear = make_linear()
    near, far, next_one = (Example(index, linear.at(distance), 1) for index, distance in enumerate((0.3, 1.2, 0.3)))
    attack = Pgd(samples=300, steps=20, epsilon=0.2)
    search = Search(attack, linear.classifier, batch=2)
    assert (search.free, search.busy, search.advance()) == (2, False, [])
    search.join([near, far])
    assert (search.free, search.busy) == (0, True)
    finished = []
    while not finished:
        finished = search.advance()
    assert [finding.example for finding in finished] == [near]
    assert search.free == 1
    search.join([next_one])
    while search.busy:
        finished += search.advance()
    assert search.free == 2
    alone = [next(Search(attack, linear.classifier).run([example])) for example in (near, next_one, far)]
    assert [finding.example.index for finding in finished] == [0, 2, 1]
    assert [finding.iterations for finding in finished] == [finding.iterations for finding in alone]


def test_examples_are_drawn_only_as_places_free_up():
    linear, drawn = make_linear(), []

    def examples():
        for index in range(3):
            drawn.append(index)
            yield Example(index, linear.at(0.3), 1)

    findings = Search(Pgd(samples=300, steps=20, epsilon=0.2), linear.classifier).run(examples())
    for count in range(1, 4):
        next(findings)
        assert drawn == list(range(count))


WORK = 0.2


class AtWork(torch.Tensor):
    """On a device that is still at work on it, which only a question about its values waits for."""

    def cpu(self) -> torch.Tensor:
        time.sleep(WORK)
        return self.as_subclass(torch.Tensor)


@dataclass(frozen=True)
class Asynchronous(Pgd):
    def step(self, state: Batch, classifier: SmoothedClassifier) -> None:
        state.done = torch.ones(len(state), dtype=torch.bool).as_subclass(AtWork)


def test_the_time_of_a_step_includes_what_the_device_still_has_to_do():
    linear = make_linear()
    examples = [Example(index, linear.at(0.3), 1) for index in range(2)]
    findings = list(Search(Asynchronous(), linear.classifier, batch=2).run(examples))
    assert all(finding.seconds > 0.9 * WORK / 2 for finding in findings)

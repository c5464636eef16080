"""The loop that every attack runs in: who joins, who leaves, and when."""

from __future__ import annotations

from networks import make_linear

from caa_cli.attacks.baselines.pgd import Pgd
from caa_cli.attacks.common.loop import Search
from caa_cli.attacks.common.state import Example


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

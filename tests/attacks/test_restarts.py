"""Several searches of one image: independent noise, one result, the cost of all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from networks import make_linear, make_small

from caa_cli.attacks.baselines.apgd_min import ApgdMin
from caa_cli.attacks.baselines.ddn import Ddn
from caa_cli.attacks.baselines.pgd import Pgd
from caa_cli.attacks.caa.attack import CertificationAware
from caa_cli.attacks.common.attack import Attack
from caa_cli.attacks.common.loop import Search
from caa_cli.attacks.common.state import Candidate, Example, Finding
from caa_cli.attacks.newton.attack import Newton
from caa_cli.attacks.newton.boundary_walk import BoundaryWalk
from caa_cli.config.attack_plan import AttackPlan
from caa_cli.run.registry import build_attack
from caa_cli.smoothing.classifier import SmoothedClassifier
from caa_cli.smoothing.noise import Key
from caa_cli.smoothing.stein import SteinEstimator

ATTACKS = {
    "pgd": Pgd(samples=50, steps=30, epsilon=0.2),
    "ddn": Ddn(samples=50, steps=20),
    "apgd-min": ApgdMin(samples=50, steps=4, targets=2, searches=3),
    "caa": CertificationAware(samples=100, iterations=20),
    "caa-newton": Newton(steps=8),
}


def small_examples(classifier: SmoothedClassifier, count: int) -> list[Example]:
    """Random images with the labels that the network gives them."""
    images = torch.rand(count, *classifier.input_shape, generator=torch.Generator().manual_seed(3))
    votes = classifier.keyed_votes(images, Key.direct(count), 200)
    return [
        Example(i, image, int(vote.argmax()), 0.1) for i, (image, vote) in enumerate(zip(images, votes, strict=True))
    ]


def found(attack: Attack, classifier: SmoothedClassifier, examples: list[Example], batch: int, restarts: int):
    findings = Search(attack, classifier, batch, restarts=restarts).run(examples)
    return sorted(findings, key=lambda finding: finding.example.index)


@pytest.mark.parametrize("name", ATTACKS)
def test_the_result_is_the_nearest_of_searches_on_noise_of_their_own(name: str):
    classifier, attack = make_small(), ATTACKS[name]
    _, example = small_examples(classifier, 2)
    alone = [*Search(attack, classifier).run([replace(example, search=number) for number in range(3)])]
    assert len({finding.boundary_distance for finding in alone}) == 3, "other noise, another result"
    (together,) = found(attack, classifier, [example], 1, 3)
    nearest = min(alone, key=lambda finding: finding.boundary_distance)
    assert together.boundary_distance == nearest.boundary_distance < torch.inf
    assert torch.equal(together.candidates[0].image, nearest.candidates[0].image)
    for cost in ("iterations", "forward_evaluations", "backward_evaluations"):
        assert getattr(together, cost) == sum(getattr(finding, cost) for finding in alone)


@pytest.mark.parametrize("name", ATTACKS)
def test_a_restart_depends_on_neither_batch_nor_what_else_is_searched(name: str):
    classifier = make_small()
    examples = small_examples(classifier, 3)
    one, three = (found(ATTACKS[name], classifier, examples, batch, 2) for batch in (1, 3))
    for alone, beside in zip(one, three, strict=True):
        assert (alone.iterations, alone.forward_evaluations) == (beside.iterations, beside.forward_evaluations)
        assert alone.boundary_distance == pytest.approx(beside.boundary_distance, rel=1e-5)
        assert torch.allclose(alone.candidates[0].image, beside.candidates[0].image, atol=1e-5)


def test_by_votes_alone_a_restart_crosses_the_boundary_anew():
    linear = make_linear(gradients=SteinEstimator())
    example = Example(0, linear.at(1.0), 1, 0.5, starting_points=torch.stack([linear.at(-2.0)]))
    walk = BoundaryWalk(samples=100, steps=6)
    once, twice = (found(walk, linear.classifier, [example], 1, restarts)[0] for restarts in (1, 2))
    assert twice.boundary_distance <= once.boundary_distance < torch.inf
    assert twice.forward_evaluations > once.forward_evaluations


def finding(distance: float, confident: bool, boundary: float, error: str | None = None) -> Finding:
    candidate = Candidate(torch.full((1, 2, 2), distance), distance, torch.tensor([1, 2]), confident)
    return Finding(Example(0, torch.zeros(1, 2, 2), 0), [candidate], 3, 20, 10, 1, 0.5, boundary, error)


def test_two_searches_are_joined_to_the_candidates_of_the_nearer_and_the_cost_of_both():
    earlier, later = finding(1.0, True, 1.5), finding(1.2, False, 1.1)
    joined = later.joined(earlier)
    assert [candidate.distance for candidate in joined.candidates] == [1.2, 1.0], "the other's, as no other is sure"
    assert joined.confident is earlier.candidates[0]
    assert joined.boundary_distance == 1.1
    cost = (joined.iterations, joined.forward_evaluations, joined.backward_evaluations, joined.lost_gradients)
    assert (*cost, joined.seconds) == (6, 40, 20, 2, 1.0)
    assert [candidate.distance for candidate in finding(1.0, True, 0.9).joined(later).candidates] == [1.0]
    assert finding(1.0, True, 1.5).joined(later).candidates[0].distance == 1.2, "the earlier one may be the nearer"


def custom(attack, classifier: SmoothedClassifier, restarts: int) -> Finding:
    plan = AttackPlan.of(checkpoint="demo", attack=attack, samples=100, restarts=restarts)
    (example,) = small_examples(classifier, 1)
    return next(Search(build_attack(plan), classifier, restarts=plan.restarts).run([example]))


def test_an_attack_of_ones_own_draws_anew_at_every_restart():
    drawn: list[float] = []

    def random_steps(classifier, images, labels, generator):
        drawn.append(float(torch.rand(1, generator=generator)))
        drawn.append(float(torch.rand(1)))
        return (images + torch.randn(images.shape, generator=generator)).clamp(0.0, 1.0)

    custom(random_steps, make_small(), 3)
    assert len(drawn) == len(set(drawn)) == 6


def test_an_attack_that_fails_at_a_restart_has_failed():
    calls: list[int] = []

    def second_fails(classifier, images, labels, generator):
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("no more")
        return 1.0 - images

    failed = custom(second_fails, make_small(), 3)
    assert failed.error is not None
    assert "no more" in failed.error
    assert len(calls) == 2, "no further search"

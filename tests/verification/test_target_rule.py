"""Verification with a target: it has to beat every other class, with at most the same error probability."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from prescribed import SHAPE, fewest_votes, interval, prescribed
from scipy import stats

from caa_cli.attacks.common.state import Candidate, Example, Finding
from caa_cli.config.bounds import BOUNDS
from caa_cli.verification.claim import Claim
from caa_cli.verification.rules import RULES, Exact, Try
from caa_cli.verification.sequential_test import SequentialTest
from caa_cli.verification.verifier import Verifier

GREY = torch.full(SHAPE, 0.5)
LEVEL = 0.02


def on_ray(distance: float, votes: tuple[int, ...], target: int | None = 2) -> Finding:
    """A candidate for an image of class 0."""
    example = Example(7, GREY, 0, target=target)
    return Finding(example, [Candidate(GREY + distance / 8.0, distance, torch.tensor(votes))], 10, 0, 0, 0, 0.0)


def verdict(attempt: Try, stages: np.ndarray, drawn: list[int]) -> bool:
    """Whether a try passes on votes (stages, classes), each those so far."""
    for votes, total in zip(stages, drawn, strict=True):
        passed = attempt.judge(votes, total)
        if passed is not None:
            return passed
    return False


@pytest.mark.parametrize(
    "p",
    [
        (1 / 3, 1 / 3, 1 / 3),  # two other classes, both even with the target
        (0.1, 0.45, 0.45),  # a third class, even with it
        (0.45, 0.1, 0.45),  # the label, even with it
        (0.1, 0.3, 0.2, 0.4, 0.0),  # a third class above it
    ],
)
@pytest.mark.parametrize("rule", RULES)
def test_a_target_that_is_not_the_likeliest_passes_with_at_most_alpha(rule: str, p: tuple[float, ...]):
    alpha, samples, repeats, target = 0.05, 3000, 6000, 2
    settings = RULES[rule](samples, alpha, "goodman", tries=1)
    drawn = list(settings.stages())
    random = np.random.default_rng(1)
    votes = random.multinomial(np.diff([0, *drawn]), p, size=(repeats, len(drawn))).cumsum(axis=1)
    claim = Claim(0, len(p), target)
    passed = sum(verdict(settings.begin(0, target, claim.opponents), row, drawn) for row in votes)
    assert stats.binomtest(passed, repeats, alpha, alternative="greater").pvalue > 1e-3
    if rule == "exact" and p == (0.1, 0.45, 0.45):
        assert passed / repeats > 0.6 * alpha  # it does not give the level away


@pytest.mark.parametrize("classes", [2, 3, 6, 50])
def test_the_exact_rule_passes_once_each_pairwise_test_has(classes: int):
    """Test by test, however their votes are shared between the classes."""
    rule = Exact(1500, 0.3, "goodman", tries=1)
    drawn, random = list(rule.stages()), np.random.default_rng(classes)
    passes = 0
    for repeat in range(60):
        p = random.dirichlet(np.full(classes, 30.0 if repeat % 2 else 0.5))  # several strong ones, or one
        p[0] = p.max() * random.uniform(0.9, 1.2)
        votes = random.multinomial(np.diff([0, *drawn]), p / p.sum()).cumsum(axis=0)
        tests = {other: SequentialTest(0.3, 1500) for other in range(1, classes)}
        expected = False
        for row, total in zip(votes, drawn, strict=True):
            found = {other: test.judge(row[0], row[0] + row[other], total) for other, test in tests.items()}
            if False in found.values():
                break
            tests = {other: test for other, test in tests.items() if found[other] is None}
            if not tests:
                expected = True
                break
        assert verdict(rule.begin(0, 0, np.arange(1, classes)), votes, drawn) == expected
        passes += expected
    assert 0 < passes < 60


def test_with_two_classes_it_is_the_untargeted_test():
    drawn = [100, 200, 300]
    random = np.random.default_rng(0)
    for rule in (Exact(300, 0.3, "goodman", tries=1), RULES["intervals"](300, 0.3, "goodman", tries=1)):
        stages = drawn if rule.stages() != (300,) else [300]
        for _ in range(40):
            heads = random.binomial(100, 0.53, size=3).cumsum()[-len(stages) :]
            votes = np.stack([np.array(stages) - heads, heads], axis=1)
            with_target = rule.begin(0, 1, Claim(0, 2, target=1).opponents)
            without = rule.begin(0, 1, Claim(0, 2).opponents)
            assert verdict(with_target, votes, stages) == verdict(without, votes, stages)


def test_a_thousand_classes_take_few_tests():
    attempt = Exact(1500, LEVEL, "goodman", tries=1).begin(0, 5, Claim(0, 1000, 5).opponents)
    votes = np.zeros(1000, dtype=np.int64)
    votes[[5, 0, 1]] = 45, 40, 15
    assert attempt.judge(votes, 100) is None
    assert len(attempt.undecided) == 1  # the classes without votes have lost, and class 1; the label is undecided


@pytest.mark.parametrize("bound", BOUNDS)
def test_by_intervals_the_target_is_above_the_highest_of_the_others(bound: str):
    """The third class decides, not the label: one vote fewer fails."""
    enough = fewest_votes(1000, 1000, 3, LEVEL, bound)
    verifier = partial(Verifier, rule="intervals", samples=1000, alpha=LEVEL, bound=bound, finish="none", tries=1)
    for target_votes, passes in ((enough, True), (enough - 1, False)):
        classifier = prescribed([0, 1000 - target_votes, target_votes, 0])
        verified = verifier().verify(on_ray(1.0, (0, 700, 800)), classifier)
        assert (verified.image is not None) == passes
        assert verified.adversarial_class == (2 if passes else None)
    assert interval(enough, 1000, 3, LEVEL, bound)[0] > 0.4


@pytest.mark.parametrize("rule", RULES)
def test_another_class_in_the_lead_is_no_success_with_a_target(rule: str):
    verifier = Verifier(rule=rule, samples=1500, finish="none", tries=1, bound="goodman")
    table = [100, 1300, 100, 0] if rule == "intervals" else [10, 80, 10, 0]
    tables = [table] * (1 if rule == "intervals" else 15)
    assert verifier.verify(on_ray(1.0, (100, 1200, 200)), prescribed(*tables)).image is None
    assert verifier.verify(on_ray(1.0, (100, 1200, 200), None), prescribed(*tables)).adversarial_class == 1


def test_the_line_search_measures_the_target_against_the_strongest_other_class():
    """The point of the next probe lies further out where a third class, not the label, is ahead of the target."""
    verifier = Verifier(rule="intervals", samples=1000, probe_samples=1000, tries=1, probes=2)
    further = []
    for votes in ([500, 100, 400, 0], [100, 500, 400, 0], [400, 100, 500, 0]):
        classifier = prescribed(votes, votes, [0, 0, 1000, 0])
        verifier.verify(on_ray(1.0, (450, 100, 450)), classifier)
        further.append(float((classifier.draws[1].image - GREY).norm()))
    assert further[0] == pytest.approx(further[1])
    assert further[0] > further[2] + 0.05


def test_the_class_that_a_claim_is_about():
    votes = np.array([50, 80, 20, 60])
    assert Claim(0, 4).sides(votes) == (1, 0)
    assert Claim(1, 4).sides(votes) == (3, 1)
    assert Claim(0, 4, target=2).sides(votes) == (2, 1)
    assert Claim(0, 4, target=1).sides(votes) == (1, 3)
    assert Claim(0, 4, target=2).opponents.tolist() == [0, 1, 3]
    assert Claim(0, 4).opponents.tolist() == [0]

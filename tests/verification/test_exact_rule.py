"""The exact rule: a fair coin passes with at most its error probability, whenever the test may stop."""

from __future__ import annotations

import itertools
import time
from functools import partial

import numpy as np
import pytest
import torch
from even import errors_at_even_points
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import make_linear
from prescribed import SHAPE, prescribed
from scipy import stats

from caa_cli.attacks.common.state import Candidate, Example, Finding
from caa_cli.smoothing.noise import Purpose
from caa_cli.verification import sequential_test
from caa_cli.verification.rules import Exact, Intervals, Rule
from caa_cli.verification.sequential_test import SequentialTest
from caa_cli.verification.verifier import Verifier

LEVEL = 0.02


def critical_counts(level: float, both: list[int], drawn: list[int]) -> list[int]:
    """By stage the fewest of all votes so far that pass."""
    test = SequentialTest(level, drawn[-1])
    return [test.next_stage(*stage) for stage in zip(both, drawn, strict=True)]


def passing_probability(counts: list[int], both: list[int], share: float) -> float:
    """P(a coin that falls on the rival with this probability passes at any stage), path by path."""
    alive, passed, before = {0: 1.0}, 0.0, 0
    for critical, total in zip(counts, both, strict=True):
        following: dict[int, float] = {}
        for (heads, p), more in itertools.product(alive.items(), range(total - before + 1)):
            q = p * stats.binom.pmf(more, total - before, share)
            if heads + more >= critical:
                passed += q
            else:
                following[heads + more] = following.get(heads + more, 0.0) + q
        alive, before = following, total
    return passed


@given(st.lists(st.integers(0, 12), min_size=1, max_size=4), st.sampled_from([0.3, 0.05, 0.001]))
@settings(max_examples=40)
def test_an_even_point_passes_with_at_most_its_level_whatever_votes_fall_on_other_classes(steps, level):
    both = np.cumsum(steps).tolist()
    drawn = [15 * (stage + 1) for stage in range(len(both))]
    counts = critical_counts(level, both, drawn)
    assert passing_probability(counts, both, 0.5) <= level * (1 + 1e-9)
    assert passing_probability(counts, both, 0.45) <= level * (1 + 1e-9)


@pytest.mark.parametrize(("alpha", "samples", "mass"), [(0.05, 300, 0.8)])
def test_even_points_pass_as_often_as_alpha_allows(alpha: float, samples: int, mass: float):
    """Simulated; 1,000,000 trials are in docs/method/verification.md."""
    trials = 40_000
    found = errors_at_even_points(alpha, samples, mass, trials)
    limits = [*zip(found["errors"], found["levels"], strict=True), (found["error"], alpha)]
    for error, limit in limits:
        assert error <= limit + 4.0 * (limit / trials) ** 0.5
    assert found["error"] >= 0.7 * alpha, "what is allowed is made use of"


@pytest.mark.parametrize("level", [1e-13, 0.0035, 0.45])
def test_very_many_samples_take_no_more_than_a_moment(level: float):
    """By FFT, whose rounding must not let a path pass earlier than the exact law does."""
    stages = range(4000, 60_001, 4000)
    both = [stage // 2 for stage in stages]
    exact = critical_counts(level, both, list(stages))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequential_test, "_LONG", 0)
        fast = critical_counts(level, both, list(stages))
    later = [quick - slow for slow, quick in zip(exact, fast, strict=True)]
    assert min(later) >= 0
    assert max(later) <= 1 or level < 1e-9, "what is made up for shows at tiny levels alone"
    began = time.thread_time()
    test = SequentialTest(level, 10**7)
    for stage in range(1, 16):
        test.next_stage(stage * 10**7 // 15, stage * 10**7 // 15)
    assert time.thread_time() - began < 3.0


def test_with_one_stage_it_is_the_binomial_test():
    for both in (1, 7, 100, 1001):
        least = int(stats.binom.isf(LEVEL, both, 0.5)) + 1  # P(count ≥ least) ≤ LEVEL
        assert critical_counts(LEVEL, [both], [both]) == [least]


def test_it_spends_nearly_all_of_its_level():
    both = [40, 80, 120]
    spent = passing_probability(critical_counts(LEVEL, both, both), both, 0.5)
    assert 0.7 * LEVEL < spent <= LEVEL


@pytest.mark.parametrize("total", [10, 15_000, 1_000_000])
def test_the_boundaries_hold_by_simulation_too(total: int):
    stages = Exact(total, 0.05, "goodman").stages()
    random = np.random.default_rng(4)
    heads = random.binomial(np.diff([0, *stages]), 0.5, size=(200_000, len(stages))).cumsum(axis=1)
    passed = (heads >= critical_counts(0.05, list(stages), list(stages))).any(axis=1)
    assert stats.binomtest(int(passed.sum()), len(passed), 0.05, alternative="greater").pvalue > 1e-3
    assert passed.mean() > (0.045 if total > 10 else 0.0)


def test_a_stage_passes_at_its_critical_count_and_not_below():
    stages = [400, 700, 1000]
    for last, critical in enumerate(critical_counts(LEVEL, stages, stages)):
        for votes, expected in ((critical, True), (critical - 1, None if last < 2 else False)):
            test = SequentialTest(LEVEL, 1000)
            for stage, undecided in zip(stages[:last], (220, 375), strict=False):
                assert test.judge(undecided, stage, stage) is None
            assert test.judge(votes, stages[last], stages[last]) is expected


def test_it_gives_up_only_where_hardly_anything_could_pass():
    test = SequentialTest(LEVEL, 1000)
    assert test.judge(50, 100, 100) is None
    assert test.judge(60, 200, 200) is False


def test_no_vote_for_either_class_decides_nothing_before_the_end():
    test = SequentialTest(LEVEL, 200)
    assert test.judge(0, 0, 100) is None
    assert test.judge(0, 0, 200) is False


@pytest.mark.parametrize("level", [1e-12, 0.999])
def test_extreme_levels(level: float):
    assert SequentialTest(level, 100).judge(100, 100, 100) is True
    assert SequentialTest(level, 100).judge(30, 100, 100) is False


def test_the_stages_of_a_few_samples_are_distinct():
    assert Exact(3, 0.05, "goodman").stages() == [1, 2, 3]
    assert Exact(15_000, 0.05, "goodman").stages()[-1] == 15_000


def test_the_levels_of_the_tries_are_alpha_together():
    for tries in (1, 2, 4, 7):
        rule = Exact(100, 0.005, "goodman", tries)
        assert sum(rule.level(attempt) for attempt in range(tries)) == pytest.approx(0.005)


GREY = torch.full(SHAPE, 0.5)


def on_ray(distance: float, votes: tuple[int, ...]) -> Finding:
    image = GREY + distance / 8.0
    return Finding(Example(7, GREY, 0), [Candidate(image, distance, torch.tensor(votes))], 10, 0, 0, 0, 0.0)


exact = partial(Verifier, rule="exact", finish="none", alpha=LEVEL, tries=1)


def test_a_try_ends_with_the_stage_that_passes():
    """Each stage has noise of its own try, and the samples after it are not drawn."""
    classifier = prescribed([0, 100, 0], [0, 0, 0])
    verified = exact(samples=1500).verify(on_ray(1.0, (700, 800)), classifier)
    assert (verified.adversarial_class, verified.tries, verified.forward_evaluations) == (1, 1, 100)
    assert verified.samples == 100
    assert [draw.noise for draw in classifier.draws] == [(Purpose.VERIFICATION, 7, 0, 0, 100)]


def test_a_try_draws_on_while_it_is_undecided():
    classifier = prescribed([49, 51, 0], [0, 100, 0], [0, 0, 0])
    verified = exact(samples=1500).verify(on_ray(1.0, (700, 800)), classifier)
    assert verified.forward_evaluations == 200
    assert [draw.noise[3:] for draw in classifier.draws] == [(0, 100), (100, 100)]


def test_the_class_is_the_one_that_earlier_votes_name():
    """Else the class with the most votes would be chosen on the votes that are to verify it."""
    verified = exact(samples=150).verify(on_ray(1.0, (100, 900, 500)), prescribed(*[[0, 0, 10, 0]] * 15))
    assert verified.image is None


def test_each_candidate_names_its_own_class():
    """Points further out on the ray of the last are of its class."""
    found = on_ray(1.0, (100, 900, 500))
    found.candidates.append(Candidate(GREY + 1.5 / 8.0, 1.5, torch.tensor([100, 500, 900])))
    for fails in (1, 3):
        classifier = prescribed(*[[100, 0, 0, 0]] * fails, [0, 0, 100, 0])
        verified = exact(samples=1500, tries=4).verify(found, classifier)
        assert (verified.adversarial_class, verified.tries) == (2, fails + 1)


def test_the_last_try_on_the_ray_of_another_candidate_is_for_the_class_of_that_one():
    found = on_ray(1.0, (800, 700, 0))
    found.candidates[0].confident = False
    image = GREY.clone()
    image[0, :, :4] += 0.3
    found.candidates.append(Candidate(image, float((image - GREY).norm()), torch.tensor([300, 0, 1200])))
    verifier = Verifier(rule="exact", samples=1500, alpha=LEVEL, tries=2, probes=1)
    verified = verifier.verify(found, prescribed([60, 40, 0, 0], [100, 0, 0, 0], [0, 0, 100, 0]))
    assert (verified.adversarial_class, verified.tries) == (2, 2)
    torch.testing.assert_close(verified.image, image)


def test_a_candidate_at_which_every_sample_abstains_is_not_verified():
    nothing, probes = on_ray(1.0, (0, 0, 0)), [[0, 0, 0, 100]] * 6
    assert Verifier(samples=1500).verify(nothing, prescribed(*probes, *[[0, 0, 0, 1500]] * 4)).image is None


def test_the_line_search_names_the_class():
    probes, tries = [[40, 10, 50, 0]] * 6, [[0, 0, 100, 0]]
    verifier = Verifier(rule="exact", samples=1500, alpha=LEVEL, tries=1)
    assert verifier.verify(on_ray(1.0, (100, 900, 500)), prescribed(*probes, *tries)).adversarial_class == 2


def test_votes_for_other_classes_and_abstentions_do_not_count():
    crowd, few = [0, 8, 92, 0], [0, 8, 0, 92]
    for table in (crowd, few):
        verified = exact(samples=100).verify(on_ray(1.0, (10, 900, 500)), _at_once(table))
        assert (verified.image is not None) == (stats.binom.sf(7, 8, 0.5) <= LEVEL)


def _at_once(table: list[int]):
    """A classifier whose only samples are those of the table, in 15 stages."""
    columns = np.array([np.diff([count * stage // 15 for stage in range(16)]) for count in table]).T
    return prescribed(*columns.tolist())


def test_on_a_linear_model_it_takes_half_the_evaluations_of_intervals():
    linear = make_linear()
    clean, image = linear.at(1.0), linear.at(-0.02)
    results = {}
    for rule in ("exact", "intervals"):
        candidate = Candidate(image, float((image - clean).norm()), torch.tensor([776, 724]))
        results[rule] = [
            Verifier(rule=rule).verify(
                Finding(Example(index, clean, 1), [candidate], 10, 0, 0, 0, 0.0), linear.classifier
            )
            for index in range(12)
        ]
    assert all(1.0 < result.radius < 1.08 for result in results["exact"])
    cost = {rule: np.mean([result.forward_evaluations for result in found]) for rule, found in results.items()}
    assert cost["exact"] < 0.7 * cost["intervals"]


def test_it_draws_on_where_passing_is_about_as_likely_as_not():
    test = SequentialTest(LEVEL, 1000)
    assert test.judge(138, 250, 250) is None
    assert test.judge(262, 500, 500) is None


@pytest.mark.parametrize(("unanimous", "passes"), [(6, False), (7, True)])
def test_the_first_try_has_its_share_of_alpha_and_no_more(unanimous: int, passes: bool):
    """1/64 is below alpha = 0.02, but not below 0.7 of it; 1/128 is."""
    verifier = Verifier(rule="exact", finish="none", alpha=0.02, samples=15, tries=2)
    tables = [[0, 1, 0, 0]] * unanimous + [[0, 0, 1, 0]] * (15 - unanimous)
    verified = verifier.verify(on_ray(1.0, (10, 900, 500)), prescribed(*tables, *[[1, 0, 0, 0]] * 15))
    assert (verified.image is not None) == passes


def test_a_try_that_gives_up_draws_no_more():
    classifier = prescribed([100, 0, 0], [0, 0, 0])
    verified = exact(samples=1500).verify(on_ray(1.0, (700, 800)), classifier)
    assert (verified.image, verified.forward_evaluations) == (None, 100)


@pytest.mark.parametrize(("votes", "points"), [([500, 500, 0], 3), ([999, 1, 0], 6)])
def test_the_line_search_ends_once_it_is_precise_enough(votes: list[int], points: int):
    """Points near the boundary say more about it than distant ones."""
    verifier = Verifier(rule="exact", samples=15_000, alpha=LEVEL, tries=1)
    classifier = prescribed(*[votes] * points, [1000, 0, 0])
    verifier.verify(on_ray(1.0, (700, 800)), classifier)
    assert [draw.key.purpose for draw in classifier.draws] == [Purpose.PROBE] * points + [Purpose.VERIFICATION]


@pytest.mark.parametrize(
    ("rule", "samples", "possible"), [(Exact, 8, False), (Exact, 9, True), (Intervals, 9, False)]
)
def test_whether_so_few_samples_can_verify_anything(rule: type[Rule], samples: int, possible: bool):
    """2⁻⁹ is below 0.7 of alpha = 0.005, 2⁻⁸ is not."""
    assert rule(samples, 0.005, "goodman").can_pass(10) is possible

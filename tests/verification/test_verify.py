"""A success is what fresh noise proves: right on models whose boundary is known, and rare where there is none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import Linear, make_linear
from scipy import stats

from caa_cli.attacks.common.loop import Candidate, Example, Finding
from caa_cli.config.bounds import BOUNDS
from caa_cli.smoothing.bounds import leader, separation
from caa_cli.verification.line_search import Crossing, margin, margin_to_pass
from caa_cli.verification.verifier import Verifier


def finding(linear: Linear, beyond: list[float], distance: float = 1.0, index: int = 0) -> Finding:
    """Candidates this far beyond the plane, for an image at `distance` on the side of class 1."""
    clean = linear.at(distance)
    candidates = []
    for b in beyond:
        image = linear.at(-b)
        p = stats.norm.cdf(b / linear.classifier.sigma)
        votes = torch.tensor([round(1500 * p), 1500 - round(1500 * p)])
        candidates.append(Candidate(image, float((image - clean).norm()), votes))
    return Finding(Example(index, clean, 1), candidates, 10, 0, 0, 0, 0.0)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("beyond", [0.02, 0.1, 0.5])
def test_the_finish_finds_the_shortest_provable_distance_on_the_ray(bound: str, beyond: float):
    linear = make_linear()
    proved = Verifier(bound=bound).verify(finding(linear, [beyond]), linear.classifier)
    assert proved.radius is not None
    assert 1.0 < proved.radius < 1.05
    assert proved.radius == pytest.approx(float((proved.image - linear.at(1.0)).norm()), rel=1e-6)


def test_without_the_finish_the_nearest_candidate_that_passes_is_taken():
    linear = make_linear()
    proved = Verifier(finish="none").verify(finding(linear, [0.0, 0.1, 0.2]), linear.classifier)
    assert proved.radius == pytest.approx(1.1, rel=1e-4)
    assert proved.tries == 2
    assert proved.forward_evaluations == 2 * 15000


def test_without_the_finish_it_backs_off_beyond_the_last_candidate():
    linear = make_linear()
    verifier = Verifier(finish="none", samples=50_000)
    proved = verifier.verify(finding(linear, [0.0]), linear.classifier)
    assert proved.tries > 1
    assert 1.01 < proved.radius < 1.07


def test_nothing_to_try_is_no_success():
    linear = make_linear()
    empty = Finding(Example(0, linear.at(1.0), 1), [], 10, 0, 0, 0, 0.0)
    assert Verifier().verify(empty, linear.classifier).image is None


def test_a_candidate_on_the_wrong_side_is_never_proved_where_it_is():
    linear = make_linear()
    proved = Verifier(finish="none", tries=1).verify(finding(linear, [-0.2]), linear.classifier)
    assert proved.image is None
    assert proved.radius is None


@pytest.mark.parametrize("bound", BOUNDS)
def test_a_point_on_the_boundary_passes_no_more_often_than_alpha(bound: str):
    """The same rule as in `verify`, simulated: four tries at alpha/4 each on points where both classes are even."""
    alpha, tries, n, repeats = 0.05, 4, 1000, 20_000
    wins = np.random.default_rng(0).binomial(n, 0.5, size=(repeats, tries))
    counts = np.stack([wins, n - wins], axis=-1)
    total, claimed = np.full((repeats, tries), n), np.zeros((repeats, tries), int)
    passed = separation(counts, total, claimed, alpha / tries, bound, against=claimed + 1).confident
    false = int(passed.any(axis=1).sum())
    assert false <= stats.binom.ppf(0.9999, repeats, alpha), f"{false} of {repeats}"


@pytest.mark.parametrize("bound", ["goodman", "cp-bonferroni"])
def test_ten_classes_do_not_make_a_false_proof_likelier(bound: str):
    """The label even with its strongest rival, eight others between them: any of the nine may be claimed."""
    alpha, tries, n, repeats = 0.05, 4, 1000, 10_000
    p = [0.44, 0.44] + [0.12 / 8] * 8
    counts = np.random.default_rng(0).multinomial(n, p, size=(repeats, tries))
    label = np.zeros((repeats, tries), int)
    claimed = leader(counts, excluding=label)
    total = np.full((repeats, tries), n)
    passed = separation(counts, total, claimed, alpha / tries, bound, against=label).confident
    false = int(passed.any(axis=1).sum())
    assert false <= stats.binom.ppf(0.9999, repeats, alpha), f"{false} of {repeats}"


def test_the_margin_of_votes_is_the_distance_on_a_linear_model():
    linear, n = make_linear(), 1_000_000
    for distance in (-0.3, 0.0, 0.4):
        p = stats.norm.cdf(distance / 0.5)
        votes = np.array([round(n * (1 - p)), round(n * p)])
        assert margin(votes, n, label=0, sigma=0.5).h == pytest.approx(distance, abs=1e-3)
    assert linear.classifier.sigma == 0.5


def test_the_error_of_a_margin_is_its_spread():
    rng, n = np.random.default_rng(0), 2000
    votes = rng.multinomial(n, [0.42, 0.48, 0.10], size=3000)
    found = [margin(v, n, label=0, sigma=0.5) for v in votes]
    spread = np.std([m.h for m in found])
    assert np.mean([m.error for m in found]) == pytest.approx(spread, rel=0.05)


@pytest.mark.parametrize("bound", BOUNDS)
def test_the_target_margin_is_just_enough_to_pass(bound: str):
    n, alpha, spare = 15_000, 0.00125, 1.3
    h = margin_to_pass(1.0, n, 2, alpha, bound, sigma=0.5, spare=spare)
    p = stats.norm.cdf(h / 0.5)
    wins = np.random.default_rng(0).binomial(n, p, size=20_000)
    counts, zeros = np.stack([wins, n - wins], axis=1), np.zeros(20_000, int)
    passed = separation(counts, np.full(20_000, n), zeros, alpha, bound, against=zeros + 1).confident.mean()
    assert passed == pytest.approx(stats.norm.cdf(spare), abs=0.02)


def test_a_line_through_exact_margins_is_the_line():
    crossing = Crossing()
    for t in (0.9, 1.0, 1.1, 1.2):
        h = 0.6 * (t - 1.05)
        p = stats.norm.cdf(h / 0.5)
        n = 10**7
        crossing.add(t, margin(np.array([round(n * (1 - p)), round(n * p)]), n, label=0, sigma=0.5))
    assert crossing.solve(spare=0.0, target=0.0) == pytest.approx(1.05, abs=0.005)
    assert crossing.solve(spare=0.0, target=0.06) == pytest.approx(1.15, abs=0.01)
